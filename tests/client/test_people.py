"""Users, API tokens and rejects through the client."""

from __future__ import annotations

import asyncio

import pytest

from isotherm.client import Client, Conflict, Forbidden, Invalid, NotFound, PreconditionFailed
from isotherm.settings import Settings
from tests.api.broker import kafka as kafka
from tests.api.test_rejects import BINARY, COUNT, fill
from tests.client.conftest import Login
from tests.dashboards.stack import Web

pytestmark = pytest.mark.servers


def test_a_user_is_created_changed_as_they_were_seen_and_forgotten(login: Login, web: Web) -> None:
    anna = login("anna", "read", "write")
    made, password = anna.create_user("ben", "operator")
    assert (made.name, made.role, made.last_log_in) == ("ben", "operator", None)
    assert len(password) > 10
    with pytest.raises(Conflict):
        anna.create_user("ben")
    with pytest.raises(Invalid):
        anna.create_user("a b")
    seen = anna.user("ben")
    assert anna.update_user(seen, role="viewer").role == "viewer"
    with pytest.raises(PreconditionFailed):
        anna.update_user(seen, is_disabled=True)
    assert anna.update_user("ben", is_disabled=True).is_disabled
    assert anna.reset_password("ben").startswith(web.url)
    assert anna.invite("operator").startswith(web.url)
    assert "ben" in [one.name for one in anna.users()]
    anna.delete_user(anna.user("ben"))
    with pytest.raises(NotFound):
        anna.user("ben")
    with pytest.raises(Forbidden):
        list(login("otto", "read").users())


def test_a_token_is_made_and_revoked(login: Login, web: Web) -> None:
    vera = login("vera", "tokens:read", "tokens:write", "devices:read")
    with pytest.raises(Forbidden, match="end later"):
        vera.create_token("report", ["devices:read"], days=30)
    with pytest.raises(Forbidden, match="alarms:read"):
        vera.create_token("report", ["alarms:read"])
    [own] = [one for one in vera.tokens() if one.scopes == {"tokens:read", "tokens:write", "devices:read"}]
    assert own.token == ""
    vera.revoke_token(own.id)
    with pytest.raises(Exception, match="this token is over"):
        list(vera.tokens())
    with Client(web.url, "iso_guessed") as nobody, pytest.raises(Exception, match="never was"):
        list(nobody.tokens())


def test_rejects_are_gone_through_shown_and_replayed(settings: Settings, login: Login) -> None:
    ids = asyncio.run(fill(settings))
    otto = login("otto", "read", "write")
    found = list(otto.rejects())
    assert len({one.id for one in found}) == COUNT + len(ids)
    assert [one.id for one in otto.rejects(reason="analytic")] == [ids["analytic"]]
    assert otto.original(ids["binary"]) == BINARY
    assert otto.reject(ids["binary"]).text is None
    assert otto.replay_reject(ids["good"]).accepted == 1
    with pytest.raises(Conflict, match="replayed before"):
        otto.replay_reject(ids["good"])
    with pytest.raises(Invalid, match="hieroglyphs"):
        otto.replay_reject(ids["foreign"], format="hieroglyphs")
    with pytest.raises(NotFound):
        otto.reject("0/999999")
    with pytest.raises(ValueError, match="no id of a reject"):
        otto.reject("../users")
