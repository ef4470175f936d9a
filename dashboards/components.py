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


class _Component(pn.custom.JSComponent):  # type: ignore[misc]
    """A component in our style."""

    __abstract = True

    def __init__(self, **params: Any) -> None:
        super().__init__(**{"sizing_mode": "stretch_width", "margin": 0, "stylesheets": [_STYLE], **params})


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

    def send(self, message: dict[str, Any]) -> None:
        """Send what ``fleet.js`` describes."""
        self._send_msg(message)


class DeviceHead(_Asking):
    """The name of a device, its metrics and their newest values."""

    _esm = STATIC / "device.js"

    state = param.Dict(default={}, doc="What device.js describes.")


class RangeBar(_Component):
    """The buttons that choose how far back the history chart goes, and what its points stand for."""

    _esm = STATIC / "ranges.js"

    choices = param.List(default=[], doc="Names of the ranges.")
    chosen = param.String(default="", doc="The one shown, or empty.")
    note = param.String(default="", doc="What is said beside the buttons.")

    def __init__(self, choose: Callable[[str], None], **params: Any) -> None:
        super().__init__(**params)
        self._choose = choose

    def _handle_msg(self, data: Any) -> None:
        if data in self.choices:
            self._choose(data)
