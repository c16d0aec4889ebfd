"""`Idempotency-Key`: a POST under /api that is sent again is not done again.

As in the IETF's draft: the same key with another request is 422, with a request that still runs 409. What a repeat
gets is what the first one got, without secrets, which are shown once. An answer is kept only for routes that say so
(`kept`); for the others a repeat learns that the request was done. Keys live a day and belong to one account;
requests without a caller (sign-in, webhooks) accept the header and need no memory: each is safe to repeat by itself.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from fastapi.routing import APIRoute
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dragonfly.api.desk import RepeatStore
from dragonfly.api.guard import API_PREFIX, given_once
from dragonfly.api.principal import PRINCIPAL, Authenticate, Principal
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.infra.database import DatabaseAway
from dragonfly.infra.repeats import Repeat, claim, note, release

HEADER = b"idempotency-key"
KEY_LENGTH_MAX = 255
REPLY_LENGTH_MAX = 32 * 1024
"""Longer answers are not kept."""
EXTENSION = "x-dragonfly-repeat"
UNCERTAIN = "dragonfly.uncertain"
"""In the scope: whether a refused request may have taken effect all the same."""
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")

Refuse = Callable[[DragonflyError, Scope], Response]
"""Gives an expected error its HTTP shape."""


class IdempotencyKeyInvalid(DragonflyError):
    code = "idempotency_key_invalid"
    status = 400

    def __init__(self) -> None:
        super().__init__(f"An Idempotency-Key has 1 to {KEY_LENGTH_MAX} visible ASCII characters, such as a UUID.")


class IdempotencyKeyReused(DragonflyError):
    """The same key came with another request."""

    code = "idempotency_key_reused"
    status = 422

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another request. Use a new one for each request.")


class RequestUnderWay(DragonflyError):
    """The first request with this key runs, or its process died and nobody knows what it did."""

    code = "request_under_way"
    status = 409

    def __init__(self) -> None:
        super().__init__(
            "The first request with this Idempotency-Key has not ended. Look whether it took effect before you send"
            " it with a new key."
        )


class RequestDone(DragonflyError):
    """The first request with this key succeeded; its answer is not kept."""

    code = "request_done"
    status = 409

    def __init__(self) -> None:
        super().__init__("The request with this Idempotency-Key was done. Its answer is not kept; read the result.")


def kept(*secrets: str) -> dict[str, object]:
    """`openapi_extra` of a POST whose answer is kept for repeats, with `secrets` (top-level fields) as null."""
    return {EXTENSION: list(secrets)}


class Repeats:
    """Stands before the routes; only requests with the header pay for it."""

    def __init__(self, api: ASGIApp, store: RepeatStore, *, authenticate: Authenticate, refuse: Refuse) -> None:
        self._api = api
        self._store = store
        self._authenticate = authenticate
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = _key_of(scope)
        if key is None:
            await self._api(scope, receive, send)
            return
        try:
            principal = await self._caller(scope, receive, key)
            if principal is None:
                await self._api(scope, receive, send)
                return
            body = (await receive()).get("body", b"")
            claimed = self._claim(scope, principal, key, body)
            first = await self._store.desk.write(claimed.run)
            if first is not None:
                await _repeated(first, claimed.request_digest)(scope, receive, send)
                return
        except DragonflyError as refusal:
            await self._refuse(refusal, scope)(scope, receive, send)
            return
        await self._first(claimed, scope, given_once(body, receive), send)

    async def _caller(self, scope: Scope, receive: Receive, key: bytes) -> Principal | None:
        """Who asks; None when nobody has proven to be anybody: the route itself says what that means."""
        if not _KEY.fullmatch(key):
            raise IdempotencyKeyInvalid
        try:
            principal = await self._authenticate(Request(scope, receive))
        except DragonflyError:
            return None
        scope[PRINCIPAL] = principal  # a proof of possession is good for one look only
        return principal

    def _claim(self, scope: Scope, principal: Principal, key: bytes, body: bytes) -> "_Claim":
        target = b"\0".join((scope["method"].encode(), scope["path"].encode(), scope["query_string"], body))
        seal, account_id = self._store.seal, principal.account_id
        return _Claim(
            account_id,
            seal(b"key\0" + account_id.encode() + b"\0" + key),
            seal(b"request\0" + target),
            self._store.desk.clock.now_ns(),
        )

    async def _first(self, claimed: "_Claim", scope: Scope, receive: Receive, send: Send) -> None:
        """The first request with its key: its answer goes out after the note of it."""
        messages: list[Message] = []
        await self._api(scope, receive, _collector(messages))
        status = next((one["status"] for one in messages if one["type"] == "http.response.start"), 500)
        body = b"".join(one.get("body", b"") for one in messages if one["type"] == "http.response.body")
        secrets = _secrets_of(scope)
        reply = None if secrets is None else _without(body, secrets)
        is_refused = status >= 400 and not scope.get(UNCERTAIN, status >= 500)

        def end(connection: Connection) -> None:
            if is_refused:
                release(connection, claimed.digest)
            elif status < 400:
                note(connection, claimed.digest, status=status, reply=reply)

        with suppress(DatabaseAway):
            await self._store.desk.write(end)
        for message in messages:
            await send(message)


class _Claim(NamedTuple):
    """One use of a key."""

    account_id: AccountId
    digest: bytes
    request_digest: bytes
    now_ns: int

    def run(self, connection: Connection) -> Repeat | None:
        return claim(connection, self.account_id, self.digest, self.request_digest, now_ns=self.now_ns)


def _secrets_of(scope: Scope) -> list[str] | None:
    """The fields that repeats do not show, of the route that answered; None: its answer is not kept."""
    route = scope.get("route")  # the framework puts it there when it has found one
    if not isinstance(route, APIRoute):
        return None
    found = (route.openapi_extra or {}).get(EXTENSION)
    return None if found is None else list(found)


def _key_of(scope: Scope) -> bytes | None:
    if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(API_PREFIX):
        return None
    return next((value for name, value in scope["headers"] if name == HEADER), None)


def _collector(messages: list[Message]) -> Send:
    async def collect(message: Message) -> None:
        messages.append(message)

    return collect


def _without(body: bytes, secrets: list[str]) -> str | None:
    """An answer's JSON without its secrets; None when it is too long or no JSON."""
    if not body:
        return ""
    try:
        shown = json.loads(body)
    except ValueError:
        return None
    if isinstance(shown, dict):
        shown |= {name: None for name in secrets if name in shown}
    text = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= REPLY_LENGTH_MAX else None


def _repeated(first: Repeat, request_digest: bytes) -> Response:
    """The answer to a repeat."""
    if first.request_digest != request_digest:
        raise IdempotencyKeyReused
    if first.status is None:
        raise RequestUnderWay
    if first.reply is None:
        raise RequestDone
    return Response(first.reply, first.status, {"Idempotency-Replayed": "true"}, "application/json")
