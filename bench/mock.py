"""The mock upstream: a raw uvloop protocol that answers chat completions as the named mode says.

`python -m bench.mock --port 9000`. It serves one kind of question besides: any GET is answered with
`{"lateness": …}`, the histogram of how late paced chunks were written (nanoseconds, bucket and count).
"""

import argparse
import asyncio
import gc
import json
import re
import ssl
import time
from functools import lru_cache, partial
from typing import cast

import httptools
import uvloop

from bench.answers import StreamAnswer, at_once, fault_answer, json_body, stream_answer, whole
from bench.histogram import Histogram
from bench.modes import Fault, Kind, Mode, UnknownMode, mode_of
from bench.timer import FineTimer

BACKLOG = 8_192
REQUEST_BYTES_MAX = 64 * 1024 * 1024
RENDERED_MODES_MAX = 256
_MODE = re.compile(rb'"(?:model|user)"\s*:\s*"[^"\\]{0,100}?(bench-[^"\\]{1,100})"')
_NOT_A_MODE = whole(500, "application/json", b'{"error":{"message":"This model is no mode of the mock upstream."}}')


class Answers:
    """Rendered answers by model name, made at first use."""

    def __init__(self) -> None:
        self.mode = lru_cache(RENDERED_MODES_MAX)(mode_of)
        self.stream = lru_cache(RENDERED_MODES_MAX)(stream_answer)
        self.at_once = lru_cache(RENDERED_MODES_MAX)(self._at_once)
        self.json = lru_cache(RENDERED_MODES_MAX)(self._json)

    def _at_once(self, mode: Mode) -> bytes:
        return at_once(mode, self.stream(mode))

    def _json(self, mode: Mode) -> bytes:
        return whole(200, "application/json", json_body(mode.name, mode.answer_bytes or 230))


class MockUpstream(asyncio.Protocol):
    """One connection. A request is read whole, its mode found, its answer written or scheduled."""

    def __init__(self, answers: Answers, timer: FineTimer, lateness: Histogram) -> None:
        self._answers = answers
        self._timer = timer
        self._lateness = lateness
        self._parser = httptools.HttpRequestParser(self)
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self._writing = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        self._writing = False
        del self._parser  # it refers back to this object, and the collector is off

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > REQUEST_BYTES_MAX:
            self._transport.abort()
            return
        self._parts.append(data)

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            rows = json.dumps({"lateness": self._lateness.rows()}).encode()
            self._transport.write(whole(200, "application/json", rows))
            return
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._body_bytes = [], 0
        match = _MODE.search(body)
        try:
            mode = self._answers.mode(match[1].decode() if match else "")
        except UnknownMode:
            self._transport.write(_NOT_A_MODE)
            return
        self._answer(mode)

    def _answer(self, mode: Mode) -> None:
        match mode.kind:
            case Kind.JSON:
                self._transport.write(self._answers.json(mode))
            case Kind.LATE:
                due_ns = time.monotonic_ns() + mode.latency_ms * 1_000_000
                self._timer.at(due_ns, partial(self._write_late, self._answers.json(mode)))
            case Kind.SSE | Kind.OPENAI if mode.gap_us == 0:
                self._transport.write(self._answers.at_once(mode))
            case Kind.SSE | Kind.OPENAI:
                self._start_stream(mode, self._answers.stream(mode))
            case Kind.FAULT:
                assert mode.fault is not None
                self._fail(mode.fault)

    def _write_late(self, answer: bytes, due_ns: int) -> None:
        if self._writing:
            self._transport.write(answer)

    def _start_stream(self, mode: Mode, answer: StreamAnswer) -> None:
        now_ns = time.monotonic_ns()
        self._transport.write(answer.opening + answer.chunk(0, now_ns))
        gap_ns = mode.gap_us * 1_000
        self._timer.at(now_ns + gap_ns, partial(self._next_chunk, answer, 1, mode.chunks, gap_ns))

    def _next_chunk(self, answer: StreamAnswer, number: int, chunks: int, gap_ns: int, due_ns: int) -> None:
        # Deadlines are absolute: a late chunk does not make the following ones late.
        if not self._writing:
            return
        now_ns = time.monotonic_ns()
        self._lateness.record(now_ns - due_ns)
        if number == chunks:
            self._transport.write(answer.ending)
            return
        self._transport.write(answer.chunk(number, now_ns))
        self._timer.at(due_ns + gap_ns, partial(self._next_chunk, answer, number + 1, chunks, gap_ns))

    def _fail(self, fault: Fault) -> None:
        answer = fault_answer(fault)
        if answer:
            self._transport.write(answer)
        if fault is Fault.RESET:
            self._transport.abort()
        elif fault in (Fault.CUT, Fault.GARBAGE):
            self._transport.close()


async def serve(host: str, port: int, tls: ssl.SSLContext | None = None) -> asyncio.Server:
    """Listen; the server's first socket has the port when `port` is 0. Closed by the caller."""
    loop = asyncio.get_running_loop()
    answers, timer, lateness = Answers(), FineTimer(loop), Histogram()

    def connection() -> MockUpstream:
        return MockUpstream(answers, timer, lateness)

    return await loop.create_server(connection, host, port, backlog=BACKLOG, ssl=tls)


async def _main(host: str, port: int, certificate: str) -> None:
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    server = await serve(host, port, tls)
    gc.freeze()
    gc.disable()
    async with server:
        await server.serve_forever()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The benchmark's mock upstream.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--certificate", default="", help="PEM file with certificate and key: speak TLS")
    arguments = parser.parse_args()
    uvloop.run(_main(arguments.host, arguments.port, arguments.certificate))


if __name__ == "__main__":
    main()
