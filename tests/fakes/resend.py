"""Resend as it looks over HTTP: POST /emails with its errors, its limits and its idempotency keys.

Shapes are those of https://resend.com/docs/api-reference (errors, rate limits, idempotency keys), read in November
2026. A key is remembered with its payload: the same again answers with the first id, another payload is refused.
"""

import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.json_server import Asked, Told, json_server

API_KEY = "re_test_0123456789"


@dataclass(frozen=True)
class Trouble:
    """An answer instead of the usual one."""

    status: int
    name: str
    headers: dict[str, str] = field(default_factory=dict)
    is_accepted: bool = False
    """The mail is taken all the same; only the answer is this one, or lost (status 0)."""


class FakeResend:
    """One server, reached at `url` while it runs. `mails` are those that would have reached somebody."""

    def __init__(self) -> None:
        self.mails: list[dict[str, Any]] = []
        self.requests: list[dict[str, str]] = []
        """Headers of all requests."""
        self.troubles: list[Trouble] = []
        """For the next requests, in this order."""
        self._answers: dict[str, tuple[str, str]] = {}
        self.changed = threading.Condition()
        """Told of each request."""
        self.url = ""

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of all requests."""
        return [headers.get("idempotency-key", "") for headers in self.requests]

    @contextlib.contextmanager
    def running(self) -> Iterator["FakeResend"]:
        with json_server(self.answer) as self.url:
            yield self

    def answer(self, asked: Asked) -> Told:
        headers = dict(asked.headers)
        with self.changed:
            self.requests.append(headers)
            self.changed.notify_all()
            trouble = self.troubles.pop(0) if self.troubles else None
            if trouble is not None and not trouble.is_accepted:
                return Told(trouble.status, _error(trouble.status, trouble.name), trouble.headers)
            status, shown = self._accept(asked.path, headers, asked.body)
            if trouble is not None:
                return Told(trouble.status, _error(trouble.status, trouble.name), trouble.headers)
            limits = {"ratelimit-limit": "5", "ratelimit-remaining": "4", "ratelimit-reset": "1"}
            return Told(status, shown, limits)

    def _accept(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        if path != "/emails":
            return 404, _error(404, "not_found")
        if "authorization" not in headers:
            return 401, _error(401, "missing_api_key")
        if headers["authorization"] != f"Bearer {API_KEY}":
            return 403, _error(403, "invalid_api_key")
        if not headers.get("user-agent") or headers.get("content-type") != "application/json":
            return 403, _error(403, "1010")
        mail = json.loads(body)
        if set(mail) - {"from", "to", "subject", "text", "html", "headers", "reply_to"} or not mail["to"]:
            return 422, _error(422, "validation_error")
        key = headers.get("idempotency-key", "")
        if not 0 < len(key) <= 256:
            return 400, _error(400, "invalid_idempotency_key")
        known = self._answers.get(key)
        if known is not None:
            identifier, payload = known
            is_same = payload == json.dumps(mail, sort_keys=True)
            return (200, {"id": identifier}) if is_same else (409, _error(409, "invalid_idempotent_request"))
        identifier = str(uuid.uuid4())
        self._answers[key] = (identifier, json.dumps(mail, sort_keys=True))
        self.mails.append({**mail, "id": identifier, "key": key})
        return 200, {"id": identifier}


def _error(status: int, name: str) -> dict[str, Any]:
    return {"statusCode": status, "message": "Words that may quote alice@example.com.", "name": name}
