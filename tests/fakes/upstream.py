"""A scriptable provider on a real loopback socket, for everybody's tests.

    async with FakeUpstream([answer(200, b'{"ok":true}')]) as upstream:
        ...                                  # send requests to upstream.port
        request = await upstream.received()  # what arrived

Each request that arrives takes the next script (the last one repeats); a script is a list of steps. Nothing
here waits for time: a script that must wait waits for a gate or for the client to leave.

The server reads without pause, so that it notices a client that leaves; give `reading` a closed gate to hold
reading back. It runs in the test's own loop, or in a thread of its own (`FakeUpstream.in_thread`).
"""

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import httptools

RECV_BYTES = 256 * 1024
WAIT_S = 60.0
"""No wait inside a test is longer."""


class Gate:
    """Something a script waits for until the test opens it. Safe to open from another thread."""

    def __init__(self, *, is_open: bool = False) -> None:
        self._open = threading.Event()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        if is_open:
            self._open.set()

    def open(self) -> None:
        self._open.set()
        for loop, event in tuple(self._waiters):
            loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        event = asyncio.Event()
        self._waiters.append((asyncio.get_running_loop(), event))
        if self._open.is_set():
            return
        await event.wait()


@dataclass(frozen=True)
class Send:
    """These bytes, in one write."""

    data: bytes


@dataclass(frozen=True)
class Split:
    """These bytes in several writes, cut at the positions; the loop turns between two writes."""

    data: bytes
    at: Sequence[int] = ()
    """Empty: byte by byte."""


@dataclass(frozen=True)
class WaitFor:
    """Goes on when the test opens the gate; ends the connection when the client leaves before."""

    gate: Gate


@dataclass(frozen=True)
class Stall:
    """Says nothing until the client leaves."""


@dataclass(frozen=True)
class Close:
    """Ends the connection in order (FIN)."""


@dataclass(frozen=True)
class HalfClose:
    """Ends our sending; goes on reading."""


@dataclass(frozen=True)
class Reset:
    """Ends the connection with a RST."""


@dataclass(frozen=True)
class Reached:
    """Opens a gate, to tell the test that the script has come to this point."""

    gate: Gate


Step = Send | Split | WaitFor | Stall | Close | HalfClose | Reset | Reached
Script = Sequence[Step]


@dataclass
class Received:
    """One request as it came."""

    method: str = ""
    target: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """As sent: order, case and repetitions kept."""
    body: bytes = b""
    connection: int = 0
    """Number of the connection, from 0."""

    def header(self, name: str) -> str:
        """The only value of a header; "" when it is missing."""
        values = [value for key, value in self.headers if key.lower() == name.lower().encode()]
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0].decode("latin-1") if values else ""


def head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    """A response head."""
    lines = [f"HTTP/1.1 {status} Fake", *(f"{name}: {value}" for name, value in headers)]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"


