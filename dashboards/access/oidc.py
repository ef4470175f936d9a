"""Log-in with an OpenID Connect provider: the authorization code flow with PKCE, state and nonce (OpenID Connect Core §3.1).

What a log-in has begun with lies in the store for ten minutes, under the hash of its state, and is taken once; it names the
browser that began it, so that nobody can have another's browser finish a log-in. The provider says at each log-in who
somebody is and what they are called, and by the settings' table what they may do.

    | key                          | type   | content                                                      |
    |------------------------------|--------|--------------------------------------------------------------|
    | ``iso:{accounts}:oidc:HASH`` | string | nonce, PKCE verifier, page, hash of the browser's cookie JSON |
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from isotherm.accounts.names import user_name
from isotherm.accounts.role import Role
from isotherm.accounts.users import PREFIX, User
from isotherm.errors import BadField, Unauthorized, Unavailable
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.store.reader import answering

CALLBACK = "/login/oidc/callback"
PENDING_SECONDS = 600
TIMEOUT_SECONDS = 10.0
METADATA_SECONDS = 3_600.0
LEEWAY_SECONDS = 60

# Signed with a key of the provider's: never `none`, never with the secret that we share.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

_PENDING = PREFIX + "oidc:"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pending:
    """A log-in that has begun.

    Attributes:
        nonce: Which the ID token must repeat.
        verifier: Of PKCE (RFC 7636).
        target: The page to go to.
        browser: Hash of the cookie of the browser that began it.
    """

    nonce: str
    verifier: str
    target: str
    browser: str


class Provider:
    """The provider of the settings."""

    def __init__(self, settings: Settings, redis: Client) -> None:
        self._settings = settings
        self._redis = redis
        self._metadata: Mapping[str, Any] = {}
        self._until = 0.0

    async def begin(self, target: str, redirect_uri: str, cookie: str) -> str:
        """Return the address to send a browser to.

        Raises:
            Unavailable: the provider or the store does not answer.
        """
        metadata = await self._read_metadata()
        state, pending = (
            secrets.token_urlsafe(24),
            Pending(secrets.token_urlsafe(24), secrets.token_urlsafe(48), target, _hash(cookie)),
        )
        with answering():
            async with self._redis.pipeline(transaction=True) as writing:
                writing.set(_PENDING + _hash(state), msgspec.json.encode(pending), ex=PENDING_SECONDS)
                await writing.execute()
        async with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"], state=state, nonce=pending.nonce, code_verifier=pending.verifier
            )
        return str(url)

    async def finish(self, arguments: Mapping[str, str], redirect_uri: str, cookie: str) -> tuple[User, str]:
        """Return who the provider says somebody is, and the page that they wanted.

        Args:
            arguments: Of the address that the provider has sent the browser to.
            redirect_uri: That address without them, as it was given to ``begin``.
            cookie: Of the browser.

        Raises:
            Unauthorized: the provider refuses, this browser has not begun the log-in, or what is said does not hold.
            Unavailable: the provider or the store does not answer.
        """
        with answering():
            raw = await self._redis.getdel(_PENDING + _hash(arguments.get("state", "")))
        if raw is None:
            raise Unauthorized("this log-in was not begun here, or took too long; try again")
        pending = msgspec.json.decode(raw, type=Pending)
        if not cookie or pending.browser != _hash(cookie):
            raise Unauthorized("this log-in was begun in another browser; try again")
        if "code" not in arguments:
            raise Unauthorized(f"the identity provider refuses: {arguments.get('error', 'no reason given')[:100]}")
        metadata = await self._read_metadata()
        if arguments.get("iss", metadata["issuer"]) != metadata["issuer"]:  # RFC 9207
            raise Unauthorized("another identity provider has answered")
        try:
            async with self._client(redirect_uri) as client:
                answer = await client.fetch_token(
                    metadata["token_endpoint"], code=arguments["code"], code_verifier=pending.verifier
                )
                keys = (await client.request("GET", metadata["jwks_uri"], withhold_token=True)).raise_for_status().json()
        except OAuthError as error:
            raise Unauthorized(f"the identity provider does not take the code: {error.error}") from error
        except (httpx2.HTTPError, ValueError) as error:
            raise Unavailable(f"the identity provider does not answer: {error!r}") from error
        return self._user(_claims(answer.get("id_token", ""), keys, self._settings, pending.nonce)), pending.target

    def _user(self, claims: Mapping[str, Any]) -> User:
        called = claims.get(self._settings.oidc_name_claim)
        if not isinstance(called, str):
            raise Unauthorized(
                f"the identity provider does not say {self._settings.oidc_name_claim}; see ISOTHERM_OIDC_NAME_CLAIM"
            )
        try:
            name = user_name(called)
        except BadField as error:
            raise Unauthorized(f"the identity provider calls you {called[:80]!r}: {error}") from error
        role = role_of(claims, self._settings.oidc_role_claim, self._settings.oidc_roles)
        if role is None:
            raise Unauthorized(f"{name} has no role here; ask an admin")
        return User(name, role, subject=f"{self._settings.oidc_issuer} {claims['sub']}")

    async def _read_metadata(self) -> Mapping[str, Any]:
        """Return what the provider says of itself (OpenID Connect Discovery §4)."""
        if time.monotonic() < self._until:
            return self._metadata
        issuer = self._settings.oidc_issuer
        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
                found = await client.get(issuer.rstrip("/") + "/.well-known/openid-configuration")
                metadata = found.raise_for_status().json()
        except (httpx2.HTTPError, ValueError) as error:
            raise Unavailable(f"the identity provider does not answer: {error!r}") from error
        if metadata.get("issuer") != issuer:
            raise Unavailable(
                f"the identity provider calls itself {metadata.get('issuer')!r}, ISOTHERM_OIDC_ISSUER is {issuer!r}"
            )
        self._metadata, self._until = metadata, time.monotonic() + METADATA_SECONDS
        return self._metadata

    def _client(self, redirect_uri: str) -> Any:
        given = self._settings
        return AsyncOAuth2Client(
            given.oidc_client_id,
            given.oidc_client_secret,
            scope=given.oidc_scopes,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if given.oidc_client_secret else "none",
            timeout=TIMEOUT_SECONDS,
        )


def role_of(claims: Mapping[str, Any], claim: str, table: Mapping[str, str]) -> Role | None:
    """Return the greatest role that the table gives for a claim, or None.

    A claim may lie in another: ``realm_access.roles``.

    >>> role_of({"groups": ["staff", "ops"]}, "groups", {"ops": "operator", "*": "viewer"})
    <Role.OPERATOR: 2>
    """
    held: Any = claims.get(claim)
    if held is None and "." in claim:
        held = claims
        for part in claim.split("."):
            held = held.get(part) if isinstance(held, Mapping) else None
    words = [held] if isinstance(held, str) else held if isinstance(held, list) else []
    return max((Role.of(table[word]) for word in [*words, "*"] if isinstance(word, str) and word in table), default=None)


def _claims(token: str, keys: Any, settings: Settings, nonce: str) -> Mapping[str, Any]:
    """Return what an ID token says, if it is for us (OpenID Connect Core §3.1.3.7).

    Raises:
        Unauthorized: it is not.
    """
    rules = jwt.JWTClaimsRegistry(
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": settings.oidc_issuer},
        aud={"essential": True, "value": settings.oidc_client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True, "value": nonce},
    )
    try:
        claims = jwt.decode(token, KeySet.import_key_set(keys), algorithms=ALGORITHMS).claims
        rules.validate(claims)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        log.warning("an ID token was refused: %r", error)
        raise Unauthorized("the identity provider's answer does not hold; try again") from error
    audiences = claims["aud"]
    if isinstance(audiences, list) and len(audiences) > 1 and claims.get("azp") != settings.oidc_client_id:
        raise Unauthorized("the identity provider's answer is for somebody else")
    return claims


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
