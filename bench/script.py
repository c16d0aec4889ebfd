"""Exchanges on a lane in memory, step by step: what the counts of instructions are taken of."""

from bench.answers import StreamAnswer, json_body, stream_answer, whole
from bench.inmemory import LaneInMemory
from bench.modes import JSON_SMALL, STREAM_FAST, mode_of
from bench.prompts import Target, request
from dragonfly.core.clock import SystemClock

WARM_UP = 20
"""The gate learns from each of the first answers of a channel, later from few."""


class StandingClock:
    """Nothing passes while something is counted."""

    def __init__(self) -> None:
        self._now_ns = SystemClock().now_ns()

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_s(self) -> float:
        return 1_000.0


class Script:
    """The exchanges that are counted, on one lane with a warm connection and a known key."""

    def __init__(self, memory: LaneInMemory, key: str) -> None:
        target = Target("", "127.0.0.1", 9, headers=(("authorization", f"Bearer {key}"),), model_prefix="bench/")
        self._memory = memory
        self._request = request(target, JSON_SMALL)
        self._stream_request = request(target, STREAM_FAST)
        self._answer = whole(200, "application/json", json_body(JSON_SMALL, 230))
        self._stream: StreamAnswer = stream_answer(mode_of(STREAM_FAST))

    async def ask_whole(self) -> None:
        """One answer that is not streamed."""
        self._memory.send_request(self._request)
        await self._forwarded()
        self._memory.send_answer(self._answer)
        await self._answered(b"HTTP/1.1 200 OK\r\n", b"}")

    async def ask_stream(self, chunks: int) -> None:
        """One streamed answer, each chunk a read of its own."""
        self._memory.send_request(self._stream_request)
        await self._forwarded()
        self._memory.send_answer(self._stream.opening)
        for number in range(chunks):
            self._memory.send_answer(self._stream.chunk(number, 0))
        self._memory.send_answer(self._stream.ending)
        await self._answered(b"HTTP/1.1 200 OK\r\n", b"0\r\n\r\n")

    async def _forwarded(self) -> None:
        wire = self._memory.provider.wire
        while not wire.sent:
            wire.written.clear()
            await wire.written.wait()
        wire.take()

    async def _answered(self, begin: bytes, end: bytes) -> None:
        client = self._memory.client
        while self._memory.lane.active is not None:
            client.written.clear()
            await client.written.wait()
        written = client.take()
        assert written.startswith(begin)
        assert written.endswith(end), "the answer is complete"
