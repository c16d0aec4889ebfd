"""How events reach a webhook: signed as Stripe signs them, and as badly delivered as a test wants."""

import hashlib
import hmac
import http.client
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from dragonfly.core.clock import Clock
from dragonfly.payments.simulated.api import to_bytes
from dragonfly.payments.simulated.state import Json

POST_S_MAX = 10.0
TRIES_MAX = 6
RETRY_S = 1.0
"""Stripe tries for days; this server gives up after seconds, and the reconciler finds what was lost."""
QUEUE_MAX = 10_000


class Signed(NamedTuple):
    """A request body with its Stripe-Signature."""

    body: bytes
    signature: str


def sign(body: bytes, secret: str, at_s: int) -> Signed:
    """HMAC-SHA256 over `time.body`, as Stripe's page "Verify webhook signatures" says."""
    digest = hmac.new(secret.encode(), b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return Signed(body, f"t={at_s},v1={digest}")


def signed_event(event: Json, secret: str, clock: Clock) -> Signed:
    """The event as it goes over the wire now."""
    return sign(to_bytes(event), secret, clock.now_ns() // 10**9)


def post(url: str, signed: Signed) -> int:
    """Delivers once; gives the HTTP status. OSError when nobody answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=POST_S_MAX)
    try:
        headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signed.signature}
        connection.request("POST", parts.path, signed.body, headers)
        response = connection.getresponse()
        response.read()
        return response.status
    except http.client.HTTPException as failure:
        raise OSError("no HTTP answer") from failure
    finally:
        connection.close()


class Courier:
    """Delivers every event by itself, in order, again when it is not taken: what the demo needs."""

    def __init__(self, url: str, sign_event: Callable[[Json], Signed]) -> None:
        self._url = url
        self._sign_event = sign_event
        self._waiting: queue.Queue[Json | None] = queue.Queue(QUEUE_MAX)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="simulated stripe courier", daemon=True)
        self._thread.start()

    def take(self, event: Json) -> None:
        self._waiting.put(event)

    def stop(self) -> None:
        self._stopping.set()
        self._waiting.put(None)
        self._thread.join(POST_S_MAX)

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            for _ in range(TRIES_MAX):
                if self._stopping.is_set() or self._is_taken(event):
                    break
                self._stopping.wait(RETRY_S)

    def _is_taken(self, event: Json) -> bool:
        try:
            return 200 <= post(self._url, self._sign_event(event)) < 300
        except OSError:
            return False
