"""Which role an address needs. What is not listed needs an admin."""

from __future__ import annotations

from isotherm.accounts.role import Role

OPEN = -1
"""Everybody; nobody is looked up."""

ANYBODY = 0
"""Everybody; whoever is logged in is known to the page."""

_RULES: dict[str, int] = {
    "/": Role.VIEWER,
    "/healthz": OPEN,
    "/readyz": OPEN,
    "/static": OPEN,
    "/assets": OPEN,
    "/login": ANYBODY,
    "/register": ANYBODY,
    "/reset": ANYBODY,
    "/logout": Role.VIEWER,
    "/account": Role.VIEWER,
    "/metrics": Role.VIEWER,
    "/device": Role.VIEWER,
    "/compare": Role.VIEWER,
    "/alarms": Role.VIEWER,
    "/pipeline": Role.VIEWER,
    "/admin": Role.ADMIN,
    "/api": Role.VIEWER,
}
"""Address → least role; it holds for what lies below the address, too, except for ``/``."""

WHILE_PASSWORD_IS_GIVEN = ("/account", "/logout")
"""What who has to choose a password may open."""


def is_api(path: str) -> bool:
    """Tell whether an address is for programs: they show a token, and are refused in JSON."""
    return path == "/api" or path.startswith("/api/")


def is_prometheus(path: str) -> bool:
    """Tell whether an address is for programs that know Prometheus: they are refused as it does it."""
    return path.startswith("/api/prometheus/")


def least(path: str) -> int:
    """Return the least role that an address needs, or OPEN, or ANYBODY.

    The websocket of a page has the page's address with ``/ws`` behind it.

    >>> [least(path) for path in ("/", "/ws", "/device/ws", "/devices", "/Login", "/static/js/a.js")]
    [<Role.VIEWER: 1>, <Role.VIEWER: 1>, <Role.VIEWER: 1>, <Role.ADMIN: 3>, <Role.ADMIN: 3>, -1]
    """
    return _RULES.get("/" if path in ("/", "/ws") else "/" + path[1:].partition("/")[0], Role.ADMIN)


def is_straight(path: str) -> bool:
    """Tell whether an address says what it means: no empty, dot or hidden segments that somebody may read otherwise.

    >>> is_straight("/static/a.js"), is_straight("//admin"), is_straight("/static/../admin"), is_straight("/a\\\\b")
    (True, False, False, False)
    """
    if not path.startswith("/") or "//" in path or "\\" in path or "%" in path or not path.isprintable():
        return False
    return not {".", ".."} & set(path.split("/"))
