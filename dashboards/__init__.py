"""The web process: Panel pages that show the fleet and the series of each device, live and over time.

process.py      starts and ends the web server
web.py          the ASGI app: which address is which page, health and metrics
guard.py        what every request must satisfy before a page sees it
feed.py         the one place that follows the store, for all open sessions together
window.py       the last minutes of one series, as live charts show them
fleet.py        the newest value of every series, and what has changed in it
charts.py       the Bokeh figures and their columns
components.py   the parts of pages that are drawn by our own JavaScript
units.py        how units are written for people
shell.py        what is around every page
pages/          one file a page
mends.py        faults of the libraries, mended until they are
static/         HTML, style and JavaScript; everything a browser asks for comes from here or from Bokeh and Panel
"""
