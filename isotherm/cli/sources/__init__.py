"""Where commands get what they print: from the store, or, when ISOTHERM_URL names a platform elsewhere, from its REST API.

Each module has a Protocol of what some commands ask, its two faces, and what opens the one that is meant. Both faces answer
with the same values, those of the platform itself, so a command is written once and does not know where it is.

devices.py   devices, their newest values, labels and tokens
series.py    the history of series
ledger.py    the ledger
alarms.py    alarms, and what people have to say about them
rules.py     rules
rejects.py   what was refused
users.py     who may log in
"""
