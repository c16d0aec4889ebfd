"""The fast lane: /v1 served straight from the HTTP parser's callbacks, everything else by ASGI.

The protocol extends uvicorn's httptools protocol: same port, same process, same server. What it adds for
every request: limits and deadlines for heads and bodies, exactly one valid Host, no transfer coding but
`chunked`. What it adds for /v1: no ASGI scope, no task, no event per request.

Deadlines are plain numbers that one sweep over all connections looks at (gateway.sweep), because a timer
per request costs more than the parsing.
"""

import math
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dragonfly.gateway.heads import head_too_large
from dragonfly.gateway.refusals import REASONS, Refusal

if TYPE_CHECKING:
    import asyncio

    from dragonfly.gateway.gateway import Gateway

LANE_PREFIXES = (b"/v1/", b"/api/v1/")
PIPELINE_MAX = 64
LINGER_S = 2.0
LINGER_BYTES_MAX = 4 * 1024 * 1024
COUNTED_BODY_BYTES = 64 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_PIECE = b"0\r\n\r\n"

STATUS_LINES: dict[int, bytes] = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()
}


class Request(NamedTuple):
    """One complete request on the lane."""

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    chunked: bool
    """Whether the client understands chunked answers (HTTP/1.1)."""
    started_ns: int
    """Monotonic."""


class Active(Protocol):
    """What is answering at the moment; told how its client does."""

    def client_gone(self) -> None: ...
    def client_stalled(self) -> None: ...
    def client_slow(self) -> None: ...
    def client_ready(self) -> None: ...


