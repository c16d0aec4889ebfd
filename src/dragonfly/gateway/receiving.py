"""Receiving requests on one connection: parsing, limits, deadlines, refusals of what is no clean request.

Base of the fast lane. It calls `request_complete` for every whole request under /v1 and hands all others to
uvicorn's own ASGI machinery.
"""

import math
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dragonfly.admission.errors import InvalidKey
from dragonfly.core.content import holds_content
from dragonfly.core.secrets import is_well_formed_key
from dragonfly.gateway.heads import head_too_large, origin_form, secret_of
from dragonfly.gateway.refusals import REASONS, Refusal
from dragonfly.gateway.repeated import ParsedHead, RepeatedHead, repeatable

if TYPE_CHECKING:
    import asyncio

    from dragonfly.gateway.gateway import Gateway

LANE_PREFIXES = (b"/v1/", b"/api/v1/")
PIPELINE_MAX = 64
"""Requests of one connection that may wait, and that are answered in one turn of the event loop."""
LINGER_S = 2.0
LINGER_BYTES_MAX = 4 * 1024 * 1024
COUNTED_BODY_BYTES = 64 * 1024
PARTS_MIN = 1_000
PART_BYTES_MIN = 64
"""Beyond the first ones, chunks of a body have to be this long on average: each costs a call."""
STRANGERS_SHARE = 4
"""Bodies that come with a key that is not known here yet may fill one part in this many of the bound."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_HEAD: dict[bytes, bytes] = {}
"""Never written to."""
NO_REQUEST = "The bytes received are no valid HTTP/1.1 request."

STATUS_LINES: dict[int, bytes] = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()
}


@holds_content
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


class Receiver(HttpToolsProtocol):
    """The receiving half of one client connection."""

    gateway: ClassVar["Gateway"]
    transport: "asyncio.Transport"
    parser: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pipeline = None  # type: ignore[assignment]
        """uvicorn's queue for the control plane; made when the control plane is asked."""
        self.limits = self.gateway.limits
        self.deadline_s = math.inf
        """Monotonic; looked at by the gateway's sweep."""
        self.on_lane = False
        self.in_head = False
        self.is_between = True
        """No part of a message has come yet, or the last one is whole."""
        self.begun_in_read = 0
        self.has_streamed = False
        """It will again, and while it does no head is kept."""
        self.parsed: ParsedHead | None = None
        """Of the request that was complete in this read, when its head may come again."""
        self.repeated: RepeatedHead | None = None
        self.head_bytes = 0
        self.read_bytes = 0
        self.read_ended_message = False
        self.served_in_read = 0
        self.around_bytes = 0
        """Received since the last body byte, outside a head: trailers and chunk extensions."""
        self.head: dict[bytes, bytes] = NO_HEAD
        self.unparsed_body_bytes = 0
        """Of the body behind an Upgrade that is not followed: the parser stops there, the body still comes."""
        self.body_parts: list[bytes] = []
        self.body_bytes = 0
        self.body_counted = 0
        self.stranger_bytes = 0
        self.is_stranger = False
        self.refusal: Refusal | None = None
        self.discarding = 0
        self.close_after = False

    # What the serving half provides

    def request_complete(self, request: Request) -> None:
        """A whole request under /v1 has come."""
        raise NotImplementedError

    @property
    def is_answering(self) -> bool:
        """Something is being answered, or waits for its turn."""
        raise NotImplementedError

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
        self.served_in_read = 0
        repeated = self.repeated
        if repeated is not None and self.is_between:
            body = repeated.body_of(data, self.gateway.uncounted_bytes_max)
            if body is not None:
                method, path, query, headers, _ = repeated.parsed
                now_ns = self.gateway.monotonic_ns()
                self.request_complete(Request(method, path, query, headers, body, True, True, now_ns))
                return
            self.repeated = None
        begins_here = self.is_between and not self.has_streamed
        self._parse(data)
        if begins_here and self.is_between and self.begun_in_read == 1 and self.parsed is not None:
            self.repeated = repeatable(data, self.parsed)

    def _parse(self, data: bytes) -> None:
        self.begun_in_read = 0
        self.parsed = None
        self.read_bytes = len(data)
        self.read_ended_message = False
        self.around_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.parsed = None
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._parsing_failed(error)
            return
        if self.in_head:
            # A head that began behind something else in this read is counted from the next read on.
            if self.head_bytes or not self.read_ended_message:
                self.head_bytes += len(data)
            if self.head_bytes > self.limits.head_bytes_max:
                self._refuse_connection(head_too_large())
        elif self.around_bytes > self.limits.head_bytes_max:
            self._check_around()

    def _check_around(self) -> None:
        """Much has come that is neither head nor body: trailers, chunk extensions, or one read of many requests."""
        if self.around_bytes > self.limits.head_bytes_max + self.read_bytes and not self.discarding:
            self._refuse_connection(head_too_large())

    def _parsing_failed(self, error: httptools.HttpParserError) -> None:
        """What came is no request, or a callback refused it, or a callback of ours has a bug."""
        cause = error.__context__
        if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(
            cause, Refusal | httptools.HttpParserError
        ):
            self.gateway.report("lane_crashed", kind=type(cause).__name__)
        self._refuse_connection(self.refusal or Refusal("invalid_request", NO_REQUEST))

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.in_head = True
        self.is_between = False
        self.begun_in_read += 1
        self.on_lane = False
        self.head_bytes = 0
        self.around_bytes = 0
        if not self.is_answering:
            self.deadline_s = self.gateway.coarse_s + self.limits.head_s

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.headers.append((name.lower(), value))
        # Otherwise a trailer: dropped, and counted by what was read around the body.

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
        if not self.is_answering:
            self.deadline_s = self.gateway.coarse_s + self.limits.body_s
        if not url.startswith(b"/"):
            url = self.url = origin_form(url)
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
        if declared is None or int(declared) > COUNTED_BODY_BYTES:
            self._look_at_key(head)
        if b"expect" in head and self.parser.get_http_version() == "1.1":
            if head[b"expect"].lower() != b"100-continue":
                self._refuse_in_parser(Refusal("invalid_request", "The only expectation served is 100-continue."))
            if not self.is_answering:
                self.transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        self.around_bytes = 0
        if not self.on_lane:
            super().on_body(body)
            return
        self.body_bytes += len(body)
        parts = self.body_parts
        parts.append(body)
        if len(parts) > PARTS_MIN and len(parts) > PARTS_MIN + self.body_bytes // PART_BYTES_MIN:
            self._refuse_in_parser(Refusal("invalid_request", "The body comes in too many too small chunks."))
        if self.body_bytes > self.limits.body_bytes_max:
            self._refuse_in_parser(self._body_too_large())
        if self.body_bytes > COUNTED_BODY_BYTES:
            self._count_body(len(body) if self.body_counted else self.body_bytes)

    def on_message_complete(self) -> None:
        self.read_ended_message = True
        self.is_between = True
        self.around_bytes = 0
        if not self.on_lane:
            if not self.is_answering:
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
        elif not self.is_answering and (self.cycle is None or self.cycle.response_complete):
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
        method, head = parser.get_method(), self.head
        http11 = parser.get_http_version() == "1.1"
        keep_alive = http11 and parser.should_keep_alive()
        request = Request(method, path, query, head, body, keep_alive, http11, self.started_ns)
        if keep_alive and not self.has_streamed:
            self.parsed = ParsedHead(method, path, query, head, len(body))
        self.on_lane = False
        # A connection may stream for minutes: what belonged to the head is let go.
        self.body_parts = []
        self.headers = []
        self.head = NO_HEAD
        self.url = b""
        self._drop_body()
        self.request_complete(request)

    def _refuse_in_parser(self, refusal: Refusal) -> None:
        self.refusal = refusal
        raise refusal

    def _start_asgi(self) -> None:
        if self.is_answering or len(self.pipeline or ()) >= PIPELINE_MAX:
            self._refuse_in_parser(Refusal("invalid_request", "Mixed pipelining is not served."))
        url, headers, expect = self.url, self.headers, False
        for name, value in headers:
            if name == b"expect" and value.lower() == b"100-continue":
                expect = True
        if not self.pipeline:
            self.pipeline = deque()
        HttpToolsProtocol.on_message_begin(self)
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = expect
        super().on_headers_complete()

    def _look_at_key(self, head: dict[bytes, bytes]) -> None:
        """Before a large body is read: a key that is missing or malformed is refused at once, without a query."""
        try:
            secret = secret_of(head)
            self.is_stranger = self.gateway.gate.key_cached(secret) is None
            if self.is_stranger and not is_well_formed_key(secret):
                raise Refusal("invalid_api_key", InvalidKey().message)
        except Refusal as refusal:
            if self.parser.get_method() == b"POST":
                self._refuse_in_parser(refusal)

    def _count_body(self, length: int) -> None:
        gateway = self.gateway
        self.body_counted += length
        gateway.body_bytes_open += length
        if self.is_stranger:
            self.stranger_bytes += length
            gateway.stranger_bytes_open += length
        bytes_max = self.limits.body_bytes_open_max
        if gateway.body_bytes_open > bytes_max or (
            self.is_stranger and gateway.stranger_bytes_open > bytes_max // STRANGERS_SHARE
        ):
            self._refuse_in_parser(
                Refusal("overloaded", "Too many large bodies at the moment. Retry shortly.", retry_after_s=2.0)
            )

    def _drop_body(self) -> None:
        if self.body_counted:
            self.gateway.body_bytes_open -= self.body_counted
            self.gateway.stranger_bytes_open -= self.stranger_bytes
            self.body_counted = self.stranger_bytes = 0

    def _body_too_large(self) -> Refusal:
        return Refusal(
            "request_too_large",
            f"The body is larger than {self.limits.body_bytes_max} bytes. Send a shorter prompt or smaller images.",
        )

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
        if self.is_answering or (self.cycle is not None and not self.cycle.response_complete):
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
