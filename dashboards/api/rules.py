"""Rules: when alarms are raised."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, RootModel

from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, check_conditions, page_of, sent
from dashboards.api.caller import may
from dashboards.api.problems import NotFound
from dashboards.desk import Desk
from dashboards.visitor import Visitor
from isotherm import rules as kept
from isotherm.errors import BadField, SettingsError
from isotherm.rules import Rules
from isotherm.store.client import Client

Id = Annotated[str, Path(max_length=128, examples=["hot"], description="What the rule is known by: `kitchen-hot`.")]

_schema = msgspec.json.schema_components([kept.Rule], ref_template="#/components/schemas/{name}")[1]["Rule"]
_properties: dict[str, Any] = {name: one for name, one in _schema["properties"].items() if name != "id"}
FORM: dict[str, Any] = {"type": "object", "properties": _properties, "required": ["kind"], "additionalProperties": False}
"""A rule without its id, which is in the address. Times in µs."""

MayRead = Annotated[Visitor, may("rules:read")]
MayWrite = Annotated[Visitor, may("rules:write")]


SHOWN: dict[str, Any] = {**FORM, "properties": {"id": {"type": "string"}, **_properties}, "required": ["id", "kind"]}


class Rule(RootModel[dict[str, Any]]):
    """A rule; what is as by default is left out. Spans of time are in µs."""

    model_config = ConfigDict(json_schema_extra=SHOWN)


class RuleList(BaseModel):
    """A page of rules, and what is wrong with those in the store that cannot be used."""

    items: list[Rule]
    next: str | None = None
    broken: list[str] = []


def router(redis: Client, desk: Desk) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/rules", tags=["rules"])
    rules = Rules(redis)

    async def existing(id: str) -> kept.Rule:
        found = await rules.find(id)
        if found is None:
            raise NotFound(f"there is no rule {id!r}")
        return found

    @routes.get("", response_model=RuleList)
    async def list_rules(request: Request, _: MayRead, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT) -> Response:
        """List rules, ascending by id."""
        found, broken = await rules.usable()
        some, following = page_of(found, lambda one: one.id, cursor, limit)
        return sent(request, RuleList(items=[_shown(one) for one in some], next=following, broken=broken))

    @routes.get("/{id}", response_model=Rule)
    async def get_rule(request: Request, _: MayRead, id: Id) -> Response:
        """Return a rule, with an ETag by which it can be changed as it was seen."""
        return sent(request, _shown(await existing(id)))

    @routes.put(
        "/{id}",
        response_model=Rule,
        responses={201: {"model": Rule, "description": "It is new."}},
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": FORM}}}},
    )
    async def put_rule(request: Request, who: MayWrite, id: Id) -> Response:
        """Keep a rule: a new one, or in the place of the one with its id, whose alarms are cleared when it changes."""
        rule = _rule(id, await request.body())
        before = await rules.find(id)
        is_conditional = check_conditions(request, None if before is None else _shown(before))
        await desk.keep(who, rule, is_new=before is None, seen=before if is_conditional else None)
        return sent(request, _shown(rule), HTTPStatus.CREATED if before is None else HTTPStatus.OK)

    @routes.delete("/{id}", status_code=204)
    async def delete_rule(request: Request, who: MayWrite, id: Id) -> Response:
        """Forget a rule; its alarms are cleared."""
        before = await existing(id)
        is_conditional = check_conditions(request, _shown(before))
        await desk.remove(who, id, seen=before if is_conditional else None)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return routes


def _rule(id: str, body: bytes) -> kept.Rule:
    """Return the rule that a body describes.

    Raises:
        BadField: it is none.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadField("body", f"the body is no JSON object: {error}", "a JSON object") from error
    if fields.setdefault("id", id) != id:
        raise BadField("id", f"id is {str(fields['id'])[:100]!r}, and the address says {id!r}", "what the address says")
    try:
        return kept.Rule.from_json(msgspec.json.encode(fields))
    except BadField:
        raise
    except SettingsError as error:
        raise BadField("body", str(error)) from error


def _shown(rule: kept.Rule) -> Rule:
    return Rule(msgspec.json.decode(rule.to_json()))
