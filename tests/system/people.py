"""Browsers of people in front of a real process."""

import base64
import contextlib
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
from joserfc import jws
from joserfc.jwk import ECKey

from tests.http.people import PASSWORD


class RealBrowser:
    """A browser with a key, on the machine's own clock. Each request takes a new connection, or the one of `via`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = ECKey.generate_key("P-256")
        self.token = ""

    def at(self, url: str) -> "RealBrowser":
        """The same browser in front of another node."""
        moved = RealBrowser(url)
        moved.key, moved.token = self.key, self.token
        return moved

    def headers(self, method: str, path: str) -> dict[str, str]:
        """A fresh proof, and the token when there is one."""
        claims = {"jti": uuid.uuid4().hex, "htm": method, "htu": self.url + path, "iat": int(time.time())}
        headers = {}
        if self.token:
            digest = hashlib.sha256(self.token.encode()).digest()
            claims["ath"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            headers["Authorization"] = f"DPoP {self.token}"
        public = {name: self.key.as_dict()[name] for name in ("kty", "crv", "x", "y")}
        head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": public}
        headers["DPoP"] = jws.serialize_compact(head, json.dumps(claims).encode(), self.key)
        return headers

    async def send(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """One request, with these headers instead of a fresh proof when they are given."""
        sent = self.headers(method, path) if headers is None else headers
        async with self.connected() as client:
            return await client.request(method, path, json=body, headers=sent)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[httpx.AsyncClient]:
        """A connection that stays with one worker."""
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=self.url, limits=limits, timeout=30) as client:
            yield client

    async def sign_in(self, email: str, password: str = PASSWORD) -> httpx.Response:
        """Keeps the token when it works."""
        self.token = ""
        answer = await self.send("POST", "/api/auth/sign-in", {"email": email, "password": password})
        self.token = answer.json().get("access_token", "")
        return answer
