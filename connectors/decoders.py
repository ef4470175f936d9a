"""Decoders of the user's own: which there are, and for what.

A Python file registers them (``ISOTHERM_DECODERS`` names the files):

    from connectors.decoders import decoder

    @decoder("door", topic="doors/{device}/up")
    def decode(payload):
        yield {"n": "open", "vb": payload[0] == 1}
        yield {"n": "battery", "u": "V", "v": payload[1] / 10}

The decoder's name is the type of the devices that it is for (``isotherm devices add front --type door``), and with a topic
it is also asked about what comes there. How it is run: connectors/formats/hook.py.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from connectors.formats.catalogue import HOOK
from connectors.formats.decoded import Decoder
from connectors.formats.hook import Function, HookDecoder
from connectors.plugins import definitions_of
from isotherm.errors import SettingsError
from isotherm.names import is_device_name

DEVICE = "{device}"
"""The level of a topic that names the device."""

ANY = "+"
"""A level of a topic that may be anything (MQTT 5 §4.7.1.3)."""

_F = TypeVar("_F", bound=Function)


@dataclass(frozen=True, slots=True)
class Hook:
    """A function that was registered.

    Attributes:
        name: The decoder's, and the type of its devices.
        function: Turns a payload into SenML records.
        topic: Where its payloads come, such as ``doors/{device}/up``; empty when only their type tells.
    """

    name: str
    function: Function
    topic: str = ""


_found: ContextVar[list[Hook] | None] = ContextVar("found", default=None)


def decoder(name: str, *, topic: str = "") -> Callable[[_F], _F]:
    """Register a function as a decoder; the function itself stays as it is.

    Args:
        name: The decoder's name, and the type of its devices.
        topic: MQTT topic of its payloads: ``{device}`` is the level that names the device, ``+`` is any level.

    Raises:
        SettingsError: the name, the topic or the function cannot be used.
    """
    if not is_device_name(name) or ":" in name:
        raise SettingsError(f"{name!r} is no name of a decoder: letters, digits and - . _, the first a letter or digit")
    if topic:
        _check_topic(topic)

    def register(function: _F) -> _F:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise SettingsError(f"decoder {name!r} is async; it must be a plain function: it may not wait for anything")
        hooks = _found.get()
        if hooks is not None:
            hooks.append(Hook(name, function, topic))
        return function

    return register


class Decoders:
    """The decoders that were found, in the order of their files.

    Attributes:
        forms: Format → decoder, for :meth:`connectors.formats.catalogue.Catalogue.of`.
        topics: MQTT filters to subscribe to, such as ``doors/+/up``.
        places: The same as they were registered, such as ``doors/{device}/up``.
    """

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        """Prepare.

        Args:
            hooks: What was registered, each name and each topic once.
        """
        self._hooks = {hook.name: hook for hook in hooks}
        placed = [hook for hook in self._hooks.values() if hook.topic]
        self.forms: Mapping[str, Decoder] = {
            form_of(name): HookDecoder(name, hook.function) for name, hook in self._hooks.items()
        }
        self.places: Sequence[str] = [hook.topic for hook in placed]
        self.topics: Sequence[str] = [_filter(hook.topic) for hook in placed]
        self._patterns = [(_pattern(hook.topic), form_of(hook.name)) for hook in placed]

    @classmethod
    def load(cls, paths: Iterable[Path]) -> Decoders:
        """Run Python files and return what they registered.

        Raises:
            SettingsError: a file cannot be run or registers nothing, or two decoders have one name or one topic.
        """
        found: dict[str, Hook] = {}
        topics: dict[str, str] = {}
        for path in paths:
            _, hooks = run_file(path)
            if not hooks:
                raise SettingsError(f"{path} registers no decoder: a function under @decoder(…); see connectors/README.md")
            for hook in hooks:
                if hook.name in found:
                    raise SettingsError(f"{path} registers a decoder {hook.name!r}, and there is one of that name already")
                if hook.topic and (other := topics.setdefault(_filter(hook.topic), hook.name)) != hook.name:
                    raise SettingsError(f"{path}: decoders {other!r} and {hook.name!r} are both for topic {hook.topic!r}")
                found[hook.name] = hook
        return cls(found.values())

    def by_topic(self, topic: str) -> tuple[str, str] | None:
        """Return the device that a topic names and the format of what comes there; None when no decoder is for it.

        Of several decoders for it the first one counts. What is in the place of the device may be no device's name.

        Args:
            topic: A message's topic, without wildcards.
        """
        for pattern, form in self._patterns:
            if match := pattern.fullmatch(topic):
                return match[1], form
        return None

    def by_type(self, type: str) -> str | None:
        """Return the format of what devices of a type send; None when there is no decoder for it."""
        return form_of(type) if type in self._hooks else None


def run_file(path: Path) -> tuple[dict[str, Any], list[Hook]]:
    """Run a Python file and return all that it defines, and the decoders that it registers.

    Raises:
        SettingsError: it cannot be run.
    """
    hooks: list[Hook] = []
    before = _found.set(hooks)
    try:
        return definitions_of(path), hooks
    finally:
        _found.reset(before)


def form_of(name: str) -> str:
    """Return the name of the format of a decoder's payloads."""
    return f"{HOOK}{name}"


def _check_topic(topic: str) -> None:
    levels = topic.split("/")
    if levels.count(DEVICE) != 1:
        raise SettingsError(f"topic {topic!r} needs one level {DEVICE}, which names the device: doors/{DEVICE}/up")
    if wrong := [level for level in levels if level not in (DEVICE, ANY) and re.search(r"[+#{}\0]", level)]:
        raise SettingsError(
            f"topic {topic!r} has a level {wrong[0]!r}; + and {DEVICE} must be levels by themselves, # is none"
        )


def _filter(topic: str) -> str:
    return topic.replace(DEVICE, ANY)


def _pattern(topic: str) -> re.Pattern[str]:
    kinds = {DEVICE: "([^/]*)", ANY: "[^/]*"}
    written = "/".join(kinds.get(level) or re.escape(level) for level in topic.split("/"))
    # A wildcard at the beginning does not match the broker's own topics (MQTT 5 §4.7.2).
    return re.compile(rf"(?!\$){written}" if topic[0] in "+{" else written, re.DOTALL)
