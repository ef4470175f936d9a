"""A picture of what an analytic makes of its readings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isotherm.errors import IsothermError
from isotherm.events import Event

MAX_SERIES = 10
"""Series of one kind that a picture shows."""

Columns = Mapping[str, tuple[Any, Any]]


def plot(path: Path, inputs: Columns, derived: Columns, units: Mapping[str, str], events: list[Event]) -> None:
    """Draw readings above what was made of them, against UTC, and events as vertical lines.

    Args:
        path: Where the picture goes; its suffix says of which kind: .png, .svg, .pdf.
        inputs, derived: Series → times (µs) and values.
        units: Series → unit.
        events: Those that came of it.

    Raises:
        IsothermError: the picture cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = [(title, columns) for title, columns in (("read", inputs), ("made", derived)) if columns]
    figure, axes = pyplot.subplots(len(parts), 1, sharex=True, figsize=(10, 3 * len(parts)), squeeze=False)
    for axis, (title, columns) in zip(axes[:, 0], parts, strict=True):
        for name, (time, value) in list(columns.items())[:MAX_SERIES]:
            axis.plot(np.asarray(time).view("datetime64[us]"), value, linewidth=1, label=name)
        for event in events:
            axis.axvline(np.datetime64(event.time, "us"), color="tab:red", linewidth=0.8, alpha=0.5)
        axis.set_title(
            title + (f" (the first {MAX_SERIES} of {len(columns)})" if len(columns) > MAX_SERIES else ""), loc="left"
        )
        axis.set_ylabel(", ".join(sorted({units[name] for name in columns if units.get(name)})) or "value")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("UTC")
    try:
        figure.savefig(path, dpi=120, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise IsothermError(f"{path} cannot be written: {error}") from error
    finally:
        pyplot.close(figure)
