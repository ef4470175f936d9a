"""Senders against real servers: what they send, what they make of the answers, and that no secret gets out."""

from __future__ import annotations

import asyncio
import doctest
import hashlib
import hmac
import json
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.notifications.channels import sender_of, webhook
from agents.notifications.channels.sender import Refused, Unreached
from agents.notifications.message import Delivery, Message, delivery_id
from isotherm.channels import Apprise, Channel, Email, Webhook
from isotherm.limits import SECOND
from tests.support.certificates import Authority, Certificate
from tests.support.far_ends import hook, mailbox
from tests.support.notifications import BEGIN, event
from tests.support.ports import free_port


def deliver(channel: Channel, count: int = 1, **fields: Any) -> Delivery:
    messages = [Message.of(channel.id, event(n, device=f"room-{n}", **fields), at=BEGIN, order=n) for n in range(count)]
    return Delivery(delivery_id(messages), channel.id, messages, BEGIN + 5 * SECOND)


async def send(to: Webhook | Email | Apprise, count: int = 1, **fields: Any) -> str:
    channel = Channel(id="ops", to=to)
    sender = sender_of(channel)
    try:
        return await sender.send(deliver(channel, count, **fields))
    finally:
        await sender.close()


# Webhook


async def test_a_webhook_gets_the_documented_json_signed_and_with_a_key_that_repeats() -> None:
    async with hook() as far_end:
        to = Webhook(url=far_end.url, secret="k3y-of-ours")
        assert await send(to, 2) == "HTTP 204 No Content"
        await send(to, 2)
    (headers, data), (again, same) = far_end.requests
    assert data == same
    assert headers["Idempotency-Key"] == again["Idempotency-Key"] == json.loads(data)["id"]
    assert headers["X-Isotherm-Signature"] == "sha256=" + hmac.new(b"k3y-of-ours", data, hashlib.sha256).hexdigest()
    assert headers["Content-Type"] == "application/json"
    body = json.loads(data)
    assert body["title"] == "[major] 2 alarms of 2 devices: 2 raised"
    assert (body["channel"], body["count"], body["omitted"], body["time"]) == ("ops", 2, 0, "2026-09-21T14:13:25.000Z")
    assert body["messages"][0] == {
        "kind": "alarm.raised",
        "device": "room-0",
        "severity": "major",
        "alarm": "room-0/temperature#hot",
        "rule": "hot",
        "message": "room-0/temperature above 30 °C",
        "time": "2026-09-21T14:13:20.000Z",
        "since": "2026-09-21T14:13:20.000Z",
        "first": "2026-09-21T14:13:20.000Z",
        "source": "alarms/0/1",
        "id": "alarms/0/1/0",
        "counts": {"alarm.raised": 1},
    }


@pytest.mark.parametrize(
    ("status", "headers", "error", "after"),
    [
        (500, {}, Unreached, 0),
        (503, {"Retry-After": "90"}, Unreached, 90),
        (429, {"Retry-After": "7"}, Unreached, 7),
        (429, {"Retry-After": "soon"}, Unreached, 0),
        (429, {"Retry-After": "9" * 400}, Unreached, float("inf")),
        (408, {}, Unreached, 0),
        (400, {}, Refused, None),
        (404, {}, Refused, None),
        (307, {"Location": "http://169.254.169.254/"}, Refused, None),
    ],
)
async def test_an_answer_of_a_webhook_is_told_and_tried_again_or_not(
    status: int, headers: dict[str, str], error: type[Exception], after: float | None
) -> None:
    async with hook() as far_end:
        far_end.answers = [(status, headers, "no such room" + "m" * 1000)]
        with pytest.raises(error, match=rf"HTTP {status} .*: no such room") as failed:
            await send(Webhook(url=far_end.url))
        assert len(far_end.requests) == 1
    assert len(str(failed.value)) < 400
    assert getattr(failed.value, "after", None) == after


async def test_a_webhook_that_nobody_listens_to_is_tried_again() -> None:
    with pytest.raises(Unreached, match="Cannot connect"):
        await send(Webhook(url=f"http://127.0.0.1:{free_port()}/"))


