"""Webhook: a POST of JSON.

    POST /… HTTP/1.1
    Content-Type: application/json
    Idempotency-Key: 5f0c…                   the same again when the same is sent again
    X-Isotherm-Signature: sha256=9a3f…       HMAC-SHA256 of the body, hexadecimal, when the channel has a secret

    {
      "id": "5f0c…",                         as Idempotency-Key
      "channel": "ops",
      "time": "2026-01-31T22:15:03.120Z",    when it was put together
      "title": "[critical] room-3/temperature above 30 °C",
      "text": "[critical] room-3/temperature above 30 °C: raised 2026-01-31 23:15:02 CET",
      "severity": "critical",                the worst of them
      "count": 1,                            alarms, or other subjects, that it tells of
      "omitted": 0,                          how many of those are not in "messages", which has 50 at most
      "messages": [                          the worst first
        {"kind": "alarm.raised", "device": "room-3", "severity": "critical", "metric": "temperature", "value": 30.4,
         "unit": "Cel", "alarm": "…", "since": "…", "rule": "…", "message": "…", "time": "…",     of the last state change
         "id": "alarms/3/18c2/17",           of that event
         "first": "…", "counts": {"alarm.raised": 14, "alarm.cleared": 14}}                        of all of them
      ]
    }

Any 2xx takes it. 408, 425, 429, 5xx and a connection that fails are tried again, not before Retry-After has passed; every
other answer is told as an error and not tried again. Redirections are not followed.

What an operator must know (server-side request forgery): the request is made by the machine that runs this, with what that
may reach; whoever may add a channel may make it POST to any address there, also of an inner network, and reads the
beginning of an answer that is no 2xx. So only who may administer the platform may add channels, and where that is not
enough the process's way out has to be closed by the network (an egress policy, a proxy).
"""

from __future__ import annotations

import hashlib
import hmac
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec

from agents.notifications.channels.sender import Refused, Unreached
from agents.notifications.message import Delivery
from agents.notifications.text import body
from isotherm.channels import Channel, Webhook
from isotherm.clock import now_us
from isotherm.limits import SECOND

SHOWN_BYTES = 200
"""How much of an answer that is no 2xx is shown."""

CONNECT_SECONDS = 10.0
_AGAIN = {408, 425, 429}


class WebhookSender:
    """Posts to one address."""

    def __init__(self, channel: Channel, to: Webhook) -> None:
        self._channel = channel
        self._to = to
        self._session: aiohttp.ClientSession | None = None

    async def send(self, delivery: Delivery) -> str:
        """Post a delivery, see `Sender`."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS))
        data = msgspec.json.encode(body(self._channel, delivery))
        headers = {"Content-Type": "application/json", "Idempotency-Key": delivery.id, "User-Agent": "isotherm"}
        if self._to.secret:
            headers["X-Isotherm-Signature"] = f"sha256={signature(self._to.secret, data)}"
        try:
            async with self._session.post(self._to.url, data=data, headers=headers, allow_redirects=False) as response:
                answer = f"HTTP {response.status} {response.reason or ''}".strip()
                if 200 <= response.status < 300:
                    return answer
                said = (await response.content.read(SHOWN_BYTES)).decode(errors="replace").strip()
                text = f"{answer}: {said}" if said else answer
                if response.status in _AGAIN or response.status >= 500:
                    raise Unreached(text, retry_after(response.headers.get("Retry-After", ""), now_us()))
                if 300 <= response.status < 400:
                    raise Refused(f"{text}; redirections are not followed, name the address that it points to")
                raise Refused(text)
        except aiohttp.InvalidURL as error:
            raise Refused(f"the address is none: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreached(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()


def signature(secret: str, data: bytes) -> str:
    """Return what signs a body, hexadecimal."""
    return hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


def retry_after(text: str, now: int) -> float:
    """Return how long a Retry-After (RFC 9110 §10.2.3: seconds or a date) asks to wait, s; 0 for none.

    >>> retry_after("120", 0), retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 0), retry_after("soon", 0)
    (120.0, 60.0, 0.0)
    """
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now / SECOND)
    except ValueError:
        return 0.0
