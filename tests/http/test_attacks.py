"""Answers and requests that nobody sends by accident: odd framing from providers, mutated bodies and heads."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dragonfly.providers.channel import Origin
from tests.fakes.purse import KEY
from tests.fakes.upstream import STREAM_HEAD, Close, Gate, HalfClose, Script, Send, answer, chunk, head, stream
from tests.http.rig import MODEL, Rig, channel, chat_body, offer, post
from tests.http.test_client_leaves import ANSWER, STREAMED
from tests.http.test_heads import WHOLE

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(WHOLE)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GOOD = OK + LENGTH + b"\r\n" + WHOLE
IN_CHUNKS = chunk(WHOLE) + chunk(b"")
FORGED = OK + b"Content-Length: 15\r\n\r\n" + b'{"forged":true}'
SECOND = WHOLE.replace(b"Hi", b"Second")
MANY_HEADERS = b"".join(b"X-%d: v\r\n" % number for number in range(200))


def sent(*pieces: bytes) -> Script:
    return [Send(piece) for piece in pieces]


READ: dict[str, Script] = {
    "100 before the answer": sent(b"HTTP/1.1 100 Continue\r\n\r\n", GOOD),
    "several 103": sent(HINTS * 3, GOOD),
    "no reason phrase": sent(GOOD.replace(b" OK", b"", 1)),
    "trailers": sent(OK + CHUNKED + b"\r\n" + chunk(WHOLE) + b"0\r\nX: y\r\n\r\n"),
    "chunk extensions": sent(OK + CHUNKED + b"\r\n" + IN_CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)),
    "blank lines before it": sent(OK + CHUNKED + b"\r\n" + chunk(b"\n") * 9, IN_CHUNKS),
    "HTTP/1.0": [Send((OK + b"\r\n" + WHOLE).replace(b"1.1", b"1.0", 1)), Close()],
    "until the end": [Send(OK + b"\r\n" + WHOLE), HalfClose()],
    "a second answer behind it": sent(GOOD + FORGED),
    "a second answer a moment later": sent(GOOD, FORGED),
}
REFUSED: dict[str, Script] = {
    "too many 103": sent(HINTS * 9, GOOD),
    "101": sent(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw"),
    "204": sent(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": sent(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "a redirect": sent(head(302, [("location", "http://elsewhere.example/"), ("content-length", "0")])),
    "status 999": sent(b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"),
    "coding and length": sent(OK + CHUNKED + LENGTH + b"\r\n" + IN_CHUNKS),
    "two lengths": sent(OK + b"Content-Length: 5\r\n" + LENGTH + b"\r\n" + WHOLE),
    "gzip": sent(OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde"),
    "bare line feeds": sent((OK + LENGTH).replace(b"\r\n", b"\n") + b"\n" + WHOLE),
    "200 headers": sent(OK + LENGTH + MANY_HEADERS + b"\r\n" + WHOLE),
}


@pytest.mark.parametrize("name", READ)
async def test_odd_framing_that_has_one_meaning_is_read(name: str) -> None:
    async with Rig([READ[name], answer(200, SECOND)]) as rig:
        got = await rig.ask()
        assert got.status == 200
        assert got.json()["choices"][0]["message"]["content"] == "Hi"
        following = await rig.ask()
        assert following.json()["choices"][0]["message"]["content"] == "Second", "nothing of the first is left"
        await rig.at_rest()


@pytest.mark.parametrize("name", REFUSED)
async def test_odd_framing_that_has_two_meanings_or_none_is_the_providers_error(name: str) -> None:
    async with Rig(lambda request: scripts.pop() if scripts else answer(200, SECOND)) as rig:
        scripts: list[Script] = [REFUSED[name]] * rig.settings.upstream.attempts_max
        got = await rig.ask()
        assert (got.status, got.code) == (502, "upstream_error")
        assert not scripts, "every try met it"
        following = await rig.ask()
        assert following.json()["choices"][0]["message"]["content"] == "Second"
        assert rig.purse.settlements[0].charge.cost_nusd == 0
        await rig.at_rest()


@pytest.mark.parametrize(
    "script",
    [
        sent(STREAM_HEAD.replace(b"text/event-stream", b"Text/Event-Stream"), *map(chunk, ANSWER), chunk(b"")),
        sent(HINTS * 2, STREAM_HEAD, *map(chunk, ANSWER), chunk(b"")),
        [Send(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + b"".join(ANSWER)), Close()],
    ],
    ids=["letter case", "interim answers", "HTTP/1.0"],
)
async def test_odd_framing_of_a_stream_changes_nothing_for_the_client(script: Script) -> None:
    async with Rig([script]) as rig:
        got = await rig.ask(STREAMED)
        assert got.complete
        assert got.body == b"".join(ANSWER)
        await rig.at_rest()


@contextlib.asynccontextmanager
async def hasty(script: Script) -> AsyncIterator[Origin]:
    """A provider that answers each head at once and never reads the body behind it."""
    done = Gate()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for step in script:
            assert isinstance(step, Send)
            writer.write(step.data)
        await done.wait()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=4_096)
    try:
        yield Origin("127.0.0.1", server.sockets[0].getsockname()[1], tls=False)
    finally:
        done.open()
        server.close()


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_comes_before_the_request_was_taken_is_passed_on(streamed: bool) -> None:
    body = chat_body(stream=streamed).replace(b"Hello", b"x" * 8_000_000)
    script = stream(ANSWER) if streamed else answer(413, b'{"error":{"message":"too large"}}')
    async with (
        hasty(script) as origin,
        Rig([answer(200, WHOLE)], offers=lambda up: {MODEL: offer(channel(up, origin=origin))}) as rig,
    ):
        for _ in range(2):
            got = await rig.ask(body)
            if streamed:
                assert got.body == b"".join(ANSWER)
            else:
                assert (got.status, got.code) == (413, "request_too_large")
            assert not rig.pool.idle_connections(origin), "half a request is still in the pipe"
        await rig.at_rest()


BODIES = 1_500
HEADS = 400
NAMES = """\
model
models
messages
stream
stream_options
max_tokens
max_completion_tokens
n
provider
usage
user
tools
\\u006dodel
\\ud800
é""".splitlines()
VALUES = """\
null
true
0
-1
1
1.0
1e2
1E400
""
"x"
"\\ud800"
"\\u0000"
"~"
[]
[null]
[ ]
[1,2]
{}
{"a":1,"a":2}
{"include_usage":true}
{"include_usage":1}
{"\\ud800":1}
"deepseek/deepseek-flash"
["deepseek/deepseek-flash"]
["deepseek/deepseek-flash","\\ud800"]
{"order":["a"]}
{"order":null}
{"only":["deepseek"],"only":["x"]}
{"max_price":{"prompt":1e400}}
{"include":true}""".splitlines()
LONG_VALUES = ["9" * 5_000, "[" * 1_200 + "]" * 1_200, '{"a":' * 50 + "1" + "}" * 50]
BLANKS = ("", "", "", " ", "\n\t", "\r\n  ")


def mutated_body(draws: random.Random) -> bytes:
    """A request in which fields are added, repeated, replaced, spaced, and now and then a byte is another."""
    fields = [("model", f'"{MODEL}"'), ("messages", '[{"role":"user","content":"x"}]')]
    fields += [(draws.choice(NAMES), draws.choice(VALUES + LONG_VALUES)) for _ in range(draws.randrange(4))]
    fields = [(name, draws.choice(VALUES) if draws.random() < 0.05 else value) for name, value in fields]
    draws.shuffle(fields)
    pieces = [
        f'{draws.choice(BLANKS)}"{name}"{draws.choice(BLANKS)}:{draws.choice(BLANKS)}{value}{draws.choice(BLANKS)}'
        for name, value in fields
    ]
    body = bytearray(("{" + ",".join(pieces) + "}").encode().replace(b"~", b"\xff"))
    if draws.random() < 0.05:
        body[draws.randrange(len(body))] = draws.randrange(256)
    return bytes(body)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; fails for a name that stands twice."""
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names)
    return dict(pairs)


