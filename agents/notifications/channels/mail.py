"""E-mail: plain text with an HTML alternative, over SMTP with TLS, with STARTTLS, or in clear to this machine.

A server that does not offer what the channel demands gets nothing. Its certificate is checked against the system's
authorities; another one is named with SSL_CERT_FILE. What the server refuses for good (5xx) is not tried again.
"""

from __future__ import annotations

import html
import logging
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY

import aiosmtplib

from agents.notifications.channels.sender import Refused, Unreached
from agents.notifications.message import Delivery
from agents.notifications.text import Summary, summary
from isotherm.channels import Channel, Email
from isotherm.limits import SECOND

STEP_SECONDS = 20.0
"""How long the server may take for one answer."""

log = logging.getLogger(__name__)


class MailSender:
    """Sends mail to one channel, with a connection each time: it is seldom, and servers end those that are idle."""

    def __init__(self, channel: Channel, to: Email) -> None:
        self._channel = channel
        self._to = to

    async def send(self, delivery: Delivery) -> str:
        """Send a delivery, see `Sender`."""
        message = compose(self._channel, self._to, delivery)
        to = self._to
        try:
            async with aiosmtplib.SMTP(
                hostname=to.host,
                port=to.port,
                use_tls=to.security == "tls",
                start_tls=to.security == "starttls",
                tls_context=None if to.security == "plain" else ssl.create_default_context(),
                username=to.username or None,
                password=to.password or None,
                timeout=STEP_SECONDS,
            ) as server:
                refused, answer = await server.send_message(message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            first = error.recipients[0]
            raise _error(first.code, f"{first.recipient}: {first.code} {first.message}") from error
        except aiosmtplib.SMTPResponseException as error:
            raise _error(error.code, f"{error.code} {error.message}") from error
        except aiosmtplib.SMTPException as error:
            raise Unreached(f"{type(error).__name__}: {error}") from error
        except OSError as error:
            raise Unreached(f"{type(error).__name__}: {error}") from error
        if refused:
            log.error("channel %s: the server took the mail, but not for %s", self._channel.id, _list(refused))
            answer += f"; not for {_list(refused)}"
        return answer

    async def close(self) -> None:
        """There is nothing to end."""


def compose(channel: Channel, to: Email, delivery: Delivery) -> EmailMessage:
    """Write the mail; the same delivery gives the same one."""
    told = summary(delivery.messages, channel.zone)
    origin = to.origin
    message = EmailMessage(policy=SMTP_POLICY)
    message["From"] = origin
    message["To"] = ", ".join(to.to)
    message["Subject"] = told.title
    message["Date"] = datetime.fromtimestamp(delivery.time // SECOND, UTC)
    message["Message-ID"] = f"<{delivery.id}@{origin.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday message answers it
    message.set_content("\n".join(told.lines) + "\n")
    message.add_alternative(_page(told), subtype="html")
    return message


def _page(told: Summary) -> str:
    rows = "\n".join(f"<li>{html.escape(line)}</li>" for line in told.lines)
    return f"<!doctype html>\n<html><body>\n<p><b>{html.escape(told.title)}</b></p>\n<ul>\n{rows}\n</ul>\n</body></html>\n"


def _error(code: int, text: str) -> Refused | Unreached:
    return Refused(text) if 500 <= code < 600 else Unreached(text)


def _list(refused: Mapping[str, tuple[int, str]]) -> str:
    return ", ".join(f"{address} ({code} {text})" for address, (code, text) in refused.items())