def test_examples_of_retry_after() -> None:
    assert doctest.testmod(webhook) == (0, 1)


# E-mail


async def test_a_mail_has_a_text_an_html_alternative_and_an_id_that_repeats() -> None:
    async with mailbox() as far_end:
        to = Email.through(
            f"smtp+plain://127.0.0.1:{far_end.port}", to=("ops@example.org", "b@example.org"), sender="i@x.org"
        )
        assert "taken as 4711" in await send(to, message="room-0/temperature <b>above</b> 30 °C")
        await send(to, message="room-0/temperature <b>above</b> 30 °C")
    (recipients, mail), (_, again) = far_end.mails
    assert recipients == ["ops@example.org", "b@example.org"]
    assert (mail["From"], mail["To"]) == ("i@x.org", "ops@example.org, b@example.org")
    assert mail["Subject"] == "[major] room-0/temperature <b>above</b> 30 °C"
    assert mail["Message-ID"] == again["Message-ID"]
    assert mail["Message-ID"].endswith("@x.org>")
    assert mail["Date"] == "Mon, 21 Sep 2026 14:13:25 +0000"
    assert mail["Auto-Submitted"] == "auto-generated"
    text, html = mail.iter_parts()
    assert text.get_content().strip() == "[major] room-0/temperature <b>above</b> 30 °C: raised 2026-09-21 14:13:20 UTC"
    assert "&lt;b&gt;above&lt;/b&gt; 30 °C" in html.get_content()


async def test_what_a_server_refuses_for_good_is_not_tried_again_and_what_it_cannot_take_now_is() -> None:
    async with mailbox() as far_end:
        to = Email.through(f"smtp+plain://127.0.0.1:{far_end.port}", to=("ops@example.org",))
        far_end.refuses = {"ops@example.org": "550 5.1.1 no such mailbox"}
        with pytest.raises(Refused, match=r"ops@example\.org: 550 5\.1\.1 no such mailbox"):
            await send(to)
        far_end.refuses = {"ops@example.org": "451 4.7.1 greylisted"}
        with pytest.raises(Unreached, match=r"451 4\.7\.1 greylisted"):
            await send(to)
    with pytest.raises(Unreached, match="SMTPConnect"):
        await send(to)


async def test_a_recipient_whom_the_server_refuses_is_told_and_the_others_get_the_mail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with mailbox() as far_end:
        far_end.refuses = {"b@example.org": "550 no such mailbox"}
        to = Email.through(f"smtp+plain://127.0.0.1:{far_end.port}", to=("ops@example.org", "b@example.org"))
        assert "not for b@example.org (550 no such mailbox)" in await send(to)
    assert [recipients for recipients, _ in far_end.mails] == [["ops@example.org"]]
    assert "not for b@example.org" in caplog.text


