"""The audit's own provider: it repeats what it was asked in whatever it says, and fails in every way.

The upstream model's name is the outcome that it gives. Loopback only; nothing is kept here either, but this is the
audit's process and not the one that is audited.
"""

import asyncio
import contextlib
import enum
import gzip
import json
import socket
import struct
from collections.abc import AsyncIterator
from typing import NamedTuple

BODY_BYTES_MAX = 64 * 1024 * 1024
HEAD_BYTES_MAX = 64 * 1024
LATE_S = 5.0
"""Longer than the audited instance waits."""
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Ending(enum.Enum):
    """How the provider answers; the value is the model to ask for."""

    COMPLETE = "complete"
    LENGTH = "length"
    FILTERED = "filtered"
    EMPTY = "empty"
    ODD_FINISH = "odd-finish"
    NO_USAGE = "no-usage"
    NO_DONE = "no-done"
    COMMENTS = "comments"
    BAD_REQUEST = "bad-request"
    BAD_CREDENTIAL = "bad-credential"
    NO_FUNDS = "no-funds"
    FORBIDDEN = "forbidden"
    UNKNOWN_MODEL = "unknown-model"
    TOO_LARGE = "too-large"
    UNPROCESSABLE = "unprocessable"
    RATE_LIMITED = "rate-limited"
    SERVER_ERROR = "server-error"
    OVERLOADED = "overloaded"
    REDIRECT = "redirect"
    TEAPOT = "teapot"
    ERROR_IN_ANSWER = "error-in-answer"
    CUT = "cut"
    RESET = "reset"
    NOT_HTTP = "not-http"
    NOT_JSON = "not-json"
    ENCODED = "encoded"
    WRONG_LENGTH = "wrong-length"
    LATE_HEAD = "late-head"
    LATE_REST = "late-rest"


_STATUS = {
    Ending.BAD_REQUEST: 400,
    Ending.BAD_CREDENTIAL: 401,
    Ending.NO_FUNDS: 402,
    Ending.FORBIDDEN: 403,
    Ending.UNKNOWN_MODEL: 404,
    Ending.TOO_LARGE: 413,
    Ending.TEAPOT: 418,
    Ending.UNPROCESSABLE: 422,
    Ending.RATE_LIMITED: 429,
    Ending.SERVER_ERROR: 500,
    Ending.OVERLOADED: 503,
    Ending.REDIRECT: 307,
}
_FINISH = {Ending.LENGTH: "length", Ending.FILTERED: "content_filter"}


class Asked(NamedTuple):
    """One request of the audited instance."""

    ending: Ending
    is_streamed: bool
    said: str
    """What is repeated: head and body."""


class EchoingProvider:
    """`async with EchoingProvider() as provider: … provider.port`."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "EchoingProvider":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=BODY_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            asked = await _read(reader)
            async for piece in _answer(asked, writer):
                writer.write(piece)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the audited instance left, which is one of the things to be seen, or the audit is over
        finally:
            self._open.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lengths = [line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
    body = await reader.readexactly(min(int(lengths[0]), BODY_BYTES_MAX) if lengths else 0)
    fields = json.loads(body)
    return Asked(Ending(fields["model"]), bool(fields.get("stream")), head + body.decode(errors="replace"))


async def _answer(asked: Asked, writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    """The bytes of an answer; the connection ends with them."""
    ending, said = asked.ending, asked.said
    error = json.dumps({"error": {"message": said, "type": said[-200:], "code": said[-200:], "param": said[-200:]}})
    if ending is Ending.LATE_HEAD:
        await asyncio.sleep(LATE_S)
    if ending is Ending.NOT_HTTP:
        yield said.encode()
    elif ending in _STATUS:
        kind = "text/html" if ending is Ending.SERVER_ERROR else "application/json"
        yield _whole(_STATUS[ending], error.encode(), kind, said)
    elif asked.is_streamed:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n" + _echo(said) + b"\r\n"
        async for piece in _events(asked, error):
            yield piece
        if ending is Ending.RESET:
            _reset(writer)
    else:
        async for piece in _body(asked, error):
            yield piece
        if ending is Ending.RESET:
            _reset(writer)


async def _events(asked: Asked, error: str) -> AsyncIterator[bytes]:
    """A stream. It has no length, so its end is the connection's."""
    ending = asked.ending
    if ending is Ending.COMMENTS:
        yield b": " + asked.said.replace("\r\n", " ").encode() + b"\n\n"
    if ending is not Ending.EMPTY:
        yield _event(_chunk(asked.said, None))
        yield _event(_chunk(asked.said[:4_000], None))
    if ending is Ending.LATE_REST:
        await asyncio.sleep(LATE_S)
    if ending in (Ending.CUT, Ending.RESET):
        return
    if ending is Ending.ERROR_IN_ANSWER:
        yield b"data: " + error.encode() + b"\n\n"
    elif ending is Ending.NOT_JSON:
        yield b"data: {" + asked.said.replace("\r\n", " ").encode() + b"\n\n"
    yield _event(_chunk("", _finish(asked), has_usage=ending is not Ending.NO_USAGE))
    if ending is not Ending.NO_DONE:
        yield b"data: [DONE]\n\n"


