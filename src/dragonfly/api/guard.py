"""What every request under /api passes before its route: a bounded body that is plain JSON, or none."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dragonfly.api.desk import RepeatStore

API_PREFIX = "/api/"
BODY_BYTES_MAX = 256 * 1024
"""Payment providers' webhooks are the largest bodies; what people send is a few kilobytes."""
JSON_TYPE = b"application/json"

Refuse = Callable[[int, Scope, Receive, Send], Awaitable[None]]
"""Answers with the error of a status."""


@dataclass(frozen=True, slots=True)
class BodyRules:
    """What bodies under /api may be, and where those of repeated requests are recognised."""

    bytes_max: int = BODY_BYTES_MAX
    form_paths: tuple[str, ...] = ()
    """Beginnings of paths where somebody else decides the form: one-click unsubscribing (RFC 8058) posts a form."""
    repeats: RepeatStore | None = None
    """None: `Idempotency-Key` is accepted and means nothing."""


BODIES_DEFAULT = BodyRules()


class ClientGone(Exception):
    """The client left in the middle of its body; nobody waits for an answer."""


class ApiGuard:
    """Reads the body of a request under /api whole, up to its bound, and refuses what is not JSON.

    Encoded bodies are refused too: what they inflate to has no bound.
    """

    def __init__(self, inner: ASGIApp, *, refuse: Refuse, rules: BodyRules) -> None:
        self._inner = inner
        self._refuse = refuse
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(API_PREFIX):
            await self._inner(scope, receive, send)
            return
        try:
            body = await self._body(receive)
        except ClientGone:
            return
        if body is None:
            await self._refuse(413, scope, receive, send)
        elif body and not self._is_acceptable(scope):
            await self._refuse(415, scope, receive, send)
        else:
            await self._inner(scope, given_once(body, receive), send)

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None when it is too large."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > self._rules.bytes_max:
                return None
            if not message.get("more_body", False):
                return bytes(body)

    def _is_acceptable(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            return False
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        path: str = scope["path"]
        return kind == JSON_TYPE or path.startswith(self._rules.form_paths)


def given_once(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body in one message, then what the server says."""
    is_given = False

    async def received() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received
