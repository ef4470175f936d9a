"""The REST API, ``/api/v1``: what the pages can do, for programs.

app.py       the ASGI app below that address, and its description (OpenAPI 3.1)
caller.py    who makes a request, and whether a scope lets them
problems.py  how a refusal is said: problem+json (RFC 9457)
bodies.py    how much a request may carry
answers.py   how a representation is sent: JSON with an ETag, a page of a list with a cursor
once.py      a request that is sent again with its Idempotency-Key is done once
rate.py      how many requests a token may make
devices.py, series.py, stream.py, alarms.py, rules.py, system.py   the resources, one file each
"""
