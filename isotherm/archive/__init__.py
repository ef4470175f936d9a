"""History in files: what ``isotherm export`` writes and ``isotherm import`` takes back.

A file is CSV (RFC 4180, UTF-8, comma) or Parquet, with one row for each raw reading, or for each slot where only rollups are
kept. No two rows of an export stand for the same reading.

    | column                | CSV             | Parquet            | meaning                                               |
    |-----------------------|-----------------|--------------------|-------------------------------------------------------|
    | device, metric        | text            | utf8 (dictionary)  | the series                                            |
    | unit                  | text            | utf8 (dictionary)  | RFC 8428 §12.1, or empty                              |
    | time                  | ISO 8601, UTC   | timestamp[us, UTC] | of a reading; of a slot its begin                     |
    | step                  | seconds         | float64, seconds   | width of the slot; 0: a raw reading                   |
    | count                 | integer         | int64              | readings that the row stands for                      |
    | sum, min, max, last   | shortest decimal| float64            | their aggregates; of a raw reading its value          |
    | last_at               | ISO 8601, UTC   | timestamp[us, UTC] | time of ``last``                                      |

Files with raw readings alone may have ``value`` instead of the columns from ``step`` on, and no ``unit``.

``rows`` holds what both formats have in common, ``csv_file`` and ``parquet_file`` the formats, ``check`` what a row must
keep to, ``merge`` makes batches for the store of rows, ``take_out`` and ``take_in`` do the work.
"""
