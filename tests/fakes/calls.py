"""Calls through the real pool, for tests: a listener that keeps what it is told, and channels for fakes."""

import asyncio
from dataclasses import replace

from dragonfly.core.clock import SystemClock
from dragonfly.core.secrets import Secret
from dragonfly.providers.channel import Channel, ChannelTimeouts, Origin
from dragonfly.providers.connection import BrokenKind, Connection
from dragonfly.providers.pool import Pool, PoolLimits
from dragonfly.providers.requests import request_head

WAIT_S = 60.0


class MovedClock:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.at_s = 1_000.0

    def now_ns(self) -> int:
        return int(self.at_s * 1e9)

    def monotonic_s(self) -> float:
        return self.at_s


class Collector:
    """A listener that remembers. `end` is "end", or the kind of break."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.reads: list[bytes] = []
        self.end: str | BrokenKind | None = None
        self.calls: list[str] = []
        self._changed = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(self.reads)

    def on_response(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._note("response")
        self.status, self.headers = status, headers

    def on_bytes(self, data: bytes) -> None:
        assert data, "an empty read was handed over"
        self._note("bytes")
        self.reads.append(data)

    def on_end(self) -> None:
        self._note("end")
        self.end = "end"

    def on_broken(self, kind: BrokenKind) -> None:
        self._note("broken")
        self.end = kind

    async def ended(self) -> str | BrokenKind:
        async with asyncio.timeout(WAIT_S):
            while self.end is None:
                self._changed.clear()
                await self._changed.wait()
        return self.end

    async def has_read(self, count: int = 1) -> None:
        """Waits until so many body bytes have come."""
        async with asyncio.timeout(WAIT_S):
            while len(self.body) < count:
                self._changed.clear()
                await self._changed.wait()

    def _note(self, call: str) -> None:
        assert self.end is None, f"{call} after the end"
        self.calls.append(call)
        self._changed.set()


def channel_to(port: int, *, host: str = "127.0.0.1", tls: bool = False, **timeouts: float) -> Channel:
    """A channel to a server of the test's."""
    return Channel(
        id=f"test/model@{host}:{port}",
        provider="test",
        upstream_model="model",
        origin=Origin(host, port, tls),
        path="/v1/chat/completions",
        credential=Secret("test-credential"),
        dialect="openai",
        timeouts=replace(ChannelTimeouts(), **timeouts),
    )


def new_pool(**limits: float) -> Pool:
    """A pool with the machine's clock; keyword arguments change PoolLimits."""
    return Pool(limits=PoolLimits(**limits), clock=SystemClock())  # type: ignore[arg-type]


async def start_call(pool: Pool, channel: Channel, body: bytes = b"{}") -> tuple[Connection, Collector]:
    """Send one request, on a warm connection where there is one."""
    connection = pool.take(channel) or await pool.dial(channel)
    collector = Collector()
    connection.send(collector, request_head(channel, len(body), streamed=False), body)
    return connection, collector


async def call(pool: Pool, channel: Channel, body: bytes = b"{}") -> Collector:
    """Send one request and wait for its end."""
    _, collector = await start_call(pool, channel, body)
    await collector.ended()
    return collector
