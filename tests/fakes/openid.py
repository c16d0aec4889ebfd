"""An OpenID provider whose id tokens a test makes as it likes, and what a browser does at a real one."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from tests.fakes.json_server import Asked, Told, json_server
from tests.fakes.upstream import WAIT_S

CLIENT_ID, CLIENT_SECRET = "google-client", "google-secret-7f3a"


def agree(url: str, sub: str, **claims: Any) -> dict[str, str]:
    """Somebody with those claims signs in at oidc-provider-mock: the query that the browser brings back."""
    parts = urlsplit(url)
    with httpx.Client(base_url=f"{parts.scheme}://{parts.netloc}", timeout=WAIT_S) as browser:
        assert browser.put(f"/users/{sub}", json=claims).status_code == 204
        answer = browser.post(f"{parts.path}?{parts.query}", data={"sub": sub})
    assert answer.status_code == 302, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


class ForgingProvider:
    """Answers every code with the id token that `make` gives; its key changes when a test says so."""

    def __init__(self) -> None:
        self.url = ""
        self.key = RSAKey.generate_key(2048)
        self.make: Callable[[dict[str, Any]], str] = self.sign
        self.claims: dict[str, Any] = {}
        self.asked: list[str] = []

    def sign(self, claims: dict[str, Any], alg: str = "RS256", key: Any = None) -> str:
        return jwt.encode({"alg": alg}, claims, key or self.key, algorithms=[alg])

    def good_claims(self, url: str) -> dict[str, Any]:
        """What an honest provider would say to somebody who was sent to `url`."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        now = int(time.time())
        return {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": "1",
            "iat": now,
            "exp": now + 600,
            "nonce": query["nonce"],
            "email": "alice@example.com",
            "email_verified": True,
            "name": "Alice",
        }

    def answer(self, asked: Asked) -> Told:
        self.asked.append(asked.path)
        if asked.path == "/.well-known/openid-configuration":
            names = {"authorization": "/authorize", "token": "/token"}
            endpoints = {f"{name}_endpoint": self.url + target for name, target in names.items()}
            return Told(200, {"issuer": self.url, "jwks_uri": self.url + "/keys", **endpoints})
        if asked.path == "/keys":
            return Told(200, KeySet([self.key]).as_dict(private=False))
        if asked.path == "/token":
            return Told(200, {"token_type": "Bearer", "access_token": "x", "id_token": self.make(self.claims)})
        return Told(404, {})


@contextmanager
def forging_provider() -> Iterator[ForgingProvider]:
    """Serves until the end of the block."""
    provider = ForgingProvider()
    with json_server(provider.answer) as provider.url:
        yield provider
