"""Requests that are sent again with their Idempotency-Key, whatever became of the first one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
from fastapi import Request, Response

from dashboards.access.identity import as_headers
from dashboards.api import once as module
from dashboards.api.once import Made, Once, made_of
from dashboards.api.problems import Conflict
from isotherm.accounts.role import Role
from isotherm.accounts.sessions import Holder, hash_of
from isotherm.errors import BadField, Unavailable
from isotherm.settings import Settings
from isotherm.store import client as stores
from tests.api.conftest import Login

pytestmark = pytest.mark.servers


class Doing:
    """What a request asks for; it notes what it makes."""

    def __init__(self, *outcomes: Response | Exception) -> None:
        self.made: list[Made] = []
        self._outcomes = list(outcomes)

    async def __call__(self, request: Request) -> Response:
        self.made.append(made_of(request))
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def asked(body: bytes = b"{}", session: str = "s1") -> Request:
    """Return a request as it comes from the guard."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body}

    headers = as_headers(Holder(session, "otto", Role.OPERATOR), "", "")
    scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": headers, "server": ("h", 80)}
    return Request(scope, receive)


@pytest.fixture
async def once(settings: Settings) -> AsyncIterator[Once]:
    async with stores.connected(settings) as redis:
        yield Once(redis)


def made(text: bytes = b'{"n":1}') -> Response:
    return Response(text, HTTPStatus.CREATED, {"location": "/x/1", "etag": '"1"'}, "application/json")


async def test_the_answer_comes_again_with_its_headers(once: Once) -> None:
    doing = Doing(made())
    first = await once.handle(asked(), "again", doing)
    second = await once.handle(asked(), "again", doing)
    assert (second.status_code, second.body, second.headers["location"]) == (201, first.body, "/x/1")
    assert (second.headers["etag"], second.media_type) == ('"1"', "application/json")
    assert second.headers["idempotency-replayed"] == "true"
    with pytest.raises(BadField):
        await once.handle(asked(b"[]"), "again", doing)


async def test_nobody_is_answered_what_another_token_has_done(once: Once) -> None:
    doing = Doing(made(), made(b"{}"))
    await once.handle(asked(), "theirs", doing)
    other = await once.handle(asked(session="s2"), "theirs", doing)
    assert "idempotency-replayed" not in other.headers


@pytest.mark.parametrize("failure", [Unavailable("Kafka is away"), RuntimeError("ours")])
async def test_what_may_have_been_done_is_made_as_the_same_and_not_as_another(once: Once, failure: Exception) -> None:
    doing, key = Doing(failure, made()), f"uncertain {failure}"
    with pytest.raises(type(failure)):
        await once.handle(asked(), key, doing)
    with pytest.raises(BadField):
        await once.handle(asked(b"[]"), key, doing)
    assert (await once.handle(asked(), key, doing)).status_code == HTTPStatus.CREATED
    assert doing.made[0] == doing.made[1]


async def test_what_was_refused_may_be_tried_as_something_else(once: Once) -> None:
    doing = Doing(Conflict("no"), made())
    with pytest.raises(Conflict):
        await once.handle(asked(), "refused", doing)
    assert (await once.handle(asked(b"[]"), "refused", doing)).status_code == HTTPStatus.CREATED


async def test_a_process_that_died_over_a_request_keeps_it_out_for_a_while_only(
    once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Made] = []

    async def dies(request: Request) -> Response:
        with pytest.raises(Conflict, match="has not ended yet"):
            await once.handle(asked(), "died", Doing(made()))
        seen.append(made_of(request))
        raise SystemExit

    async def lost(*_: object, **__: object) -> None:
        """What a process does that was killed."""

    monkeypatch.setattr(once, "_let_go", lost)
    monkeypatch.setattr(module, "WORKING_SECONDS", 0.2)
    with pytest.raises(SystemExit):
        await once.handle(asked(), "died", dies)
    doing = Doing(made())
    while not doing.made:
        try:
            await once.handle(asked(), "died", doing)
        except Conflict:
            continue
    assert doing.made == seen


async def test_a_secret_is_made_once_and_not_kept(login: Login, settings: Settings) -> None:
    anna = await login("anna", "read", "write")
    assert (await anna.put("/devices/safe", {})).status == 201
    for path, form in (
        ("/devices/safe/tokens", None),
        ("/users", {"name": "nora"}),
        ("/invitations", {}),
    ):
        assert (await anna.post(path, form, idempotency_key="a secret")).status == 201, path
        again = await anna.post(path, form, idempotency_key="a secret")
        assert again.status == 409, path
        assert "shown once" in again.detail
    assert (await anna.get("/devices/safe")).json["tokens"] == 1


async def test_a_rollout_that_is_asked_for_again_is_answered_with_its_address_and_a_patch_as_before(login: Login) -> None:
    otto = await login("otto", "configuration:read", "configuration:write")
    form = {"targets": {"devices": ["room-0"]}, "values": {"once": 1}}
    first, second = [await otto.post("/rollouts", form, idempotency_key="rolled") for _ in range(2)]
    assert (second.status, second.headers["location"], second.json) == (201, first.headers["location"], first.json)
    hashed = module._hash("otto", hash_of(otto.token), "POST", "/api/v1/rollouts", "rolled")
    assert first.json["id"][14:] == hashed[:10], "one that comes after a failure makes the same rollout"
    assert (second.headers["etag"], second.headers["cache-control"]) == (first.headers["etag"], "private, no-cache")
    path = "/devices/room-0/configuration"
    etag = (await otto.get(path)).headers["etag"]
    conditional = {"if_match": etag, "idempotency_key": "patched"}
    patched = [await otto.patch(path, {"values": {"once": 2}}, **conditional) for _ in range(2)]
    assert [one.status for one in patched] == [200, 200], "the answer to the first one may have been lost"
    assert patched[0].json == patched[1].json
