"""ELSYS room sensors over LoRaWAN, as a worked example of a decoder: ``ISOTHERM_DECODERS=connectors/examples/elsys.py``

A frame is one value after the other, each a byte that says which and then so many bytes, big-endian:

    01 00e2  02 29  04 0027  05 06  06 0308  07 0d62      22.6 °C, 41 %RH, 39 lx, moved 6 times, 776 ppm, 3.426 V

    isotherm decode frame.hex --hex --type elsys-ers --decoders connectors/examples/elsys.py

Format: elsys.se, "Sensor payload". Units: RFC 8428 §12.1, RFC 8798.
"""

from collections.abc import Iterator

from connectors.decoders import decoder

VALUES = {
    # which: bytes, signed, scale, name, unit
    0x01: (2, True, 10, "temperature", "Cel"),
    0x02: (1, False, 1, "humidity", "%RH"),
    0x04: (2, False, 1, "light", "lx"),
    0x05: (1, False, 1, "motion", "count"),
    0x06: (2, False, 1, "co2", "ppm"),
    0x07: (2, False, 1000, "battery", "V"),
}


@decoder("elsys-ers", topic="lorawan/{device}/up")
def decode(payload: bytes) -> Iterator[dict[str, object]]:
    """Yield a SenML record for each value of a frame."""
    at = 0
    while at < len(payload):
        if payload[at] not in VALUES:
            raise ValueError(f"byte {at} is {payload[at]:#04x}, which no value begins with that is known here")
        size, signed, scale, name, unit = VALUES[payload[at]]
        value = payload[at + 1 : at + 1 + size]
        if len(value) < size:
            raise ValueError(f"the frame ends within {name}")
        yield {"n": name, "u": unit, "v": int.from_bytes(value, "big", signed=signed) / scale}
        at += 1 + size
