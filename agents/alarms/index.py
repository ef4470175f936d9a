"""Which rules look at a series: found by what they name exactly, so that ten thousand rules are not tried on each series."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from isotherm.registry import Device
from isotherm.rules import Rule
from isotherm.rules.check import is_glob
from isotherm.rules.targets import is_for, matches, metrics_of


class RuleIndex:
    """The enabled rules, by metric and then by what narrows their devices most: name, label, type, pattern."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = {rule.id: rule for rule in rules if rule.enabled}
        self._exact: defaultdict[str, _Devices] = defaultdict(_Devices)
        self._patterns: defaultdict[str, _Devices] = defaultdict(_Devices)
        self._whole = _Devices()
        self._known: dict[str, list[_Devices]] = {}
        for rule in self.rules.values():
            if rule.kind == "silence" and not rule.metric:
                self._whole.add(rule)
                continue
            for metric in metrics_of(rule):
                is_pattern = rule.kind != "expression" and is_glob(metric)
                (self._patterns if is_pattern else self._exact)[metric].add(rule)

    def of_series(self, device: Device, metric: str) -> list[Rule]:
        """Return the rules that look at a series, ascending by id."""
        parts = self._known.get(metric)
        if parts is None:
            parts = [found for pattern, found in self._patterns.items() if matches(pattern, metric)]
            if metric in self._exact:
                parts.append(self._exact[metric])
            self._known[metric] = parts
        return sorted((rule for part in parts for rule in part.rules_for(device)), key=lambda rule: rule.id)

    def of_device(self, device: Device) -> list[Rule]:
        """Return the rules that look at a device as a whole, ascending by id."""
        return sorted(self._whole.rules_for(device), key=lambda rule: rule.id)


def literal_prefix(pattern: str) -> str:
    """Return what a name begins with that matches a pattern.

    >>> literal_prefix("room-4*-[ab]")
    'room-4'
    """
    return _LITERAL.match(pattern)[0]  # type: ignore[index]  # it matches at least nothing


_LITERAL = re.compile(r"[^*?\[]*")
_NONE: Mapping[str, list[Rule]] = {}


class _Devices:
    """Rules by what narrows their devices most; a pattern by the text before its first wildcard."""

    def __init__(self) -> None:
        self._by_name: defaultdict[str, list[Rule]] = defaultdict(list)
        self._by_label: defaultdict[str, list[Rule]] = defaultdict(list)
        self._by_type: defaultdict[str, list[Rule]] = defaultdict(list)
        self._by_prefix: defaultdict[str, defaultdict[str, list[Rule]]] = defaultdict(lambda: defaultdict(list))
        self._prefixes: list[int] = []  # lengths of those

    def add(self, rule: Rule) -> None:
        """Enter a rule."""
        if not is_glob(rule.devices):
            self._by_name[rule.devices].append(rule)
        elif rule.label:
            self._by_label[rule.label].append(rule)
        elif rule.type:
            self._by_type[rule.type].append(rule)
        else:
            prefix = literal_prefix(rule.devices)
            self._by_prefix[prefix][rule.devices].append(rule)
            self._prefixes = sorted({*self._prefixes, len(prefix)})

    def rules_for(self, device: Device) -> Iterator[Rule]:
        """Yield the rules about a device."""
        yield from self._fitting(self._by_name, (device.name,), device)
        if self._by_label:
            keys = {label.partition("=")[0] for label in device.labels}
            yield from self._fitting(self._by_label, keys | device.labels, device)
        if self._by_type:
            yield from self._fitting(self._by_type, (device.type,), device)
        for length in self._prefixes:
            for pattern, rules in self._by_prefix.get(device.name[:length], _NONE).items():
                if matches(pattern, device.name):
                    yield from rules

    @staticmethod
    def _fitting(rules: Mapping[str, list[Rule]], names: Iterable[str], device: Device) -> Iterator[Rule]:
        for name in names:
            for rule in rules.get(name, ()):
                if is_for(rule, device):
                    yield rule
