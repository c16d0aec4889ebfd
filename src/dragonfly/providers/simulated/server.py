"""The simulated provider's server: asyncio and httptools on loopback, one exchange at a time per connection."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Self, cast

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from dragonfly.core.clock import Clock
from dragonfly.providers.simulated.answers import Answer, answer_to, chunk, deltas, whole
from dragonfly.providers.simulated.faults import Fault

MODEL = "simulated-chat"
"""The model id to put into a channel's `upstream_model`; any other works as well."""
TOKENS_PER_S = 30.0
"""A human pace."""
BODY_BYTES_MAX = 32 * 1024 * 1024
CONNECTIONS_MAX = 20_000
KEEP_ALIVE_COMMENTS = 3
STALL_S = 3_600.0
"""A stalled answer ends after this long, should the gateway wait that long."""

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 404: "Not Found"}
_ERRORS: dict[Fault, tuple[int, str, str]] = {
    Fault.BAD_KEY: (401, "authentication_error", "Authentication Fails, Your api key: ****-key is invalid"),
    Fault.NO_BALANCE: (402, "unknown_error", "Insufficient Balance"),
    Fault.RATE_LIMITED: (429, "rate_limit_error", "Rate limit reached, please try again after 2 seconds"),
    Fault.OVERLOADED: (503, "service_unavailable_error", "Service is too busy. We advise users to retry later"),
    Fault.BAD_REQUEST: (400, "invalid_request_error", "Invalid request (simulated)"),
    Fault.CONTEXT_TOO_LONG: (
        400,
        "invalid_request_error",
        "This model's maximum context length is 65536 tokens. Please reduce the length of the messages.",
    ),
    Fault.MODEL_UNKNOWN: (404, "invalid_request_error", "Model Not Exist"),
}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_HTML = b"<html><body><h1>500 Internal Server Error</h1></body></html>"


class SimulatedUpstream:
    """A server on loopback. `async with SimulatedUpstream(clock=SystemClock()) as upstream: … upstream.port`.

    `tokens_per_s` 0 means as fast as it goes.
    """

    def __init__(self, *, clock: Clock, tokens_per_s: float = TOKENS_PER_S, port: int = 0) -> None:
        self.clock = clock
        self.tokens_per_s = tokens_per_s
        self.host = "127.0.0.1"
        self.port = port
        self.connections: set[_Exchanges] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; afterwards `port` is the real one. OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Exchanges(self), self.host, self.port, backlog=1_024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listening socket and every connection."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.drop()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def created_s(self) -> int:
        return self.clock.now_ns() // 1_000_000_000