class FastLane(HttpToolsProtocol):
    """One client connection."""

    gateway: ClassVar["Gateway"]
    transport: "asyncio.Transport"
    parser: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        gateway = self.gateway
        self.deadline_s = math.inf
        self.active: Active | None = None
        self.waiting: deque[Request] | None = None
        self.on_lane = False
        self.in_head = False
        self.head_bytes = 0
        self.read_bytes = 0
        self.unparsed_body_bytes = 0
        """Of the body behind an Upgrade that is not followed: the parser stops there, the body still comes."""
        self.body_parts: list[bytes] = []
        self.body_bytes = 0
        self.body_counted = 0
        self.refusal: Refusal | None = None
        self.discarding = 0
        self.close_after = False
        self.answer_chunked = True
        self.reading_paused = False
        self.limits = gateway.limits

    # The connection's life

    def connection_made(self, transport: "asyncio.Transport") -> None:  # type: ignore[override]
        super().connection_made(transport)
        gateway = self.gateway
        gateway.lanes.add(self)
        transport.set_write_buffer_limits(high=self.limits.write_high_water_bytes)
        self.deadline_s = gateway.coarse_s + self.limits.head_s
        if len(gateway.lanes) > self.limits.connections_max:
            self._refuse_connection(
                Refusal("overloaded", "Too many open connections. Retry in a moment.", retry_after_s=2.0)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self.gateway.lanes.discard(self)
        active, self.active = self.active, None
        self.waiting = None
        self._drop_body()
        if active is not None:
            active.client_gone()
        super().connection_lost(exc)

    def expired(self) -> None:
        """The deadline has passed: too slow a head, body or reader, or idle for too long."""
        self.deadline_s = math.inf
        if self.active is not None:
            self.active.client_stalled()
            self.transport.abort()
        elif self.in_head and self.head_bytes and not self.discarding:
            self._refuse_connection(Refusal("request_timeout", "The request took too long to arrive. Send it again."))
        elif self.body_parts or self.on_lane:
            self._refuse_connection(Refusal("request_timeout", "The body took too long to arrive. Send it again."))
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """uvicorn's graceful stop: a running answer may finish, anything else closes now."""
        self.close_after = True
        if self.active is None and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
        elif self.cycle is not None:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.active is not None:
            self.deadline_s = self.gateway.coarse_s + self.limits.client_stall_s
            self.active.client_slow()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.active is not None:
            self.deadline_s = math.inf
            self.active.client_ready()

    # Parsing

    def data_received(self, data: bytes) -> None:
        if self.discarding:
            self._discard(len(data))
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if self.unparsed_body_bytes:
            self._take_unparsed(data)
            return
        self.read_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._parsing_failed(error)
            return
        if self.in_head:
            self.head_bytes += len(data)
            if self.head_bytes > self.limits.head_bytes_max:
                self._refuse_connection(head_too_large())

    def _parsing_failed(self, error: httptools.HttpParserError) -> None:
        """What came is no request, or a callback refused it, or a callback of ours has a bug."""
        cause = error.__context__
        if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(cause, Refusal):
            self.gateway.report("lane_crashed", kind=type(cause).__name__)
        self._refuse_connection(
            self.refusal or Refusal("invalid_request", "The bytes received are no valid HTTP/1.1 request.")
        )

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.in_head = True
        self.on_lane = False
        self.head_bytes = 1
        if self.active is None:
            self.deadline_s = self.gateway.coarse_s + self.limits.head_s

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.in_head = False
        url = self.url
        head = dict(self.headers)
        try:
            self.gateway.heads.check(head, self.headers, self.parser)
            # The sum is only worth its time when the reads were large enough to break the limit.
            if self.head_bytes + self.read_bytes > self.limits.head_bytes_max:
                self.gateway.heads.check_size(url, self.headers)
        except Refusal as refusal:
            self._refuse_in_parser(refusal)
        if self.active is None:
            self.deadline_s = self.gateway.coarse_s + self.limits.body_s
        if not url.startswith(LANE_PREFIXES):
            self._start_asgi()
            return
        self.on_lane = True
        self.head = head
        self.body_parts = []
        self.body_bytes = 0
        self.started_ns = self.gateway.monotonic_ns()
        declared = head.get(b"content-length")
        if declared is not None and int(declared) > self.limits.body_bytes_max:
            self._refuse_in_parser(self._body_too_large())
        if b"expect" in head:
            if head[b"expect"].lower() != b"100-continue":
                self._refuse_in_parser(Refusal("invalid_request", "The only expectation served is 100-continue."))
            if self.active is None:
                self.transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        if not self.on_lane:
            super().on_body(body)
            return
        self.body_bytes += len(body)
        self.body_parts.append(body)
        if self.body_bytes > COUNTED_BODY_BYTES:
            self._count_body(len(body) if self.body_counted else self.body_bytes)

    def on_message_complete(self) -> None:
        if not self.on_lane:
            if self.active is None:
                self.deadline_s = math.inf
            super().on_message_complete()
            return
        if self.parser.should_upgrade() and self._expects_unparsed():
            return
        self._take_request()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """The parser stops behind an Upgrade: this request is answered, then the connection closes."""
        self.close_after = True
        if self.unparsed_body_bytes:
            self._take_unparsed(rest)
        elif self.active is None and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def _expects_unparsed(self) -> bool:
        self.unparsed_body_bytes = int(self.head.get(b"content-length", b"0"))
        return self.unparsed_body_bytes > 0

    def _take_unparsed(self, data: bytes) -> None:
        """The body of a request whose Upgrade is ignored, as RFC 9110 allows (Java's client offers h2c)."""
        body = data[: self.unparsed_body_bytes]
        self.unparsed_body_bytes -= len(body)
        try:
            if body:
                self.on_body(body)
        except Refusal as refusal:
            self.unparsed_body_bytes = 0
            self._refuse_connection(refusal)
            return
        if not self.unparsed_body_bytes:
            self.discarding = 1
            self._take_request()

    def _take_request(self) -> None:
        """The request is complete: serve it, or let it wait for its turn."""
        parts = self.body_parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        path, _, query = self.url.partition(b"?")
        parser = self.parser
        http11 = parser.get_http_version() == "1.1"
        request = Request(
            parser.get_method(),
            path,
            query,
            self.head,
            body,
            http11 and parser.should_keep_alive(),
            http11,
            self.started_ns,
        )
        self.on_lane = False
        self.body_parts = []
        self._drop_body()
        if self.active is None and (self.cycle is None or self.cycle.response_complete):
            self._serve(request)
        else:
            self._queue(request)

    def _refuse_in_parser(self, refusal: Refusal) -> None:
        self.refusal = refusal
        raise refusal

    def _start_asgi(self) -> None:
        if self.active is not None:
            self._refuse_in_parser(Refusal("invalid_request", "Mixed pipelining is not served."))
        url, headers, expect = self.url, self.headers, False
        for name, value in headers:
            if name == b"expect" and value.lower() == b"100-continue":
                expect = True
        HttpToolsProtocol.on_message_begin(self)
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = expect
        super().on_headers_complete()

    def _count_body(self, length: int) -> None:
        gateway = self.gateway
        if self.body_bytes > self.limits.body_bytes_max:
            self._refuse_in_parser(self._body_too_large())
        self.body_counted += length
        gateway.body_bytes_open += length
        if gateway.body_bytes_open > self.limits.body_bytes_open_max:
            self._refuse_in_parser(
                Refusal("overloaded", "Too many large bodies at the moment. Retry shortly.", retry_after_s=2.0)
            )

    def _drop_body(self) -> None:
        if self.body_counted:
            self.gateway.body_bytes_open -= self.body_counted
            self.body_counted = 0

    def _body_too_large(self) -> Refusal:
        return Refusal(
            "request_too_large",
            f"The body is larger than {self.limits.body_bytes_max} bytes. Send a shorter prompt or smaller images.",
        )

    # Serving

    def _queue(self, request: Request) -> None:
        """A pipelined request waits until the answers before it are complete; nothing more is read."""
        if self.waiting is None:
            self.waiting = deque()
        if len(self.waiting) >= PIPELINE_MAX:
            self._refuse_in_parser(Refusal("overloaded", "Too many pipelined requests."))
        self.waiting.append(request)
        if not self.reading_paused:
            self.reading_paused = True
            self.transport.pause_reading()

    def _serve(self, request: Request) -> None:
        self.deadline_s = math.inf
        self.answer_chunked = request.chunked
        if not request.keep_alive:
            self.close_after = True
        self.gateway.serve(self, request)

    def answered(self) -> None:
        """The answer of `active` is written: go on with the next request, or wait for one."""
        self.active = None
        if self.close_after:
            self.transport.close()
            return
        if self.transport.is_closing():
            return
        if self.waiting:
            request = self.waiting.popleft()
            self.loop.call_soon(self._serve_next, request)
            return
        self.deadline_s = self.gateway.coarse_s + self.limits.idle_s
        if self.reading_paused:
            self.reading_paused = False
            self.transport.resume_reading()

    def _serve_next(self, request: Request) -> None:
        if not self.transport.is_closing():
            self._serve(request)

    def on_response_complete(self) -> None:
        """An ASGI answer is complete (uvicorn calls this)."""
        super().on_response_complete()
        self.deadline_s = math.inf
        if self.waiting and not self.transport.is_closing():
            request = self.waiting.popleft()
            self.loop.call_soon(self._serve_next, request)

    # Writing

    def send_whole(self, status: int, head: bytes, body: bytes) -> None:
        """A complete answer: `head` are rendered header lines."""
        closing = b"connection: close\r\n" if self.close_after else b""
        self.transport.write(
            b"%bcontent-length: %d\r\n%b%b%b\r\n%b"
            % (STATUS_LINES[status], len(body), head, self.gateway.common_head, closing, body)
        )
        self.answered()

    def send_head(self, head: bytes) -> None:
        """Start a streamed answer with status 200."""
        if self.answer_chunked:
            coding = b"transfer-encoding: chunked\r\n"
        else:
            coding = b""
            self.close_after = True
        closing = b"connection: close\r\n" if self.close_after else b""
        self.transport.write(b"HTTP/1.1 200 OK\r\n%b%b%b%b\r\n" % (head, self.gateway.common_head, coding, closing))

    def send_piece(self, data: bytes) -> None:
        """More of a streamed answer."""
        if self.answer_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self.transport.write(data)

    def send_end(self, data: bytes) -> None:
        """The last bytes of a streamed answer; `data` may be empty."""
        if self.answer_chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else LAST_PIECE
        if data:
            self.transport.write(data)
        self.answered()

    # Refusing a connection

    def _refuse_connection(self, refusal: Refusal) -> None:
        """Answer what cannot be parsed or will not be read, then close without losing the answer.

        When something else is still being answered, that goes on and the connection closes after it.
        """
        self.refusal = None
        self.close_after = True
        self.on_lane = False
        self._drop_body()
        self.body_parts = []
        if self.active is not None or (self.cycle is not None and not self.cycle.response_complete):
            self.discarding = 1
            return
        self.discarding = 1
        status, head, body = self.gateway.refusal_parts(refusal)
        self.transport.write(
            b"%bcontent-length: %d\r\n%b%bconnection: close\r\n\r\n%b"
            % (STATUS_LINES[status], len(body), head, self.gateway.common_head, body)
        )
        self.deadline_s = self.gateway.coarse_s + LINGER_S
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _discard(self, length: int) -> None:
        """Read on for a moment, so that the kernel does not reset the connection under our answer."""
        self.discarding += length
        if self.discarding > LINGER_BYTES_MAX:
            self.transport.abort()


def lane(gateway: "Gateway") -> type[FastLane]:
    """The protocol class for uvicorn's `http=`, bound to one gateway."""
    return type("Lane", (FastLane,), {"gateway": gateway})
