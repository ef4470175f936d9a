"""What is around every page: the head, the bar with the name and the light switch, and the notice when all is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import panel as pn

STATIC = Path(__file__).with_name("static")

_TEMPLATE = (STATIC / "shell.html").read_text()


def page(**parts: Any) -> pn.Template:
    """Return a page of parts, one below the other, in the order given.

    Args:
        parts: Name of the place → Panel component. The name is the id of the section around it.
    """
    template = pn.Template(_TEMPLATE)
    for name, part in parts.items():
        template.add_panel(name, part)
    template.add_variable("places", list(parts))
    return template
