"""One exchange without sockets: the test plays connection and client. For properties over many splits."""

import time
from typing import Any

from dragonfly.admission.grants import Candidate, Offer
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import IdSource, RequestId
from dragonfly.core.secrets import Secret
from dragonfly.gateway.attempt import Attempt
from dragonfly.gateway.exchange import Exchange
from dragonfly.gateway.gateway import Gateway
from dragonfly.gateway.receiving import Request
from dragonfly.providers.channel import Channel, Origin
from dragonfly.settings import Settings, UpstreamSettings
from tests.fakes.purse import COMPLETION_NUSD, KEY, PROMPT_NUSD, FakePurse
from tests.http.rig import MODEL, chat_body

SSE = {b"content-type": b"text/event-stream; charset=utf-8"}


class DeskConnection:
    """Takes what is sent; counts what is asked of it."""

    def __init__(self) -> None:
        self.sent = b""
        self.aborted = False
        self.paused = False

    def send(self, listener: object, *parts: bytes) -> None:
        self.sent += b"".join(parts)

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class DeskPool:
    """Hands out one connection after the other."""

    def __init__(self) -> None:
        self.connections: list[DeskConnection] = []

    def take(self, channel: Channel) -> DeskConnection:
        self.connections.append(DeskConnection())
        return self.connections[-1]


class DeskLane:
    """Takes the answer."""

    def __init__(self) -> None:
        self.head = b""
        self.pieces: list[bytes] = []
        self.ended = False
        self.whole: tuple[int, bytes] | None = None

    def send_head(self, head: bytes) -> None:
        assert not self.head, "one head"
        self.head = head

    def send_piece(self, data: bytes) -> None:
        assert data, "an empty piece would end a chunked body"
        assert self.head
        assert not self.ended
        self.pieces.append(data)

    def send_end(self, data: bytes) -> None:
        assert not self.ended
        self.pieces.append(data)
        self.ended = True

    def send_whole(self, status: int, head: bytes, body: bytes) -> None:
        assert self.whole is None
        self.whole = (status, body)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class Desk:
    """Begins a streamed request at once; `attempt` is the one that listens to the provider."""

    def __init__(self, *, dialect: str = "deepseek", comments: bool = True, **fields: Any) -> None:
        channel = Channel(
            id=f"{MODEL}@{dialect}",
            provider=dialect,
            upstream_model="upstream-model",
            origin=Origin("127.0.0.1", 1, tls=False),
            path="/chat/completions",
            credential=Secret("none"),
            dialect=dialect,
        )
        candidate = Candidate(channel, object(), PROMPT_NUSD * 1_000_000, COMPLETION_NUSD * 1_000_000)
        self.purse = FakePurse({MODEL: Offer(MODEL, (candidate,), 128_000, 8_192)}, holding=True)
        self.pool = DeskPool()
        self.lane = DeskLane()
        clock = SystemClock()
        self.gateway = Gateway(
            settings=Settings(upstream=UpstreamSettings(attempts_max=1)),
            gate=self.purse,
            pool=self.pool,  # type: ignore[arg-type]
            clock=clock,
            ids=IdSource(),
            readers={},
            report=lambda event, **values: None,
        )
        body = chat_body(**{"stream": True, **fields})
        headers = {} if comments else {b"x-dragonfly-comments": b"off"}
        request = Request(b"POST", b"/v1/chat/completions", b"", headers, body, True, True, time.monotonic_ns())
        self.exchange = Exchange(self.gateway, self.lane, RequestId("gen-desk"), request)  # type: ignore[arg-type]
        self.exchange.begin(KEY, request)

    @property
    def attempt(self) -> Attempt:
        assert self.exchange.attempt is not None
        return self.exchange.attempt

    def play(self, *pieces: bytes, end: bool = True) -> bytes:
        """The provider's stream in these reads; what the client got."""
        attempt = self.attempt
        attempt.on_response(200, SSE)
        for piece in pieces:
            if piece:
                attempt.on_bytes(piece)
        if end:
            attempt.on_end()
        self.purse.release()
        return self.lane.body
