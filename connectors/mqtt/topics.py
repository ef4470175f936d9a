"""What a topic means: whose readings a message on it holds, and in which format.

    | topic                          | payload                                                                    |
    |--------------------------------|----------------------------------------------------------------------------|
    | ``devices/ID/readings``        | SenML JSON or CBOR, NDJSON, Influx or Graphite lines                       |
    | ``devices/ID/telemetry``       | ThingsBoard's JSON of one device                                           |
    | ``devices/ID/gateway``         | ThingsBoard's JSON of a gateway: devices by their names                    |
    | ``devices/ID/replies``         | what the device says of a command, see ``connectors.dispatch``             |
    | ``devices/ID/METRIC``          | a plain number                                                             |
    | ``v1/devices/me/telemetry``    | ThingsBoard's topics: who it is says the user property ``token`` or,       |
    | ``v1/gateway/telemetry``       | with ISOTHERM_AUTH=open, ``device`` (MQTT 5); brokers tell no user names   |
    | those of decoders              | what the decoder understands                                               |

``commands`` and ``attributes`` are no metrics: they are passed over here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from connectors.formats.catalogue import MEDIA_TYPES, NUMBER, SENML_CBOR, THINGSBOARD, THINGSBOARD_GATEWAY, detect_body
from connectors.formats.escape import escape_bare_metric
from isotherm.names import is_device_name, is_metric_name

FILTERS = ("devices/+/+", "v1/devices/me/telemetry", "v1/gateway/telemetry")
"""What is subscribed to."""

PASSED_OVER = frozenset({"commands", "attributes"})

MAX_KNOWN = 100_000
"""Topics whose meaning is remembered."""

REPLY = "reply"
"""What stands for the format of a topic with replies."""

_CBOR_ARRAYS = frozenset({*range(0x80, 0x9C), 0x9F})
_FORMS = {"telemetry": THINGSBOARD, "gateway": THINGSBOARD_GATEWAY}
OWN = {"v1/devices/me/telemetry": THINGSBOARD, "v1/gateway/telemetry": THINGSBOARD_GATEWAY}
"""ThingsBoard's own topics, on which the message must say who sent it."""


class Route(NamedTuple):
    """What a topic means.

    Attributes:
        device: Whose readings they are; None when the message itself must say so.
        form: Name of the payload's format; None when the payload shows it.
        metric: Name of a plain number's metric, as its decoder writes it.
        error: Why it means nothing, or empty.
        is_passed_over: Messages are not for us.
    """

    device: str | None = None
    form: str | None = None
    metric: str = ""
    error: str = ""
    is_passed_over: bool = False


class Routes(dict[str, Route]):
    """Topic → what it means."""

    def __init__(
        self, topics: Sequence[str] = (), by_topic: Callable[[str], tuple[str, str] | None] = lambda _: None
    ) -> None:
        """Prepare.

        Args:
            topics: Further filters.
            by_topic: Returns the device and the format of a topic that one of these is for, else None.
        """
        super().__init__()
        self._topics = topics
        self._by_topic = by_topic

    @property
    def filters(self) -> Sequence[str]:
        """What to subscribe to."""
        return (*FILTERS, *self._topics)

    def __missing__(self, topic: str) -> Route:
        if len(self) >= MAX_KNOWN:
            self.clear()
        self[topic] = route = self._route(topic)
        return route

    def _route(self, topic: str) -> Route:
        if (found := self._by_topic(topic)) is not None:
            device, form = found
            return Route(device, form) if is_device_name(device) else Route(error=f"{device[:80]!r} is no device name")
        if topic in OWN:
            return Route(form=OWN[topic])
        levels = topic.split("/")
        if len(levels) != 3 or levels[0] != "devices":
            return Route(error=f"topic {topic[:200]!r}, expected devices/ID/readings, or a metric in place of readings")
        _, device, last = levels
        if not is_device_name(device):
            return Route(error=f"topic {topic[:200]!r}: {device[:80]!r} is no device name")
        if last in PASSED_OVER:
            return Route(device, is_passed_over=True)
        if last == "replies":
            return Route(device, REPLY)
        if last == "readings":
            return Route(device)
        if last in _FORMS:
            return Route(device, _FORMS[last])
        if not is_metric_name(last):
            return Route(device, error=f"topic {topic[:200]!r}: {last[:80]!r} is no metric name")
        return Route(device, NUMBER + last, escape_bare_metric(last))


def form_of(payload: bytes, content_type: str = "") -> str:
    """Return the format of a payload: what its content type says (MQTT 5 §3.3.2.3.9), else what it looks like."""
    known = MEDIA_TYPES.get(content_type.partition(";")[0].strip().lower())
    if known is not None:
        return known
    return SENML_CBOR if payload[:1] and payload[0] in _CBOR_ARRAYS else detect_body(payload)
