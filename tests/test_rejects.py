"""Rejects as records of their topic."""

from __future__ import annotations

from isotherm.kafka import MAX_VALUE_BYTES
from isotherm.limits import MAX_REJECT_RAW_BYTES
from isotherm.rejects import MAX_DETAIL_CHARS, Rejected, RejectRecord


def test_whatever_is_refused_and_why_fits_into_a_record() -> None:
    rejected = Rejected("analytic", "\0" * 3_000_000, b"\0" * 3_000_000)  # an exception may say anything
    record = RejectRecord.of([rejected], protocol="agent/mine", peer="readings/0", received_at=1)
    assert len(record.to_json()) < MAX_VALUE_BYTES
    assert len(record.detail) == MAX_DETAIL_CHARS
    assert (len(record.original), record.size) == (MAX_REJECT_RAW_BYTES, 3_000_000)
