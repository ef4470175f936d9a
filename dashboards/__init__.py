"""The web process: Panel pages that show the fleet and the series of each device, live and over time.

process.py      starts and ends the web server
web.py          the ASGI app: which address is which page, health and metrics
sessions.py     a page's HTML at once, its session when the websocket opens; faults of bokeh-fastapi, mended
guard.py        what every request must satisfy before a page sees it
feed.py         the one place that follows the store, for all open sessions together
audience.py     those who watch one thing, each told as fast as its browser takes it
source.py       what is read on a beat, once for all open sessions: alarms, the ledger, rejects
window.py       the last minutes of one series, as live charts show them
fleet.py        the newest value of every series, and what has changed in it
alarms.py       the table of alarms and the rules
rules.py        a rule as a form, and what is wrong with its fields
requests.py     what the alarms page of a browser may ask for
desk.py         what visitors do to alarms and rules: who may, and that it is recorded and told
preview.py      what a rule would have done, worked out by the command line in a process of its own
visitor.py      who looks at a page
pipeline.py     the ledger, throughput and analytics in figures
verdict.py      whether the ledger adds up, in words
log.py          the Kafka log, and how far the store is behind it
parts.py        the parts of the platform and whether they are ready
rejects.py      the newest rejects with their bytes
known.py        presence, alarms and registry of all devices, read once for all sessions
alarm_spans.py  occurrences of alarms as spans of time, as charts mark them
sparks.py       the last half hour of the series whose rows are in view
gaps.py         silences, where a line is broken
charts.py       the Bokeh figures of one device and their columns
comparison.py   what is compared, and its values on common times; compare_chart.py is the figure
downloads.py    series as CSV files
components.py   the parts of pages that are drawn by our own JavaScript
shell.py        what is around every page
pages/          one file a page
api/            the REST API
static/         HTML, style and JavaScript; everything a browser asks for comes from here or from Bokeh and Panel
"""