async def test_mutated_bodies_are_refused_or_forwarded_with_one_value_for_each_name() -> None:
    draws = random.Random(11)
    statuses: dict[int, int] = {}
    async with Rig(lambda request: stream(ANSWER) if b'"stream":true' in request.body else answer(200, WHOLE)) as rig:
        for _ in range(BODIES):
            got = await rig.ask(mutated_body(draws))
            statuses[got.status] = statuses.get(got.status, 0) + 1
            assert got.complete
            assert got.status in (200, 400, 404) or got.code == "no_route"
        assert not rig.reports
        assert len(rig.upstream.requests) == statuses[200] > BODIES // 10
        assert statuses[400] > BODIES // 10
        for request in rig.upstream.requests:
            top = json.loads(request.body, object_pairs_hook=lambda pairs: pairs, parse_int=str)
            fields = once(top)
            assert fields["model"] == "deepseek-v4-flash"
            assert not {"models", "provider", "usage"} & set(fields)
        await rig.at_rest()


LINES = """\
POST /v1/chat/completions HTTP/1.1
GET /v1/none HTTP/1.1
GET /healthz HTTP/1.1
OPTIONS * HTTP/1.1
GET http://a/healthz HTTP/1.1
CONNECT a:1 HTTP/1.1
HEAD /v1/none HTTP/1.0""".splitlines()
HEADERS = f"""\
Host: a
Host: [::1]:80
Host:
Content-Length: 3
Content-Length: 0
Transfer-Encoding: chunked
Transfer-Encoding: Chunked
Connection: close
Connection: keep-alive
Connection: upgrade, close
Upgrade: h2c
Upgrade: websocket
HTTP2-Settings: x
Expect: 100-continue
Authorization: Bearer {KEY.decode()}
Authorization: Basic x
Authorization:
X-Api-Key: \xff
Content-Type: application/json; charset=\xff
Content-Type:
Content-Encoding:
Trailer: x
TE: trailers""".splitlines()
REST = (
    b"",
    b"{}x",
    b"3\r\n{}x\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"3;a=b\r\nabc\r\n0\r\nHost: evil\r\n\r\n",
    b"fffffffffffffffff\r\n",
    b"-1\r\n",
    b"3\nabc\n0\n\n",
    b"GET /v1/none HTTP/1.1\r\nHost: a\r\n\r\n",
)


def mutated_head(draws: random.Random) -> bytes:
    lines = [draws.choice(LINES), *draws.sample(HEADERS, draws.randrange(1, 7))]
    raw = bytearray("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + draws.choice(REST))
    if draws.random() < 0.2:
        raw[draws.randrange(len(raw))] = draws.randrange(256)
    return bytes(raw)


async def test_mutated_heads_crash_nothing_and_leave_nothing() -> None:
    draws = random.Random(12)
    async with Rig([answer(200, WHOLE)]) as rig:
        for _ in range(HEADS):
            client = await rig.connect()
            client.send(mutated_head(draws))
            # A second, good request behind it: answered, or the connection is closed, but never left hanging.
            client.send(post(chat_body(), headers=["Connection: close"]))
            client.writer.write_eof()
            assert await client.closed()
        assert not [report for report in rig.reports if "crashed" in report[0]]
        async with asyncio.timeout(60):
            while rig.lanes:
                await asyncio.sleep(0.01)
        await rig.at_rest()
