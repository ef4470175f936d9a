"""A mend to aiokafka 0.14, applied on import.

aiokafka asks for a producer id with version 0 of InitProducerId alone, which has no field for the producer's own id and
epoch. The embedded broker (Tansu 0.6) answers that with UNKNOWN_SERVER_ERROR, so that no idempotent producer starts.
Version 3 carries both (KIP-360); Apache Kafka speaks it too. tests/test_kafka.py tells when the mend is no longer needed.
"""

from __future__ import annotations

from aiokafka.protocol import transaction
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import CompactString, Int16, Int32, Int64, Schema, TaggedFields


class _InitProducerIdResponse(Response):  # type: ignore[misc]
    API_KEY = 22
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class _InitProducerIdRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 22
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _InitProducerIdResponse
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")),
        ("transaction_timeout_ms", Int32),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


def _build(request: transaction.InitProducerIdRequest, version: type[RequestStruct]) -> RequestStruct:
    fields = (request._transactional_id, request._transaction_timeout_ms)
    return version(*fields, -1, -1, {}) if version is _InitProducerIdRequest else version(*fields)


transaction.InitProducerIdRequest._CLASSES = (transaction.InitProducerIdRequest_v0, _InitProducerIdRequest)
transaction.InitProducerIdRequest.build = _build
