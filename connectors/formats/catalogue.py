"""Every format by its name, which one a media type means, and which one a first line is of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from connectors.formats import senml, senml_cbor, thingsboard
from connectors.formats.decoded import Decoder
from connectors.formats.graphite import GraphiteDecoder
from connectors.formats.influx import PRECISIONS, InfluxDecoder
from connectors.formats.number import NumberDecoder
from isotherm.errors import SettingsError

NDJSON, SENML_JSON, SENML_CBOR, INFLUX, GRAPHITE = "ndjson", "senml-json", "senml-cbor", "influx", "graphite"
THINGSBOARD, THINGSBOARD_GATEWAY = "thingsboard", "thingsboard-gateway"
NUMBER, HOOK = "number:", "decoder:"
"""What the names of formats with a parameter begin with: a metric, the name of a decoder of the user's."""

MEDIA_TYPES = {
    "application/senml+json": SENML_JSON,
    "application/json": SENML_JSON,
    "application/senml+cbor": SENML_CBOR,
    "application/cbor": SENML_CBOR,
    "application/x-ndjson": NDJSON,
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
}
"""What a media type says; text/plain and what curl sends by itself say nothing, then the content does."""

UNTYPED = ("", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded")

_GRAPHITE_LINE = re.compile(rb"[^\s{\[]\S*[ \t]+[-+]?[\d.naiNAI][^\s=]*[ \t]+-?\d+(?:\.\d*)?\s*")
_INFLUX_LINE = re.compile(rb"#|[^\s{\[][^\n]*=")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The decoders, set up as the settings say.

    Attributes:
        decoders: Name → decoder; those of Influx lines with another precision than ns are named such as ``influx-ms``, those
            of the user's such as ``decoder:elsys-ers``.
    """

    decoders: Mapping[str, Decoder]

    @classmethod
    def of(
        cls, device_tags: Sequence[str], graphite_prefix: str, hooks: Mapping[str, Decoder] = MappingProxyType({})
    ) -> Catalogue:
        """Set the decoders up.

        Args:
            device_tags: Tags that name the device in InfluxDB lines.
            graphite_prefix: What Graphite paths have before the device.
            hooks: The user's decoders by their formats, :attr:`connectors.decoders.Decoders.forms`.
        """
        influx = {influx_form(name): InfluxDecoder(device_tags=device_tags, precision=name) for name in PRECISIONS}
        return cls(
            {
                NDJSON: senml.decode_lines,
                SENML_JSON: senml.decode_payload,
                SENML_CBOR: senml_cbor.decode_payload,
                GRAPHITE: GraphiteDecoder(graphite_prefix),
                THINGSBOARD: thingsboard.decode_payload,
                THINGSBOARD_GATEWAY: thingsboard.decode_gateway_payload,
                **influx,
                **hooks,
            }
        )

    def decoder(self, form: str) -> Decoder:
        """Return the decoder of a format, also of one with a parameter: ``influx``, ``number:temperature``.

        Raises:
            SettingsError: there is none; says which there are.
        """
        if form.startswith(NUMBER):
            return NumberDecoder(form.removeprefix(NUMBER))
        if form not in self.decoders:
            raise SettingsError(f"there is no format {form[:80]!r}; there are {', '.join(self.names())}")
        return self.decoders[form]

    def names(self) -> list[str]:
        """Return the names of all formats, for people: a format that others are spellings of stands for these."""
        spellings = {influx_form(name) for name in PRECISIONS} - {INFLUX}
        return [*sorted(self.decoders.keys() - spellings), f"{INFLUX}-PRECISION", f"{NUMBER}METRIC"]


def influx_form(precision: str) -> str:
    """Return the name of the format of Influx lines with timestamps of a precision."""
    return INFLUX if precision == "ns" else f"{INFLUX}-{precision}"


def is_joinable(form: str) -> bool:
    """Tell whether inputs of a format that were refused can be kept together, each in a line."""
    return form not in ("", SENML_CBOR) and not form.startswith((NUMBER, HOOK))


def split(form: str, data: bytes, count: int) -> Sequence[bytes]:
    """Return the inputs of a format that were kept together, as what its decoder takes at once.

    Decoders of lines take many. Of messages, each is in a line.

    Args:
        form: A joinable format.
        data: The inputs.
        count: How many they are.
    """
    return data.split(b"\n") if count > 1 and form in (THINGSBOARD, THINGSBOARD_GATEWAY) else [data]


def detect(line: bytes) -> str | None:
    """Return the format of a line, or None when it looks like nothing we know.

    >>> detect(b'{"n":"room-1/temperature","v":21.5}'), detect(b"room-1.temperature 21.5 1790000000")
    ('ndjson', 'graphite')
    >>> detect(b"temperature,device=room-1 value=21.5"), detect(b"hello")
    ('influx', None)
    """
    start = line.lstrip()
    if start[:1] in (b"{", b"["):
        return NDJSON
    if _GRAPHITE_LINE.fullmatch(start):
        return GRAPHITE
    return INFLUX if _INFLUX_LINE.match(start) else None


def detect_body(body: bytes) -> str:
    """Return the format of a whole message; what looks like nothing is read as NDJSON, which says what is wrong with it."""
    start = body.lstrip()
    if start[:1] == b"[":
        first, _, rest = start.partition(b"\n")
        return NDJSON if first.rstrip().endswith(b"]") and rest.strip() else SENML_JSON
    return detect(start.partition(b"\n")[0]) or NDJSON