class _Exchanges(asyncio.Protocol):
    """One connection of the gateway's."""

    def __init__(self, upstream: SimulatedUpstream) -> None:
        self._upstream = upstream
        self._parser = HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._work: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._target = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._next_at_s = 0.0

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._upstream.connections.add(self)
        if len(self._upstream.connections) > CONNECTIONS_MAX:
            self.drop()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.connections.discard(self)
        self._transport = None
        if self._work is not None:
            self._work.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._target, self._body, self._body_bytes = b"", [], 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > BODY_BYTES_MAX:
            raise ValueError("the body is too large")
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self._work is not None and not self._work.done():
            raise ValueError("a second request before the first was answered")
        body, self._body = b"".join(self._body), []
        self._work = asyncio.get_running_loop().create_task(self._serve_safely(self._target, body))

    # One exchange

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _serve_safely(self, target: bytes, body: bytes) -> None:
        try:
            await self._serve(target, body)
        except Exception:
            # An unretrieved exception would be logged with its text, and the text may hold a prompt.
            self.drop()

    async def _serve(self, target: bytes, body: bytes) -> None:
        path = target.partition(b"?")[0]
        if path.endswith(b"/models"):
            self._write_json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        elif not path.endswith(b"/chat/completions"):
            self._write_error(404, "not_found_error", "Not Found")
        else:
            request = _decoded(body)
            if request is None or not isinstance(request.get("messages"), list):
                self._write_error(400, "invalid_request_error", "Failed to read the request (simulated)")
                return
            await self._answer(answer_to(request))

    async def _answer(self, answer: Answer) -> None:
        fault = answer.fault
        self._next_at_s = asyncio.get_running_loop().time()
        if fault in _ERRORS:
            self._write_error(*_ERRORS[fault], retry_after_s=2 if fault is Fault.RATE_LIMITED else None)
        elif fault is Fault.SERVER_ERROR:
            self._write_whole(500, b"text/html", _HTML)
        elif fault is Fault.GARBAGE:
            self._write(b"\x15\x03\x01 this is not HTTP\r\n\r\n")
            self.drop_softly()
        elif fault is Fault.STALL:
            await asyncio.sleep(STALL_S)
        elif answer.streamed:
            await self._stream(answer)
        else:
            await self._whole(answer)

    async def _whole(self, answer: Answer) -> None:
        await self._pace(answer.tokens_out)
        if answer.fault in _BREAKS:
            self._write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
            await _BREAKS[answer.fault](self)
            return
        self._write_json(200, whole(answer, self._upstream.created_s()))

    async def _stream(self, answer: Answer) -> None:
        created_s = self._upstream.created_s()
        self._write(_STREAM_HEAD)
        if answer.fault is Fault.KEEP_ALIVE:
            for _ in range(KEEP_ALIVE_COMMENTS):
                await self._pace(self._upstream.tokens_per_s)
                self._write(_chunked(b": keep-alive\n\n"))
        parts = deltas(answer)
        half = len(parts) // 2
        for position, delta in enumerate(parts):
            if position == half and answer.fault in _BREAKS:
                await _BREAKS[answer.fault](self)
                return
            if position == half and answer.fault is Fault.ERROR_MIDWAY:
                self._write_event({"error": {"message": "Internal error (simulated)", "type": "server_error"}})
                self._write(_chunked(b""))
                return
            await self._pace(1.0 if position else 0.0)
            self._write_event(chunk(answer, created_s, delta, None))
        self._write_event(chunk(answer, created_s, {"content": ""}, answer.finish_reason))
        end = b"" if answer.fault is Fault.NO_DONE else _chunked(b"data: [DONE]\n\n")
        self._write(end + _chunked(b""))

    async def _pace(self, tokens: float) -> None:
        """Wait until these tokens have had their time, by absolute moments, and until the gateway reads."""
        await self._writable.wait()
        rate = self._upstream.tokens_per_s
        if rate <= 0:
            # A turn of the loop, so that tokens stay separate reads where they can.
            await asyncio.sleep(0)
            return
        self._next_at_s += tokens / rate
        await asyncio.sleep(max(0.0, self._next_at_s - asyncio.get_running_loop().time()))

    # Breaks

    def drop_softly(self) -> None:
        """Close once everything is written."""
        if self._transport is not None:
            self._transport.close()

    async def cut(self) -> None:
        self.drop_softly()

    async def reset(self) -> None:
        if self._transport is not None:
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    async def stall(self) -> None:
        await asyncio.sleep(STALL_S)

    # Writing

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _write_event(self, body: dict[str, object]) -> None:
        self._write(_chunked(b"data: %b\n\n" % _encoded(body)))

    def _write_json(self, status: int, body: dict[str, object]) -> None:
        self._write_whole(status, b"application/json", _encoded(body))

    def _write_error(self, status: int, kind: str, message: str, retry_after_s: int | None = None) -> None:
        error = {"message": message, "type": kind, "param": None, "code": "invalid_request_error"}
        extra = b"Retry-After: %d\r\n" % retry_after_s if retry_after_s else b""
        self._write_whole(status, b"application/json", _encoded({"error": error}), extra)

    def _write_whole(self, status: int, content_type: bytes, body: bytes, extra: bytes = b"") -> None:
        reason = _REASONS.get(status, "Error").encode()
        head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n"
        self._write(head % (status, reason, content_type, len(body), extra) + body)


_BREAKS: dict[Fault | None, Callable[[_Exchanges], Awaitable[None]]] = {
    Fault.CUT: _Exchanges.cut,
    Fault.RESET: _Exchanges.reset,
    Fault.STALL_MIDWAY: _Exchanges.stall,
}


def _decoded(body: bytes) -> dict[str, object] | None:
    try:
        request = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return request if isinstance(request, dict) else None


def _encoded(body: dict[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
