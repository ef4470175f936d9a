"""What Grafana and other programs for Prometheus read: a subset of its HTTP API, below ``/api/prometheus/api/v1``.

app.py         the ASGI app: queries, series, labels, metadata
parameters.py  what a request says: times, steps, limits, from its address and its form
problems.py    how a refusal is said there
names.py       what our metrics and devices' labels are called there
catalogue.py   which series there are, with their labels, and which of them a selector means
tokens.py, language.py   the subset of PromQL: text → tree
windows.py     readings of one series → a value at each step
evaluation.py  values of many series → the answer: arithmetic, comparisons, aggregations
engine.py      a query from text to answer, within limits
answers.py     how an answer is written

Source: Prometheus 3, HTTP API and Querying basics.
"""
