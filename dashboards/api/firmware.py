"""Firmware: images that are signed, and the keys that are trusted. A rollout gives one to devices."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, sent
from dashboards.api.caller import may
from dashboards.api.once import IdempotencyKey, Once
from dashboards.api.problems import Conflict, NotFound
from dashboards.visitor import Visitor
from isotherm import firmware as kept
from isotherm.accounts.audit import Audit
from isotherm.errors import BadField, SettingsError
from isotherm.firmware.image import MAX_BYTES, NAME, described
from isotherm.store.client import Client

MayRead = Annotated[Visitor, may("firmware:read")]
MayWrite = Annotated[Visitor, may("firmware:write")]
MayTrust = Annotated[Visitor, may("firmware-keys:write")]
Name = Annotated[str, Path(pattern=f"^{NAME}$", examples=["thermostat"], description="For what the image is.")]
Version = Annotated[str, Path(pattern=f"^{NAME}$", examples=["1.2.0"])]
KeyId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
Signature = Annotated[
    str,
    Query(max_length=100, description="Ed25519 over name, version and SHA-256, in Base64."),
]
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "maxLength": MAX_BYTES}}},
    }
}


class Image(BaseModel):
    """An image; it is never changed."""

    name: str
    version: str
    size: int = Field(description="Bytes.")
    sha256: str
    signature: str
    key: str = Field(description="Id of the key that it is signed with.")
    created: str
    by: str


class Key(BaseModel):
    """A public key whose images are taken."""

    id: str
    public: str = Field(description="The 32 bytes of an Ed25519 key, in Base64.")


class KeyForm(BaseModel):
    """A key to trust."""

    model_config = ConfigDict(extra="forbid", strict=True)

    public: str = Field(max_length=100)


def router(redis: Client) -> APIRouter:
    """Return the routes of images."""
    routes = APIRouter(prefix="/firmware", tags=["firmware"])
    firmware, audit = kept.Firmware(redis), Audit(redis)

    async def existing(name: str, version: str) -> kept.Image:
        found = await firmware.get(name, version)
        if found is None:
            raise NotFound(f"there is no firmware {name}/{version}")
        return found

    @routes.get("", response_model=Page[Image])
    async def list_firmware(request: Request, _: MayRead, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT) -> Response:
        """List images, ascending by name and version."""
        found = sorted(await firmware.all(), key=lambda one: one.id)
        some, following = page_of(found, lambda one: one.id, cursor, limit)
        return sent(request, Page[Image](items=[_shown(one) for one in some], next=following))

    @routes.get("/{name}/{version}", response_model=Image)
    async def get_firmware(request: Request, _: MayRead, name: Name, version: Version) -> Response:
        """Return what is known of an image; devices load it from the connectors."""
        return sent(request, _shown(await existing(name, version)))

    @routes.put("/{name}/{version}", response_model=Image, status_code=HTTPStatus.CREATED, openapi_extra=_BODY)
    async def put_firmware(
        request: Request, who: MayWrite, name: Name, version: Version, signature: Signature = ""
    ) -> Response:
        """Keep an image that is signed with a key that is trusted; the same one may be sent again."""
        made = kept.Image(name=name, version=version, size=0, sha256="", signature=signature, key="")
        try:
            found = await firmware.add(made, await request.body(), who.name)
        except BadField:
            raise
        except SettingsError as error:
            raise Conflict(str(error)) from error
        await audit.write(who.name, "upload firmware", found.id, address=who.address)
        return sent(request, _shown(found), HTTPStatus.CREATED)

    @routes.delete("/{name}/{version}", status_code=204)
    async def delete_firmware(who: MayWrite, name: Name, version: Version) -> Response:
        """Forget an image: devices can load it no longer."""
        await firmware.remove(await existing(name, version))
        await audit.write(who.name, "remove firmware", f"{name}/{version}", address=who.address)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return routes


def key_router(redis: Client, once: Once) -> APIRouter:
    """Return the routes of the keys that are trusted."""
    routes = APIRouter(prefix="/firmware-keys", tags=["firmware"], route_class=once.route())
    firmware, audit = kept.Firmware(redis), Audit(redis)

    @routes.get("", response_model=Page[Key])
    async def list_keys(request: Request, _: MayRead, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT) -> Response:
        """List the keys whose images are taken."""
        found = [Key(id=id, public=public) for id, public in (await firmware.keys()).items()]
        some, following = page_of(found, lambda one: one.id, cursor, limit)
        return sent(request, Page[Key](items=list(some), next=following))

    @routes.post("", response_model=Key, status_code=HTTPStatus.CREATED)
    async def trust_key(request: Request, who: MayTrust, form: KeyForm, _: IdempotencyKey = None) -> Response:
        """Take images from now on that are signed with this key; it may be sent again."""
        try:
            id = await firmware.trust(form.public)
        except BadField as error:
            raise BadField("public", str(error), error.expected) from error
        except SettingsError as error:
            raise Conflict(str(error)) from error
        await audit.write(who.name, "trust firmware key", id, address=who.address)
        return sent(request, Key(id=id, public=form.public), HTTPStatus.CREATED)

    @routes.delete("/{id}", status_code=204)
    async def distrust_key(who: MayTrust, id: KeyId) -> Response:
        """Take no more images that are signed with this key."""
        if not await firmware.distrust(id):
            raise NotFound(f"there is no key {id} that is trusted")
        await audit.write(who.name, "distrust firmware key", id, address=who.address)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return routes


def _shown(one: kept.Image) -> Image:
    return Image(**described(one))
