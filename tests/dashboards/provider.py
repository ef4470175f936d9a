"""A small OpenID Connect provider: gives codes, checks PKCE and the secret, signs ID tokens; can be told to do it wrong."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from typing import Any, Self

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from tests.support.ports import free_port

CLIENT_ID, CLIENT_SECRET = "isotherm", "a secret of the two"


class OpenIdProvider:
    """Serves at ``issuer`` for the length of its block. Everybody who comes is ``claims``."""

    def __init__(self) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}/realm"
        self.claims: dict[str, Any] = {}
        self.wrong: dict[str, Any] = {}
        """Claims that are put into the ID token though they are wrong."""
        self.algorithm = "RS256"
        self._key = RSAKey.generate_key(2048, {"kid": "1"})
        self._codes: dict[str, dict[str, str]] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/realm/.well-known/openid-configuration", self._metadata)
        app.router.add_get("/realm/keys", self._keys)
        app.router.add_get("/realm/authorize", self._authorize)
        app.router.add_post("/realm/token", self._token)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Serve no longer."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metadata(self, _: web.Request) -> web.Response:
        ends = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return web.json_response({"issuer": self.issuer, **{name: f"{self.issuer}/{end}" for name, end in ends.items()}})

    async def _keys(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [self._key.as_dict(private=False)]})

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe()
        self._codes[code] = asked
        raise web.HTTPFound(f"{asked['redirect_uri']}?code={code}&state={asked['state']}")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self._codes.pop(str(form["code"]), None)
        secret = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest()).decode().rstrip("=")
        )
        if (
            asked is None
            or challenge != asked["code_challenge"]
            or form["redirect_uri"] != asked["redirect_uri"]
            or request.headers["Authorization"] != f"Basic {secret}"
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        basic = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 60, "nonce": asked["nonce"]}
        token = {"access_token": "x", "token_type": "Bearer", "id_token": self._sign(basic | self.claims | self.wrong)}
        return web.json_response(token)

    def _sign(self, claims: dict[str, Any]) -> str:
        if self.algorithm == "none":
            parts = (jwt.encode({"alg": "RS256"}, claims, self._key)).split(".")
            header = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
            return f"{header}.{parts[1]}."
        key = OctKey.import_key(CLIENT_SECRET) if self.algorithm == "HS256" else self._key
        return jwt.encode({"alg": self.algorithm, "kid": "1"}, claims, key)
