"""Discord as far as signing in goes: its token and user endpoints, in its wire format, on a loopback socket.

After https://discord.com/developers/docs/topics/oauth2. The token endpoint takes a form and checks the redirect
address and, when a challenge was sent, PKCE's verifier; errors are 400 with `error` and `error_description`. The user
object has `email` and `verified` only with the scope `email`.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.json_server import Asked, Told, json_server

CLIENT_ID, CLIENT_SECRET = "1234567890", "discord-secret-7f3a"


@dataclass
class FakeDiscord:
    """Its people, by what a browser would type there, and what it was asked."""

    url: str = ""
    codes: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    forms: list[dict[str, str]] = field(default_factory=list)
    scope: str = "identify email"
    """What the person agreed to."""

    def agree(self, url: str, user: dict[str, Any]) -> dict[str, str]:
        """Somebody signs in at the address and agrees: the query that the browser brings back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert urlsplit(url).path == "/oauth2/authorize"
        assert (query["response_type"], query["client_id"]) == ("code", CLIENT_ID)
        code = secrets.token_urlsafe(22)
        self.codes[code] = {"query": query, "user": user}
        return {"code": code, "state": query["state"]}

    def answer(self, asked: Asked) -> Told:
        if (asked.method, asked.path) == ("GET", "/api/users/@me"):
            return Told(*self.user(asked.headers.get("authorization", "")))
        is_form = asked.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        if is_form and (asked.method, asked.path) == ("POST", "/api/oauth2/token"):
            return Told(*self.exchange({name: values[0] for name, values in parse_qs(asked.body.decode()).items()}))
        return Told(404, {"message": "404: Not Found", "code": 0})

    def exchange(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.forms.append(form)
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return 401, {"error": "invalid_client"}
        known = self.codes.pop(form.get("code", ""), None)
        if known is None or form.get("grant_type") != "authorization_code":
            return 400, {"error": "invalid_grant", "error_description": 'Invalid "code" in request.'}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        query = known["query"]
        is_same = (
            query["code_challenge"] == challenge.rstrip(b"=").decode() and query["code_challenge_method"] == "S256"
        )
        if not is_same or form.get("redirect_uri") != query["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        token = secrets.token_urlsafe(22)
        self.tokens[token] = known["user"]
        return 200, {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": 604_800,
            "refresh_token": secrets.token_urlsafe(22),
            "scope": self.scope,
        }

    def user(self, authorization: str) -> tuple[int, dict[str, Any]]:
        found = self.tokens.get(authorization.removeprefix("Bearer "))
        return (401, {"message": "401: Unauthorized", "code": 0}) if found is None else (200, found)


def a_user(number: int, email: str | None, *, verified: bool | None = True, name: str = "Alice") -> dict[str, Any]:
    """A user object; `verified` None: Discord leaves the field away."""
    user: dict[str, Any] = {
        "id": str(80_351_110_224_678_900 + number),
        "username": name.lower(),
        "discriminator": "0",
        "global_name": name,
        "avatar": None,
        "mfa_enabled": False,
        "locale": "en-US",
        "flags": 0,
        "email": email,
        "verified": verified,
    }
    return {key: value for key, value in user.items() if key != "verified" or value is not None}


@contextmanager
def fake_discord() -> Iterator[FakeDiscord]:
    """Serves until the end of the block."""
    discord = FakeDiscord()
    with json_server(discord.answer) as discord.url:
        yield discord
