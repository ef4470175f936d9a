"""The registry in a file: what ``isotherm backup`` writes and ``isotherm restore`` takes back.

It is what people have entered and nothing else tells again: devices and hashes of their tokens, users, rules, alarms, …
``families`` says which keys of the store that are, and which are not and why. ``file`` holds the format, ``take`` and
``restore`` do the work.
"""
