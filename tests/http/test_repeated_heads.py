"""A head that comes again is read as the parser reads it, whatever stands around and behind it."""

import asyncio
import itertools
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from bench.inmemory import Wire
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import IdSource
from dragonfly.gateway.gateway import Gateway
from dragonfly.gateway.receiving import Receiver, Request
from dragonfly.providers.pool import Pool
from dragonfly.settings import LimitSettings, Settings
from tests.fakes.purse import KEY, FakePurse
from tests.http.rig import no_asgi

BODY_BYTES_MAX = 1_024
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + KEY + b"\r\n"


def head(length: object, *, name: bytes = b"Content-Length", more: bytes = b"") -> bytes:
    return HEAD + name + b": " + str(length).encode() + b"\r\n" + more + b"\r\n"


def whole(body: bytes, **changes: Any) -> bytes:
    return head(len(body), **changes) + body


class Recorder(Receiver):
    """Takes requests and answers none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requests: list[Request] = []

    @property
    def is_answering(self) -> bool:
        return False

    def request_complete(self, request: Request) -> None:
        self.served_in_read += 1
        self.requests.append(request)


def received(reads: list[bytes], *, parses_all: bool = False) -> Recorder:
    """What comes of these reads on one connection; `parses_all`: without the memory of heads."""
    settings = Settings(limits=LimitSettings(body_bytes_max=BODY_BYTES_MAX))
    gateway = Gateway(
        settings=settings,
        gate=FakePurse({}),
        pool=cast(Pool, None),
        clock=SystemClock(),
        ids=IdSource(),
        readers={},
        report=lambda event, /, **values: None,
    )
    protocol = type("Bound", (Recorder,), {"gateway": gateway})
    config = Config(no_asgi, http=protocol, ws="none", lifespan="off", log_config=None)
    config.load()
    loop = asyncio.new_event_loop()
    try:
        one: Recorder = protocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
        one.has_streamed = parses_all
        one.connection_made(Wire())
        for read in reads:
            one.data_received(read)
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    return one


def told(one: Recorder) -> list[tuple[Any, ...]]:
    """What matters of the requests; the memory keeps the length of the first one among the headers."""
    return [
        (r.method, r.path, r.query, {**r.headers, b"content-length": None}, r.body, r.keep_alive, r.chunked)
        for r in one.requests
    ]


def test_the_same_head_with_other_lengths_is_not_parsed_again() -> None:
    one = received([whole(b"{}"), whole(b'{"a":1}'), whole(b"")])

    assert [request.body for request in one.requests] == [b"{}", b'{"a":1}', b""]
    assert one.begun_in_read == 1, "the parser has seen the first one"
    assert one.requests[0].headers is one.requests[2].headers


@pytest.mark.parametrize(
    "again",
    [
        head(7) + b'{"a":1',
        head(7) + b'{"a":1} ',
        head(2) + b"{}" + whole(b"{}"),
        head("2 ") + b"{}",
        head("+2") + b"{}",
        head("002") + b"{}",
        head("") + b"{}",
        head("2, 2") + b"{}",
        head(2, more=b"Content-Length: 2\r\n") + b"{}",
        head(2, more=b"Transfer-Encoding: chunked\r\n") + b"2\r\n{}\r\n0\r\n\r\n",
        head(2, more=b"Expect: 100-continue\r\n") + b"{}",
        head(BODY_BYTES_MAX + 1) + b"x" * (BODY_BYTES_MAX + 1),
        whole(b"{}").replace(b"/v1/chat", b"/v1/shat"),
        whole(b"{}").replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"\r\n" + whole(b"{}"),
        whole(b"{}") + b"\r\n",
    ],
)
def test_what_only_looks_like_the_same_head_is_the_parsers(again: bytes) -> None:
    reads = [whole(b"{}"), again, whole(b"[]")]

    mine, parsers = received(reads), received(reads, parses_all=True)

    assert told(mine) == told(parsers)
    assert (mine.discarding > 0) == (parsers.discarding > 0)


@pytest.mark.parametrize(
    "first",
    [
        whole(b"{}", more=b"Connection: close\r\n"),
        whole(b"{}", more=b"Upgrade: h2c\r\nConnection: Upgrade\r\n"),
        whole(b"{}", more=b"Expect: 100-continue\r\n"),
        whole(b"{}") + b"\r\n",
        b"\r\n\r\n" + whole(b"{}"),
        whole(b"\r\n\r\n"),
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" + whole(b"{}"),
        whole(b"{}") * 2,
    ],
)
def test_nothing_is_kept_of_a_read_that_is_not_one_plain_request(first: bytes) -> None:
    one = received([first])
    assert one.repeated is None or first == whole(b"\r\n\r\n")


def test_nothing_is_kept_of_a_request_that_came_in_pieces() -> None:
    request = whole(b'{"a": "\r\n\r\n"}')
    for cut in range(1, len(request)):
        assert received([request[:cut], request[cut:]]).repeated is None


PIECES = st.sampled_from(
    [
        whole(b"{}"),
        whole(b'{"a":1}'),
        whole(b"\r\n\r\n"),
        whole(whole(b"{}")),
        whole(b"{}", more=b"X: y\r\n"),
        whole(b"{}", name=b"content-length"),
        head(4),
        head(4, more=b"Transfer-Encoding: chunked\r\n"),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"{}",
        b"0",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
)


@given(pieces=st.lists(PIECES, min_size=1, max_size=6), cuts=st.lists(st.integers(0, 900), max_size=4))
def test_whatever_comes_in_whatever_reads_is_received_as_without_the_memory(
    pieces: list[bytes], cuts: list[int]
) -> None:
    """Reads end where a piece does, or anywhere."""
    data = b"".join(pieces)
    ends = {sum(map(len, pieces[:number])) for number in range(1, len(pieces) + 1)}
    places = sorted({0, *ends, *(cut for cut in cuts if cut < len(data))})
    reads = [data[start:end] for start, end in itertools.pairwise(places)]

    mine, parsers = received(reads), received(reads, parses_all=True)

    assert told(mine) == told(parsers)
    assert (mine.discarding > 0) == (parsers.discarding > 0)
