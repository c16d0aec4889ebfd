"""The fast lane: /v1 served straight from the HTTP parser's callbacks, everything else by ASGI.

The protocol extends uvicorn's httptools protocol: same port, same process, same server. What it adds for
every request stands in `receiving`; what it adds for /v1: no ASGI scope, no task, no event per request.

Deadlines are plain numbers that one sweep over all connections looks at (gateway.sweep), because a timer
per request costs more than the parsing.
"""

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from dragonfly.gateway.flow import LaneFlow
from dragonfly.gateway.receiving import LINGER_S, PIPELINE_MAX, STATUS_LINES, Receiver, Request
from dragonfly.gateway.refusals import Refusal

if TYPE_CHECKING:
    from dragonfly.gateway.gateway import Gateway

LAST_PIECE = b"0\r\n\r\n"
HEAD_METHOD = b"HEAD"


class Active(Protocol):
    """What is answering at the moment; told how its client does."""

    def client_gone(self) -> None: ...
    def client_stalled(self) -> None: ...
    def client_slow(self) -> None: ...
    def client_ready(self) -> None: ...


class FastLane(Receiver):
    """One client connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.active: Active | None = None
        self.waiting: deque[Request] | None = None
        self.answer_chunked = True
        self.answer_bodyless = False
        """The request was a HEAD: the answer has a head only."""
        self.reading_paused = False

    @property
    def is_answering(self) -> bool:
        return self.active is not None or bool(self.waiting)

    # The connection's life

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = LaneFlow(transport)
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
        self.deadline_s = self.gateway.coarse_s + LINGER_S
        if self.active is not None:
            self.active.client_stalled()
            self.transport.abort()
        elif self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self.in_head and not self.discarding:
            self._refuse_connection(Refusal("request_timeout", "The request took too long to arrive. Send it again."))
        elif self.on_lane:
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
        """The client reads more slowly than we write: nothing more is served or read until it has caught up."""
        super().pause_writing()
        self.deadline_s = self.gateway.coarse_s + self.limits.client_stall_s
        if self.active is not None:
            self.active.client_slow()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.active is not None:
            self.deadline_s = math.inf
            self.active.client_ready()
        elif self.cycle is None or self.cycle.response_complete:
            self._go_on()

    # Serving

    def request_complete(self, request: Request) -> None:
        """Serve it, or let it wait until the answers before it are complete and read."""
        self.served_in_read += 1
        is_free = (
            self.active is None
            and not self.waiting
            and not self.flow.write_paused
            and (self.cycle is None or self.cycle.response_complete)
        )
        if is_free and self.served_in_read <= PIPELINE_MAX:
            self._serve(request)
            return
        self._queue(request)
        if is_free:
            # One read held many requests that were answered at once: others have a turn before it goes on.
            self.loop.call_soon(self._serve_next)

    def _queue(self, request: Request) -> None:
        """A pipelined request waits until the answers before it are complete; nothing more is read."""
        if self.waiting is None:
            self.waiting = deque()
        if len(self.waiting) >= PIPELINE_MAX:
            self._refuse_in_parser(Refusal("overloaded", "Too many pipelined requests."))
        self.waiting.append(request)
        if self.flow.write_paused:
            self.deadline_s = self.gateway.coarse_s + self.limits.client_stall_s
        if not self.reading_paused:
            self.reading_paused = True
            self.transport.pause_reading()

    def _serve(self, request: Request) -> None:
        self.deadline_s = math.inf
        self.answer_chunked = request.chunked
        self.answer_bodyless = request.method == HEAD_METHOD
        if not request.keep_alive:
            self.close_after = True
        self.gateway.serve(self, request)

    def answered(self) -> None:
        """The answer of `active` is written: go on with the next request, or wait for one."""
        self.active = None
        if not self.flow.write_paused:
            self._go_on()
            return
        self.deadline_s = self.gateway.coarse_s + self.limits.client_stall_s
        if not self.reading_paused:
            self.reading_paused = True
            self.transport.pause_reading()

    def _go_on(self) -> None:
        """Nothing is being answered and the client keeps up: the next request, or the end, or waiting."""
        if self.transport.is_closing():
            return
        if self.waiting:
            self.loop.call_soon(self._serve_next)
            return
        if self.close_after:
            # What is still in the buffer may take a while; the sweep ends it when nobody reads.
            self.deadline_s = self.gateway.coarse_s + self.limits.client_stall_s
            self.transport.close()
            return
        self.deadline_s = self.gateway.coarse_s + self.limits.idle_s
        if self.reading_paused:
            self.reading_paused = False
            self.transport.resume_reading()

    def _serve_next(self) -> None:
        if self.waiting and self.active is None and not self.transport.is_closing():
            self._serve(self.waiting.popleft())

    def on_response_complete(self) -> None:
        """An ASGI answer is complete (uvicorn calls this)."""
        super().on_response_complete()
        self.deadline_s = math.inf
        if self.transport.is_closing() or self.flow.write_paused:
            return
        if self.waiting:
            self.loop.call_soon(self._serve_next)
        elif self.close_after and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    # Writing

    def send_whole(self, status: int, head: bytes, body: bytes) -> None:
        """A complete answer: `head` are rendered header lines."""
        closing = b"connection: close\r\n" if self.close_after and not self.waiting else b""
        self.transport.write(
            b"%bcontent-length: %d\r\n%b%b%b\r\n%b"
            % (
                STATUS_LINES[status],
                len(body),
                head,
                self.gateway.common_head,
                closing,
                b"" if self.answer_bodyless else body,
            )
        )
        self.answered()

    def send_head(self, head: bytes) -> None:
        """Start a streamed answer with status 200."""
        self.has_streamed = True
        self.parsed = self.repeated = None
        if self.answer_chunked:
            coding = b"transfer-encoding: chunked\r\n"
        else:
            coding = b""
            self.close_after = True
        closing = b"connection: close\r\n" if self.close_after and not self.waiting else b""
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


def lane(gateway: "Gateway") -> type[FastLane]:
    """The protocol class for uvicorn's `http=`, bound to one gateway."""
    return type("Lane", (FastLane,), {"gateway": gateway})