@pytest.fixture
def certificate(tmp_path: Path, tool: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """Of localhost, by an authority that the process trusts."""
    authority = Authority(tmp_path, tool("openssl"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    return authority.sign("server", "DNS:localhost")


@pytest.mark.parametrize("scheme", ["smtps", "smtp"])
async def test_mail_goes_over_tls_with_a_login(scheme: str, certificate: Certificate) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    async with mailbox(**{"tls" if scheme == "smtps" else "starttls": context}) as far_end:
        where = f"localhost:{far_end.port}"
        await send(Email.through(f"{scheme}://me%40x.org:s3cret-word@{where}", to=("ops@example.org",)))
        with pytest.raises(Refused, match="535") as failed:
            await send(Email.through(f"{scheme}://me%40x.org:wrong-word@{where}", to=("ops@example.org",)))
    assert "wrong-word" not in str(failed.value)
    assert far_end.logins[0] == (b"me@x.org", b"s3cret-word")
    assert [mail["From"] for _, mail in far_end.mails] == ["me@x.org"]


async def test_a_server_without_starttls_gets_nothing() -> None:
    async with mailbox() as far_end:
        with pytest.raises(Unreached, match="STARTTLS"):
            await send(Email.through(f"smtp://127.0.0.1:{far_end.port}", to=("ops@example.org",)))
    assert far_end.mails == []


async def test_a_server_whose_certificate_is_not_trusted_gets_nothing(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    monkeypatch.delenv("SSL_CERT_FILE")
    async with mailbox(tls=context) as far_end:
        with pytest.raises(Unreached, match="certificate verify failed"):
            await send(Email.through(f"smtps://localhost:{far_end.port}", to=("ops@example.org",)))


# Apprise


async def test_apprise_sends_to_whatever_it_has_an_address_for() -> None:
    async with hook() as far_end:
        far_end.answers = [(200, {}, "")]
        assert await send(Apprise(url=far_end.url.replace("http:", "json:"))) == "apprise has sent it"
    [(_, data)] = far_end.requests
    sent = json.loads(data)
    assert sent["title"] == "[major] room-0/temperature above 30 °C"
    assert sent["message"].startswith("[major] room-0/temperature above 30 °C: raised")
    assert sent["type"] == "failure"


async def test_why_apprise_failed_is_told_and_goes_into_no_log_of_its_own() -> None:
    records: list[logging.LogRecord] = []
    ours = logging.Handler()
    ours.emit = records.append  # type: ignore[method-assign, assignment]
    logging.getLogger().addHandler(ours)
    try:
        async with hook() as far_end:
            far_end.answers = [(500, {}, "")]
            with pytest.raises(Unreached, match="500"):
                await send(Apprise(url=far_end.url.replace("http:", "json:")))
    finally:
        logging.getLogger().removeHandler(ours)
    assert [record for record in records if record.name in ("apprise", "urllib3")] == []


async def test_an_address_that_apprise_does_not_know_is_no_use_to_try_again() -> None:
    with pytest.raises(Refused, match="does not know this address"):
        await send(Apprise(url="smoke://signals"))


async def test_while_an_attempt_of_apprise_hangs_no_other_is_begun() -> None:
    channel_of = Channel(id="ops", to=Apprise(url="json://127.0.0.1/"))
    async with hook() as far_end:
        far_end.answers = [(0, {}, "")]
        sender = sender_of(Channel(id="ops", to=Apprise(url=far_end.url.replace("http:", "json:") + "?rto=2")))
        first = asyncio.create_task(sender.send(deliver(channel_of)))
        await far_end.came.wait()
        first.cancel()
        with pytest.raises(Unreached, match="has not ended yet"):
            await sender.send(deliver(channel_of))
        assert len(far_end.requests) == 1


# Secrets


@pytest.mark.parametrize(
    "to",
    [
        Webhook(url="https://u5er:pa55@example.org/services/T0KEN?key=qu3ry", secret="k3y-of-ours"),
        Email.through("smtps://me%40x.org:s3cret%2Fword@example.org", to=("ops@example.org",)),
        Apprise(url="tgram://123456789:T0KEN/chat_id?key=qu3ry"),
    ],
)
def test_no_text_holds_a_secret(to: Webhook | Email | Apprise) -> None:
    channel = Channel(id="ops", to=to)
    url = to.url if not isinstance(to, Email) else ""
    texts = [repr(channel), str(to), json.dumps(channel.shown()), channel.told(f"{url} T0KEN s3cret/word k3y-of-ours qu3ry")]
    for secret in ("T0KEN", "s3cret", "k3y-of-ours", "pa55", "qu3ry"):
        if secret in channel.to_json().decode():
            assert [text for text in texts if secret in text] == []


def test_what_a_far_end_says_is_shown_short_and_controls_no_terminal() -> None:
    channel = Channel(id="ops", to=Webhook(url="https://example.org/"))
    assert channel.told("a\x1b[2J\nb") == "a\\x1b[2J b"
    assert len(channel.told("x" * 9999)) == 500


def test_the_id_of_a_delivery_is_of_what_it_tells() -> None:
    channel = Channel(id="ops", to=Webhook(url="https://example.org/"))
    one, other = deliver(channel, 3), deliver(channel, 2)
    assert delivery_id(reversed(one.messages)) == one.id != other.id
