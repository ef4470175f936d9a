"""The series store: exact time series on plain Redis or Valkey.

    writer ── commit.lua ──► points of the hour ── sealer, seal.lua ──► sealed points and rollups ──► reader

``layout`` draws the keys and rows, ``sealed`` the compressed form, ``windows`` the sequence numbers that were seen,
``rollup`` the aggregates. ``plan`` chooses what a query reads, ``history`` is what it returns. ``client`` owns the
connection, ``capacity`` knows what all of it takes.
"""
