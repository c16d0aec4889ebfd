"""The load generator's end of one connection: a raw uvloop protocol over llhttp, without any policy.

What is sent is pre-rendered; what comes is stamped when it is read, before it is parsed, and kept for the
proof in verify.py. Times are time.monotonic_ns().
"""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import cast

import httptools

from bench.answers import TOKEN_MARK
from bench.prompts import Target
from bench.verify import STAMPED

CONNECT_TIMEOUT_S = 10.0
DIALS_MAX = 64
_CARRIED_BYTES = 32
"""Longer than a stamped token, so that one cut in two by a read is still found."""


class Caller(asyncio.Protocol):
    """One connection of the generator: one request at a time, `on_done(self)` at its end.

    After `on_done`, `failure` is "" or says what went wrong; `status`, `body()`, `sent_ns`, `first_ns` (first
    content event read; 0: none) and `ended_ns` describe the answer. With `on_token(number, sent_ns, read_ns)`
    set, each stamped chunk is reported as it is read.
    """

    __slots__ = (
        "_carried",
        "_expecting",
        "_parser",
        "_parts",
        "_transport",
        "body_bytes",
        "closed",
        "ended_ns",
        "failure",
        "first_ns",
        "intended_ns",
        "on_done",
        "on_token",
        "read_ns",
        "sent_ns",
        "status",
        "tokens",
    )

    def __init__(self, on_done: Callable[["Caller"], None]) -> None:
        self.on_done = on_done
        self.on_token: Callable[[Caller, int, int, int], None] | None = None
        self._parts: list[bytes] = []
        self._carried = b""
        self._expecting = False
        self.closed = False
        self.failure = ""
        self.status = self.body_bytes = self.tokens = 0
        self.intended_ns = self.sent_ns = self.first_ns = self.read_ns = self.ended_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses

    def ask(self, request: bytes, intended_ns: int = 0) -> None:
        """Send a request; its latency counts from `intended_ns`, or from now when that is 0."""
        assert not self._expecting, "one request at a time"
        self._parser = httptools.HttpResponseParser(self)
        self._parts = []
        self._carried = b""
        self._expecting = True
        self.failure = ""
        self.status = self.body_bytes = self.tokens = self.first_ns = 0
        self.sent_ns = time.monotonic_ns()
        self.intended_ns = intended_ns or self.sent_ns
        self._transport.write(request)

    def body(self) -> bytes:
        """The answer's body, freed of HTTP's framing."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def close(self) -> None:
        """Close at once; an answer under way is given up without `on_done`."""
        self._expecting = False
        if not self.closed:
            self._transport.abort()

    def pause(self) -> None:
        """Stop reading, as a stalled reader does."""
        self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.read_ns = time.monotonic_ns()
        if not self._expecting:
            self.failure = "bytes after the end of the answer"
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("not HTTP")

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._expecting:
            self._fail("closed before the end of the answer")

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        self.body_bytes += len(data)
        if not self.first_ns and TOKEN_MARK in data:
            self.first_ns = self.read_ns
        if self.on_token is not None:
            self._report_tokens(data)

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.ended_ns = self.read_ns
        self._expecting = False
        if self.status != 200:
            self.failure = f"status {self.status}"
        if not self._parser.should_keep_alive():
            self.closed = True
            self._transport.close()
        self.on_done(self)

    def _report_tokens(self, data: bytes) -> None:
        assert self.on_token is not None
        data = self._carried + data
        end = 0
        for match in STAMPED.finditer(data):
            end = match.end()
            number = int(match[1])
            if number != self.tokens:
                self.failure = "a chunk is missing or out of order"
            self.tokens = number + 1
            self.on_token(self, number, int(match[2]), self.read_ns)
        self._carried = data[max(end, len(data) - _CARRIED_BYTES) :]

    def _fail(self, reason: str) -> None:
        self._expecting = False
        self.failure = reason
        self.ended_ns = time.monotonic_ns()
        self.closed = True
        self._transport.abort()
        self.on_done(self)


async def connect(target: Target, on_done: Callable[[Caller], None], source_host: str = "") -> Caller:
    """Open one connection to a target, optionally from another loopback address."""
    loop = asyncio.get_running_loop()
    local = (source_host, 0) if source_host else None
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        transport, caller = await loop.create_connection(
            lambda: Caller(on_done), target.host, target.port, local_addr=local
        )
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return caller


async def connect_many(target: Target, count: int, on_done: Callable[[Caller], None]) -> list[Caller]:
    """Open `count` connections, at most DIALS_MAX at a time."""
    callers: list[Caller] = []
    while len(callers) < count:
        step = min(DIALS_MAX, count - len(callers))
        callers += await asyncio.gather(*(connect(target, on_done) for _ in range(step)))
    return callers
