"""Analytics that read what they make, by way of others: readings would beget readings without end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agents.gather import wanted


class Flow(NamedTuple):
    """What an analytic reads, as patterns of series, and the metrics that it makes."""

    inputs: Sequence[str]
    outputs: Sequence[str]


def cycle(flows: Mapping[str, Flow], begin: str) -> list[str] | None:
    """Return the names on a way from an analytic back to itself, or None.

    >>> flows = {"mean": Flow(["*"], ["{metric}_mean"]), "score": Flow(["*"], ["{metric}_score"])}
    >>> cycle(flows, "mean")
    ['mean', 'score', 'mean']
    >>> cycle({"mean": Flow(["*"], ["{metric}_mean"]), "dew": Flow(["*/temperature"], ["dew_point"])}, "mean") is None
    True
    """
    ways = [[begin]]
    seen = set()
    while ways:
        way = ways.pop()
        for name, flow in flows.items():
            if name != way[-1] and _reads(flow, flows[way[-1]].outputs):
                if name == begin:
                    return [*way, begin]
                if name not in seen:
                    seen.add(name)
                    ways.append([*way, name])
    return None


def _reads(flow: Flow, metrics: Sequence[str]) -> bool:
    """Tell whether an analytic reads some of the metrics that another one makes."""
    is_wanted = wanted(",".join(flow.inputs), flow.outputs[0] if flow.outputs else "")
    return any(is_wanted(f"x/{metric.replace('{metric}', 'x')}") for metric in metrics)