def chunk(data: bytes) -> bytes:
    """One HTTP chunk; b"" gives the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> list[Step]:
    """A whole answer with Content-Length; keyword `retry_after="3"` becomes the header `retry-after`."""
    extra = [(name.replace("_", "-"), value) for name, value in headers.items()]
    length = [("content-type", content_type), ("content-length", str(len(body)))]
    return [Send(head(status, [*length, *extra]) + body)]


STREAM_HEAD = head(200, [("content-type", "text/event-stream; charset=utf-8"), ("transfer-encoding", "chunked")])


def stream(pieces: Sequence[bytes], *, ended: bool = True) -> list[Step]:
    """A chunked event stream, one HTTP chunk and one write for each piece; without `ended`, no last chunk."""
    steps: list[Step] = [Send(STREAM_HEAD), *(Send(chunk(piece)) for piece in pieces)]
    return [*steps, Send(chunk(b""))] if ended else steps


def events(transcript: bytes) -> list[bytes]:
    """The events of a transcript with LF framing, each with its blank line."""
    return [event + b"\n\n" for event in transcript.split(b"\n\n") if event.strip(b"\n")]


def cut(steps: Script, at_byte: int, end: Step | None = None) -> list[Step]:
    """A script that sends only the first `at_byte` bytes of another, then closes (or does `end`)."""
    data = b"".join(step.data for step in steps if isinstance(step, Send | Split))
    return [Send(data[:at_byte]), end or Close()]


class _Connection:
    """One accepted socket: a reader that never waits for the script, and the script's runner."""

    def __init__(self, upstream: "FakeUpstream", sock: socket.socket, number: int) -> None:
        self._upstream = upstream
        self._sock = sock
        self._number = number
        self._requests: asyncio.Queue[Received | None] = asyncio.Queue()
        self._left = asyncio.Event()
        self._parser = httptools.HttpRequestParser(self)
        self._request = Received(connection=number)

    def on_url(self, url: bytes) -> None:
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self._request.body += data

    def on_message_complete(self) -> None:
        self._request.method = self._parser.get_method().decode()
        self._requests.put_nowait(self._request)
        self._request = Received(connection=self._number)

    async def run(self) -> None:
        reader = asyncio.create_task(self._read())
        try:
            while True:
                request = await self._requests.get()
                if request is None or not await self._play(self._upstream.next_script(request)):
                    return
        except (ConnectionError, BrokenPipeError):
            self._left.set()
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            self._sock.close()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        await self._upstream.reading.wait()
        with contextlib.suppress(OSError, httptools.HttpParserError):
            while data := await loop.sock_recv(self._sock, RECV_BYTES):
                self._parser.feed_data(data)
        self._left.set()
        self._upstream.client_left(self._number)
        self._requests.put_nowait(None)

    async def _play(self, script: Script) -> bool:
        """False when the connection has ended."""
        loop = asyncio.get_running_loop()
        for step in script:
            match step:
                case Send(data):
                    await loop.sock_sendall(self._sock, data)
                case Split(data, at):
                    await self._send_split(data, at)
                case WaitFor(gate):
                    if not await self._wait_for(gate):
                        return False
                case Stall():
                    await self._left.wait()
                    return False
                case Close():
                    return False
                case HalfClose():
                    self._sock.shutdown(socket.SHUT_WR)
                case Reset():
                    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return False
                case Reached(gate):
                    gate.open()
        return True

    async def _send_split(self, data: bytes, at: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        cuts = [0, *sorted(at), len(data)] if at else list(range(len(data) + 1))
        for start, end in itertools.pairwise(cuts):
            await loop.sock_sendall(self._sock, data[start:end])
            await asyncio.sleep(0)

    async def _wait_for(self, gate: Gate) -> bool:
        waits = [asyncio.create_task(gate.wait()), asyncio.create_task(self._left.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self._left.is_set()


class FakeUpstream:
    """The server. `scripts` may also be a function from the request to a script."""

    def __init__(
        self,
        scripts: Sequence[Script] | Callable[[Received], Script],
        *,
        reading: Gate | None = None,
        receive_buffer: int | None = None,
        send_buffer: int | None = None,
    ) -> None:
        self._scripts = scripts if callable(scripts) else list(scripts)
        self.reading = reading or Gate(is_open=True)
        self._receive_buffer = receive_buffer
        self._send_buffer = send_buffer
        self.host = "127.0.0.1"
        self.port = 0
        self.requests: list[Received] = []
        self.connections = 0
        """Accepted so far."""
        self.open_connections = 0
        self.departures = 0
        """Connections that the client ended (or broke)."""
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._listener = socket.socket()
        if self._receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        if self._send_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        self._listener.bind((self.host, 0))
        self._listener.listen(512)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()

    @classmethod
    @contextlib.contextmanager
    def in_thread(cls, scripts: Sequence[Script] | Callable[[Received], Script]) -> Iterator["FakeUpstream"]:
        """The same server with its own loop in a thread, for tests that drive real processes."""
        started: threading.Event = threading.Event()
        box: list[FakeUpstream] = []
        done = Gate()

        async def serve() -> None:
            async with cls(scripts) as upstream:
                box.append(upstream)
                started.set()
                await done.wait()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        try:
            assert started.wait(WAIT_S), "the fake upstream did not start"
            yield box[0]
        finally:
            done.open()
            thread.join(WAIT_S)

    async def received(self, count: int = 1) -> Received:
        """Waits until `count` requests have come in all; returns the last of them."""
        await self.until(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def until_left(self, count: int = 1) -> None:
        """Waits until the client has ended `count` connections in all."""
        await self.until(lambda: self.departures >= count)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits, bounded, until a condition on this server's counters holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def next_script(self, request: Received) -> Script:
        self.requests.append(request)
        self._changed.set()
        if callable(self._scripts):
            return self._scripts(request)
        return self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]

    def client_left(self, number: int) -> None:
        self.departures += 1
        self._changed.set()

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._listener)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number, self.connections = self.connections, self.connections + 1
            self.open_connections += 1
            self._changed.set()
            self._spawn(self._serve(_Connection(self, sock, number)))

    async def _serve(self, connection: _Connection) -> None:
        try:
            await connection.run()
        finally:
            self.open_connections -= 1
            self._changed.set()