async def _body(asked: Asked, error: str) -> AsyncIterator[bytes]:
    """An answer in one piece, or what is left of one."""
    ending = asked.ending
    message = {"role": "assistant", "content": "" if ending is Ending.EMPTY else asked.said}
    fields: dict[str, object] = {**_FIXED, "object": "chat.completion", "system_fingerprint": asked.said[-60:]}
    fields["choices"] = [{"index": 0, "message": message, "finish_reason": _finish(asked)}]
    if ending is not Ending.NO_USAGE:
        fields["usage"] = _USAGE
    whole = json.dumps(fields).encode()
    if ending is Ending.ERROR_IN_ANSWER:
        whole = error.encode()
    elif ending is Ending.NOT_JSON:
        whole = b"{" + asked.said.encode()
    elif ending is Ending.ENCODED:
        yield _whole(200, gzip.compress(whole), "application/json\r\nContent-Encoding: gzip", asked.said)
        return
    answer = _whole(200, whole, "application/json", asked.said)
    if ending in (Ending.CUT, Ending.RESET, Ending.LATE_REST):
        yield answer[: len(answer) // 2]
        await asyncio.sleep(LATE_S if ending is Ending.LATE_REST else 0)
    elif ending is Ending.WRONG_LENGTH:
        yield answer + asked.said.encode()
    else:
        yield answer


_FIXED: dict[str, object] = {"id": "audit", "created": 1, "model": "audit"}
_USAGE = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}


def _finish(asked: Asked) -> str:
    odd = asked.said[-100:] if asked.ending is Ending.ODD_FINISH else "stop"
    return _FINISH.get(asked.ending, odd)


def _chunk(content: str, finish: str | None, *, has_usage: bool = False) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    fields = {**_FIXED, "object": "chat.completion.chunk", "choices": [choice]}
    return {**fields, "usage": _USAGE} if has_usage else fields


def _event(fields: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def _whole(status: int, body: bytes, kind: str, said: str) -> bytes:
    lines = f"HTTP/1.1 {status} {_echoed(said)}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return (
        lines.encode()
        + b"Connection: close\r\nLocation: /"
        + _echoed(said).encode()
        + b"\r\n"
        + _echo(said)
        + b"\r\n"
        + body
    )


def _echo(said: str) -> bytes:
    """Headers that repeat."""
    return f"X-Request-Id: {_echoed(said)}\r\nSet-Cookie: a={_echoed(said)}\r\nX-Echo: {_echoed(said)}\r\n".encode()


def _echoed(said: str) -> str:
    """The last letters and digits of what was said: bodies end with a canary."""
    return "".join(letter for letter in said[-400:] if letter.isascii() and letter.isalnum())


def _reset(writer: asyncio.StreamWriter) -> None:
    bare: socket.socket | None = writer.get_extra_info("socket")
    if bare is not None:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
