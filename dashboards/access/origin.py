"""Which hosts and origins are ours, and where a request comes from.

A page is reached by the browser of a person, who at the same time has other pages open: a foreign page may open a websocket
to us (browsers do not keep it from that), post a form to us, and have its own name resolve to our address (DNS rebinding).
The headers Host, Origin and Sec-Fetch-Site give it away: no page can forge them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from isotherm.settings import Settings

Headers = Mapping[bytes, bytes]

_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via")


class Origins:
    """What the settings say about addresses, applied to requests."""

    def __init__(self, settings: Settings) -> None:
        self._ours = settings.web_origin
        self._host = urlsplit(settings.web_origin).netloc
        self._local_only = not self._ours and is_loopback(settings.host)
        self._auto = settings.login == "auto"
        self._proxies = [ipaddress.ip_network(one, strict=False) for one in settings.trusted_proxies()]

    def refuse_host(self, headers: Headers) -> str | None:
        """Say what is wrong with the host that a request asks for, or None."""
        host = _text(headers, b"host")
        if self._ours and host != self._host:
            return f"this server is {self._ours}; open that"
        if self._local_only and not is_loopback(_name(host)):
            return "this address serves this machine only; open it as localhost or 127.0.0.1"
        if self._auto and any(name in headers for name in _FORWARDED):
            return "a proxy has passed this on, and here nobody has to log in: set ISOTHERM_LOGIN=required"
        return None

    def is_ours(self, headers: Headers) -> bool:
        """Tell whether a page of ours sends a form or opens a websocket."""
        host, origin = _text(headers, b"host"), _text(headers, b"origin")
        if headers.get(b"sec-fetch-site", b"same-origin") != b"same-origin":
            return False
        if self._ours:
            return origin == self._ours
        return bool(host) and origin in (f"http://{host}", f"https://{host}")

    def is_no_page(self, headers: Headers) -> bool:
        """Tell whether a request comes from a program that is no browser: browsers name the origin of every change."""
        return not any(name in headers for name in (b"origin", b"sec-fetch-site", b"cookie", b"referer"))

    def address(self, client: tuple[str, int] | None, headers: Headers) -> str:
        """Return the address that a request comes from: what trusted proxies say, and nobody else."""
        address = client[0] if client else ""
        said = [one.strip() for one in _text(headers, b"x-forwarded-for").split(",") if one.strip()]
        while said and self._is_proxy(address):
            address = said.pop()
        return address[:64]

    def is_of_this_machine(self, client: tuple[str, int] | None, headers: Headers) -> bool:
        """Tell whether a program of this machine asks, and not for somebody else."""
        return client is not None and is_loopback(client[0]) and not any(name in headers for name in _FORWARDED)

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)


def is_loopback(name: str) -> bool:
    """Tell whether a host name or address means this machine.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("example.org")
    (True, True, True, False)
    """
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """Return a Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _text(headers: Headers, name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1").lower()
