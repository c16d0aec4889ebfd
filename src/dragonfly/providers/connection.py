"""One HTTP/1.1 connection to a provider: a request goes out, its answer is parsed, then comes the next one.

Nothing here decodes or keeps what passes: bodies go to the listener as they were read. There is no task and
no timer per request; the pool sweeps its connections and asks each for its deadline.
"""

import asyncio
import enum
import re
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from dragonfly.providers.channel import ChannelTimeouts

HEAD_BYTES_MAX = 64 * 1024
"""Of a response head, and of any run of bytes inside a body that carries no body (trailers, extensions)."""
HEADER_COUNT_MAX = 128
INTERIM_RESPONSES_MAX = 8
"""1xx responses before the real one."""
STATUS_MAX = 599
KEEP_ALIVE_MARGIN_S = 1.0
_KEEP_ALIVE_TIMEOUT = re.compile(rb"timeout\s*=\s*(\d{1,6})", re.IGNORECASE)


class BrokenKind(enum.Enum):
    """Why an exchange ended without a complete body."""

    STALE = "stale"
    """A kept-alive connection that the provider closed before any byte of the answer: safe to send again."""
    RESET = "reset"
    """The connection went away before a whole response head."""
    CUT = "cut"
    """The connection went away inside the body."""
    GARBAGE = "garbage"
    """What came is not HTTP/1.1, or is framed or encoded in a way that was not asked for."""
    TOO_LARGE = "too_large"
    """The response head, or what stands around the body, is beyond the limits."""
    TIMEOUT = "timeout"
    """The answer did not begin, or did not go on, within the channel's limits."""


