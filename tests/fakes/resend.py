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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "re_test_0123456789"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    """Several postmen connect at once; the default of 5 makes the kernel turn some away."""


@dataclass(frozen=True)
class Trouble:
    """An answer instead of the usual one."""

    status: int
    name: str
    headers: dict[str, str] = field(default_factory=dict)
    is_accepted: bool = False
    """The mail is taken all the same; only the answer is this one, or lost (status 0)."""


class FakeResend:
    """One running server. `mails` are those that would have reached somebody."""

    def __init__(self) -> None:
        self.mails: list[dict[str, Any]] = []
        self.requests: list[dict[str, str]] = []
        """Headers of all requests."""
        self.troubles: list[Trouble] = []
        """For the next requests, in this order."""
        self._answers: dict[str, tuple[str, str]] = {}
        self.changed = threading.Condition()
        """Told of each request."""
        self._server = _Server(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of all requests."""
        return [headers.get("idempotency-key", "") for headers in self.requests]

    @contextlib.contextmanager
    def running(self) -> Iterator["FakeResend"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, body and headers; status 0: the connection ends without an answer."""
        with self.changed:
            self.requests.append(headers)
            self.changed.notify_all()
            trouble = self.troubles.pop(0) if self.troubles else None
            if trouble is not None and not trouble.is_accepted:
                return trouble.status, _error(trouble.status, trouble.name), trouble.headers
            status, shown = self._accept(path, headers, body)
            if trouble is not None:
                return trouble.status, _error(trouble.status, trouble.name), trouble.headers
            return status, shown, {"ratelimit-limit": "5", "ratelimit-remaining": "4", "ratelimit-reset": "1"}

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


def _handler(fake: FakeResend) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, shown, extra = fake.answer(self.path, headers, body)
            if status == 0:
                self.close_connection = True
                return
            content = json.dumps(shown).encode()
            self.send_response(status)
            for name, value in {**extra, "Content-Type": "application/json"}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler
