"""The numbers of CoAP that we use: codes, options, content formats (RFC 7252 §12, and the documents named beside them)."""

from __future__ import annotations

CON, NON, ACK, RST = range(4)
"""Types of a message (§3)."""


def code(kind: int, detail: int) -> int:
    """Return a code as its byte, of ``c.dd`` as it is written.

    >>> code(2, 4) == 0x44
    True
    """
    return kind << 5 | detail


def dotted(code: int) -> str:
    """Write a code as people do.

    >>> dotted(0x44)
    '2.04'
    """
    return f"{code >> 5}.{code & 31:02}"


EMPTY = code(0, 0)
GET, POST = code(0, 1), code(0, 2)
LAST_METHOD = code(0, 31)

CHANGED, CONTENT = code(2, 4), code(2, 5)
CONTINUE = code(2, 31)  # RFC 7959
BAD_REQUEST, UNAUTHORIZED, BAD_OPTION = code(4, 0), code(4, 1), code(4, 2)
NOT_FOUND, METHOD_NOT_ALLOWED, NOT_ACCEPTABLE = code(4, 4), code(4, 5), code(4, 6)
REQUEST_ENTITY_INCOMPLETE = code(4, 8)  # RFC 7959
REQUEST_ENTITY_TOO_LARGE = code(4, 13)
UNSUPPORTED_CONTENT_FORMAT = code(4, 15)
TOO_MANY_REQUESTS = code(4, 29)  # RFC 8516
SERVICE_UNAVAILABLE, PROXYING_NOT_SUPPORTED = code(5, 3), code(5, 5)

CSM, PING, PONG, RELEASE, ABORT = (code(7, detail) for detail in range(1, 6))
"""Signals of CoAP over TCP (RFC 8323 §5)."""

OBSERVE = 6  # RFC 7641
URI_HOST, URI_PORT, URI_PATH, URI_QUERY = 3, 7, 11, 15
ETAG, CONTENT_FORMAT, MAX_AGE, ACCEPT = 4, 12, 14, 17
BLOCK2, BLOCK1, SIZE2, SIZE1 = 23, 27, 28, 60  # RFC 7959
PROXY_URI, PROXY_SCHEME = 35, 39
NO_RESPONSE = 258  # RFC 7967
REQUEST_TAG = 292  # RFC 9175
DEVICE_TOKEN = 65_002
"""Ours, of the numbers for experiments (RFC 7252 §12.2). Even: a server that does not know it passes it over."""

LINK_FORMAT = 40  # RFC 6690
OCTETS = 42
JSON, CBOR, SENML_JSON, SENML_CBOR = 50, 60, 110, 112

PAYLOAD_MARKER = 0xFF
MAX_TOKEN_BYTES = 8