class Listener(Protocol):
    """Receives one answer. Exactly one of `on_end` and `on_broken` comes last, unless `abort` was called.

    Both mean that the connection no longer belongs to the listener: it must forget it there.
    """

    def on_response(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The head: lower-case names, the last of repeated values, surrounding space not stripped."""

    def on_bytes(self, data: bytes) -> None:
        """Body bytes without transfer coding; at most one call per socket read, never empty."""

    def on_end(self) -> None:
        """The body is complete; the connection is already back in the pool, or closed."""

    def on_broken(self, kind: BrokenKind) -> None:
        """There will be no more; the connection is closed."""


class Owner(Protocol):
    """Whoever keeps idle connections: the pool's state of one origin."""

    idle_s: float

    def opened(self, connection: "Connection") -> None:
        """The socket is connected (and TLS agreed on)."""

    def gone(self, connection: "Connection") -> None:
        """The socket is closed."""

    def release(self, connection: "Connection") -> None:
        """Takes a connection that is ready for its next request; may close it."""

    def discard(self, connection: "Connection") -> None:
        """Forgets a connection that is closed or about to be; may be called twice."""


class _Refused(Exception):
    """Stops the parser from inside one of its callbacks."""


class _Phase(enum.IntEnum):
    IDLE = 0
    WAITING = 1
    """Sent; the response head has not come yet."""
    HEADED = 2
    """The head has come, the body has not begun."""
    BODY = 3


_IDLE, _WAITING, _HEADED, _BODY = (int(phase) for phase in _Phase)
_NO_BODY_STATUSES = frozenset((204, 304))
_IDENTITY = frozenset((b"", b"identity"))


def _announced_idle_s(keep_alive: bytes) -> float:
    """How long a connection may wait by `Keep-Alive: timeout=5, max=100`, with a margin for the way there."""
    match = _KEEP_ALIVE_TIMEOUT.search(keep_alive)
    return max(0.0, int(match[1]) - KEEP_ALIVE_MARGIN_S) if match else float("inf")


class _Callbacks:
    """What the parser calls. Headers and body pieces go straight into containers, without Python frames."""

    __slots__ = ("on_body", "on_header", "on_headers_complete", "on_message_begin", "on_message_complete")

    def __init__(self, connection: "Connection", headers: dict[bytes, bytes], pieces: list[bytes]) -> None:
        self.on_header = headers.__setitem__
        self.on_body = pieces.append
        self.on_message_begin = connection.on_message_begin
        self.on_headers_complete = connection.on_headers_complete
        self.on_message_complete = connection.on_message_complete


class Connection(asyncio.Protocol):
    """An open connection. `send` starts an exchange; at most one is under way.

    After `on_end`, `on_broken` or `abort` the connection may already serve somebody else: whoever held it
    must not touch it again.
    """

    __slots__ = (
        "_around_bytes",
        "_complete",
        "_head",
        "_headers",
        "_heard",
        "_heard_at_s",
        "_interim",
        "_listener",
        "_owner",
        "_parser",
        "_paused",
        "_phase",
        "_pieces",
        "_reusable",
        "_status",
        "_transport",
        "_until_close",
        "_used",
        "idle_s",
        "session_kept",
        "timeouts",
    )

    def __init__(self, owner: Owner, timeouts: ChannelTimeouts, now_s: float) -> None:
        self.timeouts = timeouts
        self.idle_s = owner.idle_s
        """How long it may wait in the pool; the provider's own `Keep-Alive: timeout=` may lower it."""
        self.session_kept = False
        """The pool's note that this connection's TLS session is remembered."""
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._listener: Listener | None = None
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._parser: HttpResponseParser | None = HttpResponseParser(_Callbacks(self, self._headers, self._pieces))
        self._head: dict[bytes, bytes] | None = None
        self._status = 0
        self._phase = _IDLE
        self._complete = False
        self._reusable = False
        self._until_close = False
        self._used = False
        self._paused = False
        self._interim = 0
        self._around_bytes = 0
        self._heard = False
        self._heard_at_s = now_s

    # What the exchange calls

    def send(self, listener: Listener, *parts: bytes) -> None:
        """Send one complete request (head and body) and give the answer to `listener`."""
        assert self._listener is None, "one exchange at a time"
        transport = self._transport
        if transport is None or transport.is_closing():
            # The provider closed between taking and sending. Not from inside send: callers are not prepared.
            asyncio.get_running_loop().call_soon(listener.on_broken, BrokenKind.STALE)
            return
        self._listener = listener
        self._phase = _WAITING
        self._heard = True
        if len(parts) == 1:
            transport.write(parts[0])
        else:
            transport.writelines(parts)

    def pause_reading(self) -> None:
        """Stop reading the answer; the provider is held back by TCP. No deadline runs meanwhile."""
        if self._transport is not None and self._listener is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`; harmless when nothing is paused."""
        if self._paused:
            self._paused = False
            if self._transport is not None:
                self._transport.resume_reading()

    def abort(self) -> None:
        """Close now, without another word to the listener. Safe at any time, any number of times."""
        self._listener = None
        transport = self._transport
        if transport is not None:
            self._owner.discard(self)
            transport.abort()

    # What the pool calls

    @property
    def is_usable(self) -> bool:
        """Open and without an exchange."""
        transport = self._transport
        return self._listener is None and transport is not None and not transport.is_closing()

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._transport

    def fail(self, kind: BrokenKind) -> None:
        """Close now and tell the listener, if there is one."""
        listener = self._listener
        self.abort()
        if listener is not None:
            listener.on_broken(kind)

    def sweep(self, now_s: float) -> None:
        """Close the connection when its deadline has passed. Silence is measured from sweep to sweep."""
        if self._heard or self._paused:
            self._heard = False
            self._heard_at_s = now_s
            return
        if now_s - self._heard_at_s >= self._patience_s():
            self.fail(BrokenKind.TIMEOUT)

    def _patience_s(self) -> float:
        phase = self._phase
        if phase == _BODY:
            return self.timeouts.idle_s
        return self.idle_s if phase == _IDLE else self.timeouts.head_s

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        listener = self._listener
        parser = self._parser
        if listener is None or parser is None:
            # Nobody asked for these bytes: an answer to the next request could be forged with them.
            self.abort()
            return
        fault: BrokenKind | None = None
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            fault = BrokenKind.GARBAGE
        if self._phase == _WAITING and not self._take_head(listener, len(data), fault):
            return
        pieces = self._pieces
        if pieces:
            self._phase = _BODY
            self._heard = True
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._around_bytes = 0
            listener.on_bytes(body)
            if self._listener is not listener:
                return
        elif not self._complete:
            self._around_bytes += len(data)
            if self._around_bytes > HEAD_BYTES_MAX:
                self.fail(BrokenKind.TOO_LARGE)
                return
        if self._complete:
            self._finish(fault)
        elif fault is not None:
            self.fail(fault)

    def eof_received(self) -> None:
        """An orderly end: it completes a body that lasts until the close. The transport closes itself."""
        if self._listener is not None and self._until_close and self._phase >= _HEADED:
            self._finish(None)
        else:
            self.fail(self._loss())

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(self._loss())
        self._transport = None
        self._owner.gone(self)
        # The parser holds our bound methods: without this the pair waits for the cycle collector.
        self._parser = None

    def _loss(self) -> BrokenKind:
        if self._phase >= _HEADED:
            return BrokenKind.CUT
        if self._used and not self._around_bytes:
            return BrokenKind.STALE
        return BrokenKind.RESET

    # What the parser calls, inside feed_data

    def on_message_begin(self) -> None:
        if self._complete:
            raise _Refused  # Bytes behind the end of the answer: the connection is of no further use.

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        raw = self._headers
        if status < 200:
            raw.clear()
            self._interim += 1
            if status == 101 or self._interim > INTERIM_RESPONSES_MAX:
                raise _Refused
            return
        headers = {name.lower(): value for name, value in raw.items()}
        raw.clear()
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            raise _Refused
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in _IDENTITY:
            raise _Refused  # Asked for identity; nothing here inflates.
        if status > STATUS_MAX:
            raise _Refused
        self._status = status
        self._head = headers
        self._reusable = self._parser.should_keep_alive()
        keep_alive = headers.get(b"keep-alive")
        if keep_alive is not None:
            self.idle_s = min(self._owner.idle_s, _announced_idle_s(keep_alive))
        self._until_close = coding is None and b"content-length" not in headers and status not in _NO_BODY_STATUSES

    def on_message_complete(self) -> None:
        if self._head is not None or self._phase > _WAITING:
            self._complete = True

    # The course of one answer

    def _take_head(self, listener: Listener, read_bytes: int, fault: BrokenKind | None) -> bool:
        """Hand the head over when it is whole; False: the caller has nothing more to do with this read."""
        head = self._head
        if head is None:
            self._around_bytes += read_bytes
            if fault is not None:
                self.fail(fault)
            elif self._around_bytes > HEAD_BYTES_MAX or len(self._headers) > HEADER_COUNT_MAX:
                self.fail(BrokenKind.TOO_LARGE)
            return False
        if len(head) > HEADER_COUNT_MAX or (
            # The sum is only worth its time when the read was large enough to break the limit.
            self._around_bytes + read_bytes > HEAD_BYTES_MAX
            and self._around_bytes + sum(map(len, head)) + sum(map(len, head.values())) > HEAD_BYTES_MAX
        ):
            self.fail(BrokenKind.TOO_LARGE)
            return False
        self._head = None
        self._phase = _HEADED
        self._around_bytes = 0
        listener.on_response(self._status, head)
        return self._listener is listener

    def _finish(self, fault: BrokenKind | None) -> None:
        """The body is complete: give the connection back or close it, then tell the listener."""
        listener = self._listener
        transport = self._transport
        assert listener is not None
        assert transport is not None
        if (
            self._reusable
            and fault is None
            and not transport.is_closing()
            # An answer that came before the whole request had been taken leaves half a request in the pipe.
            and not transport.get_write_buffer_size()
        ):
            self._listener = None
            self._phase = _IDLE
            self._complete = False
            self._interim = 0
            self._around_bytes = 0
            self._headers.clear()
            self._used = True
            self._heard = True
            if self._paused:
                self.resume_reading()
            self._owner.release(self)
        else:
            self.abort()
        listener.on_end()
