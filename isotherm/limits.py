"""The limits of what a device may send, each with its unit. Decoders and intake enforce them; docs quote them."""

from __future__ import annotations

MICROSECOND = 1
MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

MAX_LINE_BYTES = 64 * 1024
"""One line of a line protocol, without its newline."""

MAX_PACK_BYTES = 1024 * 1024
"""One payload of a message protocol."""

MAX_PACK_READINGS = 10_000
"""Readings in one payload, and in one Kafka record."""

MAX_NAME_CHARS = 128
"""A device name, and a metric name."""

MAX_LABEL_CHARS = 64
"""The word or key of a device's label, and its value."""

MAX_LABELS = 32
"""Labels of one device."""

MAX_DEVICE_METRICS = 10_000
"""Metrics of one device: each takes memory in the store for as long as its longest tier."""

MAX_ATTRIBUTE_CHARS = 4096
"""A string value, which becomes an attribute of its device."""

MAX_SEQ = 2**63 - 2
"""Greatest sequence number that a device may send."""

MAX_AHEAD_US = 5 * SECOND
"""A reading whose time is further ahead is accepted, and its device's clock said to be wrong: no delay explains it."""

MAX_FUTURE_US = 10 * MINUTE
"""How far ahead of the server's clock a reading may claim to be."""

MAX_PAST_US = 365 * DAY
"""How old a reading may be: the retention of the longest tier."""

MAX_REJECT_RAW_BYTES = 64 * 1024
"""How much of a rejected input `rejects` keeps."""
