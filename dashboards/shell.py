"""What is around every page: the head, the bar with pages, user and light switch, and a notice when all is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import panel as pn
from jinja2 import Environment

from dashboards.visitor import Visitor
from isotherm.accounts.role import Role

STATIC = Path(__file__).with_name("static")

PAGES = (
    ("/", "Fleet", Role.VIEWER),
    ("/compare", "Compare", Role.VIEWER),
    ("/alarms", "Alarms", Role.VIEWER),
    ("/pipeline", "Pipeline", Role.VIEWER),
    ("/admin", "Admin", Role.ADMIN),
)
"""What the bar leads to: address, name, and the least role that sees it."""

HEADER = "<!-- the bar at the top -->"
"""Where it goes in the HTML of a page, which is otherwise the same for all visitors."""

_TEMPLATE = (STATIC / "shell.html").read_text()
_HEADER = Environment(autoescape=True).from_string((STATIC / "header.html").read_text())


def page(**parts: Any) -> pn.Template:
    """Return a page of parts, one below the other, in the order given.

    Args:
        parts: Name of the place → Panel component. The name is the id of the section around it.
    """
    template = pn.Template(_TEMPLATE)
    for name, part in parts.items():
        template.add_panel(name, part)
    template.add_variable("places", list(parts))
    template.add_variable("header", HEADER)
    return template


def header(who: Visitor | None, form_token: str, path: str) -> str:
    """Return the bar at the top of a page, HTML.

    Args:
        who: Who looks at it, or None when nobody is logged in.
        form_token: What the form that logs out carries.
        path: Of the page.
    """
    pages = [(address, name) for address, name, least in PAGES if who is not None and who.may(least)]
    return _HEADER.render(pages=pages, visitor=who, token=form_token, path=path)
