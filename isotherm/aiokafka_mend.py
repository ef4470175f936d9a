"""Two mends to aiokafka 0.14, applied on import.

aiokafka asks for a producer id with version 0 of InitProducerId alone, which has no field for the producer's own id and
epoch. The embedded broker (Tansu 0.6) answers that with UNKNOWN_SERVER_ERROR, so that no idempotent producer starts.
Version 3 carries both (KIP-360); Apache Kafka speaks it too. tests/test_kafka.py tells when the mend is no longer needed.

An idempotent producer must not give up a batch: the sequence number that it has taken is then missing, and the broker
refuses every later batch of that partition as out of order. aiokafka says so itself (`_can_retry`), and yet gives up a batch
whose partition has had no leader for the time-out of a request, as happens when a broker is restarted. Here batches do not
expire.
"""

from __future__ import annotations

from aiokafka.producer.message_accumulator import MessageBatch
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

MessageBatch.expired = lambda batch: False  # every producer here is idempotent
