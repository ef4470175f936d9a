"""The parts of pages that are drawn by our own JavaScript, each in the file of its name in ``static/``.

They put text into the page as text, never as HTML: names and units come from devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import panel as pn
import param

from dashboards.shell import STATIC

_STYLE = (STATIC / "components.css").read_text()
_OVERVIEW_STYLE = (STATIC / "overview.css").read_text()
_BOARD_STYLE = (STATIC / "board.css").read_text()


class _Component(pn.custom.JSComponent):  # type: ignore[misc]
    """A component in our style."""

    __abstract = True

    def __init__(self, **params: Any) -> None:
        super().__init__(**{"sizing_mode": "stretch_width", "margin": 0, "stylesheets": [_STYLE, _OVERVIEW_STYLE], **params})


class _Asking(_Component):
    """A component that asks for data when it is there to draw it."""

    __abstract = True

    def __init__(self, ready: Callable[[], None], **params: Any) -> None:
        super().__init__(**params)
        self._ready = ready

    def _handle_msg(self, data: Any) -> None:
        if data == "ready":
            self._ready()


class FleetTable(_Asking):
    """All devices, filtered and ticking in the browser."""

    _esm = STATIC / "fleet.js"

    def __init__(self, ready: Callable[[], None], sparks: Callable[[list[str], str], None], **params: Any) -> None:
        super().__init__(ready, **params)
        self._sparks = sparks

    def _handle_msg(self, data: Any) -> None:
        if isinstance(data, dict) and isinstance(names := data.get("sparks"), list):
            self._sparks([name for name in names if isinstance(name, str)], str(data.get("metric", "")))
        else:
            super()._handle_msg(data)

    def send(self, message: dict[str, Any]) -> None:
        """Send what ``fleet.js`` describes."""
        self._send_msg(message)


class DeviceHead(_Asking):
    """The name of a device, its metrics and their newest values; a metric is chosen by a click on it."""

    _esm = STATIC / "device.js"

    state = param.Dict(default={}, doc="What device.js describes.")

    def __init__(self, ready: Callable[[], None], choose: Callable[[str], None], **params: Any) -> None:
        super().__init__(ready, **params)
        self._choose = choose

    def _handle_msg(self, data: Any) -> None:
        if isinstance(data, dict) and isinstance(metric := data.get("choose"), str):
            self._choose(metric)
        else:
            super()._handle_msg(data)


class DeviceDetails(_Component):
    """The alarms of a device and its attributes."""

    _esm = STATIC / "details.js"

    alarms = param.List(default=[], doc="[{severity, message, start, end, status}], newest first, times in ms.")
    texts = param.List(default=[], doc="[{name, text, time}], time in ms.")


class Board(_Component):
    """A component that is told what to draw, and says what its visitor wants done."""

    __abstract = True

    def __init__(self, hear: Callable[[Any], None], **params: Any) -> None:
        super().__init__(**{"stylesheets": [_STYLE, _BOARD_STYLE], **params})
        self._hear = hear

    def _handle_msg(self, data: Any) -> None:
        self._hear(data)

    def send(self, message: dict[str, Any]) -> None:
        """Send what the component's JavaScript describes."""
        self._send_msg(message)


class AlarmTable(Board):
    """The alarms: filtered in the browser, acknowledged and shelved."""

    _esm = STATIC / "alarms.js"


class RuleTable(Board):
    """The rules, and the form in which one is written."""

    _esm = STATIC / "rules.js"


class _Controls(_Component):
    """A component that asks the REST API itself, with its visitor's session."""

    __abstract = True

    may = param.Boolean(default=False, doc="Whether its visitor may send commands and change settings.")

    def __init__(self, **params: Any) -> None:
        super().__init__(**{"stylesheets": [_STYLE, _BOARD_STYLE], **params})


class DeviceControls(_Controls):
    """What a device is asked to do, and how it is configured."""

    _esm = STATIC / "control.js"

    device = param.String(default="", doc="Its name; empty while it is not registered.")


class FleetControls(_Controls):
    """Commands and configuration for many devices, and how far rollouts are."""

    _esm = STATIC / "rollouts.js"


class PipelineBoard(Board):
    """The ledger, throughput, analytics and parts."""

    _esm = STATIC / "pipeline.js"


class RejectTable(Board):
    """The newest rejects, with their bytes."""

    _esm = STATIC / "rejects.js"


class RangeBar(_Component):
    """The buttons that choose how far back the history chart goes, and what its points stand for."""

    _esm = STATIC / "ranges.js"

    choices = param.List(default=[], doc="Names of the ranges.")
    chosen = param.String(default="", doc="The one shown, or empty.")
    note = param.String(default="", doc="What is said beside the buttons.")
    csv = param.String(default="", doc="Where the range can be had as a file, or empty.")

    def __init__(self, choose: Callable[[str], None], **params: Any) -> None:
        super().__init__(**params)
        self._choose = choose

    def _handle_msg(self, data: Any) -> None:
        if data in self.choices:
            self._choose(data)


class CompareBar(_Asking):
    """What is compared, over which range; everything is asked of ``CompareBar.ask``."""

    _esm = STATIC / "compare.js"

    state = param.Dict(default={}, doc="What compare.js describes.")

    def __init__(self, ready: Callable[[], None], ask: Callable[[str, str], None], **params: Any) -> None:
        super().__init__(ready, **params)
        self._ask = ask

    def _handle_msg(self, data: Any) -> None:
        if isinstance(data, dict):
            for what, value in data.items():
                if isinstance(what, str) and isinstance(value, str):
                    self._ask(what, value)
        else:
            super()._handle_msg(data)


class CompareLegend(_Component):
    """The lines that are compared: their colours, which are shown, and their figures."""

    _esm = STATIC / "legend.js"

    rows = param.List(default=[], doc="What legend.js describes.")

    def __init__(self, toggle: Callable[[str], None], **params: Any) -> None:
        super().__init__(**params)
        self._toggle = toggle

    def _handle_msg(self, data: Any) -> None:
        if isinstance(data, str):
            self._toggle(data)
