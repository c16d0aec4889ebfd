"""A canary in every place where a request, a key or a provider can put text: none of it is found anywhere after."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import Close, Received, Script, Send, answer, stream
from tests.http.rig import Answer, post
from tests.system.program import Program
from tests.system.served import DONE, USAGE, Served, chat, event, served, whole

CANARY = "CANARY9d3e"
UPSTREAM_KEY = "upstream-CANARY9d3e"
HEADERS = tuple(
    f"{name}: {CANARY}"
    for name in (
        "User-Agent",
        "Referer",
        "HTTP-Referer",
        "X-Title",
        "Cookie",
        "X-Request-Id",
        "X-Forwarded-For",
        "Idempotency-Key",
        "OpenAI-Organization",
        "traceparent",
        "X-Whatever",
    )
)
EVERYWHERE: dict[str, Any] = {
    "messages": [{"role": "user", "content": CANARY, "name": CANARY}],
    "tools": [{"type": "function", "function": {"name": CANARY, "description": CANARY, "parameters": {CANARY: {}}}}],
    "response_format": {"type": "json_schema", "json_schema": {"name": CANARY, "schema": {}}},
    "metadata": {CANARY: CANARY},
    "user": CANARY,
    "stop": [CANARY],
    CANARY: CANARY,
}
WELL, REFUSES, BREAKS = ("well", "odd"), ("wrong", "broken", "teapot", "garbage"), ("error", "cut")


def provider(request: Received) -> Script:
    """Repeats what it got wherever it can. `seed` says how it behaves."""
    body = json.loads(request.body)
    wish, echo = body["seed"], f"{CANARY} {request.body.decode()} {request.headers}"
    error = {"error": {"message": echo, "type": CANARY, "code": CANARY, "param": CANARY}}
    match wish:
        case "wrong":
            return answer(400, json.dumps(error).encode(), x_request_id=CANARY)
        case "broken":
            return answer(500, f"<html>{echo}</html>".encode(), f"text/html; a={CANARY}")
        case "teapot":
            return answer(418, json.dumps(error).encode())
        case "garbage":
            return [Send(echo.encode()), Close()]
    finish = CANARY if wish == "odd" else "stop"
    usage = {**USAGE, CANARY: CANARY, "prompt_tokens_details": {CANARY: CANARY}}
    if not body.get("stream"):
        text = whole(CANARY, usage=usage, system_fingerprint=CANARY, model=CANARY)
        return answer(200, text.replace(b'"stop"', f'"{finish}"'.encode()))
    if wish == "cut":
        return [*stream([event(CANARY)], ended=False), Close()]
    last = b"data: " + json.dumps(error).encode() + b"\n\n" if wish == "error" else event("", finish, usage=usage)
    return stream([event(CANARY), last, DONE])


def hostile(one: Served) -> Iterator[bytes]:
    """Requests that are refused, with the canary in every part."""
    for fields in (
        {"model": CANARY},
        {"models": [CANARY], "model": CANARY},
        {"provider": {"only": [CANARY]}},
        {"provider": {CANARY: 1}},
        {"max_tokens": CANARY},
        {"stream": CANARY},
    ):
        yield post(chat(**fields), key=one.key.encode())
    for body in (CANARY, f'{{"{CANARY}":1,"{CANARY}":2}}', f'{{"messages":"{CANARY}"}}'):
        yield post(body.encode(), key=one.key.encode())
    yield post(chat(), key=CANARY.encode())
    yield post(chat(), key=f"sk-df-{CANARY:x<59}".encode())
    yield post(chat(), path=f"/v1/{CANARY}", key=one.key.encode())
    yield post(chat(), path=f"/{CANARY}?{CANARY}={CANARY}")
    yield post(chat(), key=one.key.encode(), headers=[f"Content-Encoding: {CANARY}"])
    yield post(chat(), key=one.key.encode(), headers=[f"Expect: {CANARY}"])
    for target in (f"/v1/models/{CANARY}/{CANARY}", f"/v1/models?{CANARY}=1", f"/v1/generation?id={CANARY}"):
        yield f"GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {one.key}\r\n\r\n".encode()
    yield f"GET /v1/key?api_key={one.key} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    yield f"GET /{CANARY} HTTP/1.1\r\nHost: {CANARY}\r\nHost: b\r\n\r\n".encode()
    yield f"CONNECT {CANARY}:443 HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    yield f"{CANARY} / HTTP/1.1\r\n\r\n".encode()


async def ask_once_it_is_well(one: Served, body: bytes) -> Answer:
    """The answer, after the channel has come back from what the last request did to it."""
    async with asyncio.timeout(10):
        while (got := await one.ask(body, headers=HEADERS)).status == 503:
            assert CANARY not in got.body.decode() + str(got.headers)
            await asyncio.sleep(0.05)
    return got


async def ask_in_every_way(one: Served) -> None:
    for streamed in (False, True):
        for seed in (*WELL, *REFUSES, *(BREAKS if streamed else ())):
            got = await ask_once_it_is_well(one, chat(**EVERYWHERE, seed=seed, stream=streamed))
            heads = str(got.headers)
            if seed in REFUSES:
                assert got.status >= 400
                heads += got.body.decode()
            if seed == "error":
                assert got.events()[-2]["error"]["code"] == "upstream_error"
                heads += json.dumps(got.events()[-2])
            assert CANARY not in heads
    for request in hostile(one):
        got = await one.send(request)
        assert got.status >= 400
        assert CANARY not in str(got.headers) + got.body.decode()
        assert one.key not in str(got.headers) + got.body.decode()


def where_found(words: tuple[str, ...], folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.rglob("*")):
        text = path.read_bytes() if path.is_file() else b""
        found += [f"{path.name}: {word}" for word in words if re.search(word.encode(), text, re.IGNORECASE)]
    return found


@pytest.mark.parametrize("end", ["a stop", "a kill"])
async def test_nothing_that_was_said_is_found_in_files_logs_or_errors(program: Program, end: str) -> None:
    quick = "[upstream]\nattempts_max = 2\nbackoff_s = 0.01\ncooldown_s = 0.01\ncooldown_max_s = 0.02\n"
    async with served(program, provider, upstream_key=UPSTREAM_KEY, more=quick) as one:
        await ask_in_every_way(one)
        assert one.running is not None
        if end == "a stop":
            assert await one.running.stop() == 0
        else:
            await one.kill()
            output, errors = await one.running.process.communicate()
            one.running.output += output.decode()
            one.running.errors += errors.decode()
            assert (one.database.with_name(one.database.name + "-wal")).stat().st_size > 0
        secret = one.key[len("sk-df-") + 10 :]
        words = (CANARY, one.key, secret, UPSTREAM_KEY)
        assert where_found(words, one.database.parent) == []
        said = one.running.output + one.running.errors
        assert "channel_failed" in said, "there was something to say"
        assert "crashed" not in said
        for word in words:
            assert word.lower() not in said.lower()
