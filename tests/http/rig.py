"""A gateway on a real loopback socket, in the test's own loop, between a scripted provider and a raw client."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from dragonfly.admission.grants import Candidate, Offer
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import IdSource
from dragonfly.core.secrets import Secret
from dragonfly.gateway.gateway import Gateway, Reader
from dragonfly.gateway.server import FastLane, lane
from dragonfly.providers.channel import Channel, ChannelTimeouts, Origin
from dragonfly.providers.pool import Pool, PoolLimits
from dragonfly.settings import LimitSettings, Settings, UpstreamSettings
from tests.fakes.purse import COMPLETION_NUSD, KEY, PROMPT_NUSD, FakePurse
from tests.fakes.upstream import FakeUpstream, Received, Script

MODEL = "deepseek/deepseek-flash"
WAIT_S = 60.0
UPSTREAM_SECRET = "upstream-secret-7f3a"


async def no_asgi(scope: Any, receive: Any, send: Any) -> None:
    """What stands where the control plane is, in production."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"control plane"})


def channel(upstream: FakeUpstream, name: str = "deepseek", **changes: Any) -> Channel:
    values: dict[str, Any] = {
        "id": f"{MODEL}@{name}",
        "provider": name,
        "upstream_model": "deepseek-v4-flash",
        "origin": Origin(upstream.host, upstream.port, tls=False),
        "path": "/chat/completions",
        "credential": Secret(UPSTREAM_SECRET),
        "dialect": "deepseek",
    }
    return Channel(**{**values, **changes})


def candidate(of: Channel, prompt_nusd: int = PROMPT_NUSD) -> Candidate:
    return Candidate(of, object(), prompt_nusd * 1_000_000, COMPLETION_NUSD * 1_000_000)


def offer(*channels: Channel, model: str = MODEL) -> Offer:
    return Offer(model, tuple(candidate(one) for one in channels), 128_000, 8_192)


@dataclass
class Answer:
    """One response as the client saw it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])

    def events(self) -> list[Any]:
        """The JSON values of a stream's data events; [DONE] as a string."""
        values: list[Any] = []
        for event in self.body.split(b"\n\n"):
            for line in event.split(b"\n"):
                if line.startswith(b"data: "):
                    data = line[6:]
                    values.append("[DONE]" if data == b"[DONE]" else json.loads(data))
        return values


class Client:
    """One client connection, raw: writes bytes, parses answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._begin()

    def _begin(self) -> None:
        self.answer = Answer()
        self._done: list[Answer] = []
        self._parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.answer = Answer()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answer.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self.answer.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.answer.body += data

    def on_message_complete(self) -> None:
        if self.answer.status >= 200:
            self.answer.complete = True
            self._done.append(self.answer)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self) -> Answer:
        """The next whole answer; one that was cut comes back with `complete` False."""
        async with asyncio.timeout(WAIT_S):
            while not self._done:
                data = await self.reader.read(65_536)
                if not data:
                    return self.answer
                self._parser.feed_data(data)
        return self._done.pop(0)

    async def receive_until(self, needle: bytes) -> Answer:
        """What has come of an answer once its body holds `needle`."""
        async with asyncio.timeout(WAIT_S):
            while needle not in self.answer.body:
                data = await self.reader.read(65_536)
                assert data, "the answer ended before"
                self._parser.feed_data(data)
        return self.answer

    async def closed(self) -> bool:
        """Waits until the server has closed; whatever else comes is dropped."""
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65_536):
                    pass
        return True

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


def chat_body(**fields: Any) -> bytes:
    values: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    return json.dumps({**values, **fields}, separators=(",", ":")).encode()


def post(body: bytes, path: str = "/v1/chat/completions", key: bytes = KEY, headers: Sequence[str] = ()) -> bytes:
    """A POST as bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Authorization: Bearer {key.decode()}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Rig:
    """Gateway, provider and purse together.

    `channels` makes the offers from the upstream; without it there is one DeepSeek channel.
    """

    def __init__(
        self,
        scripts: Sequence[Script] | Callable[[Received], Script],
        *,
        limits: LimitSettings | None = None,
        upstream_settings: UpstreamSettings | None = None,
        timeouts: ChannelTimeouts | None = None,
        offers: Callable[[FakeUpstream], dict[str, Offer]] | None = None,
        readers: dict[str, Reader] | None = None,
        allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        self.upstream = FakeUpstream(scripts)
        quick = upstream_settings or UpstreamSettings(backoff_s=0.001, backoff_max_s=0.002)
        self.settings = Settings(limits=limits or LimitSettings(), upstream=quick)
        if allowed_hosts:
            server = self.settings.server.model_copy(update={"allowed_hosts": allowed_hosts})
            self.settings = self.settings.model_copy(update={"server": server})
        self._timeouts = timeouts or ChannelTimeouts()
        self._offers = offers
        self._readers = readers or {}
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.clients: list[Client] = []

    async def __aenter__(self) -> Self:
        await self.upstream.__aenter__()
        offers = self._offers or (lambda up: {MODEL: offer(channel(up, timeouts=self._timeouts))})
        self.purse = FakePurse(offers(self.upstream))
        clock = SystemClock()
        self.pool = Pool(limits=PoolLimits(), clock=clock)
        self.gateway = Gateway(
            settings=self.settings,
            gate=self.purse,
            pool=self.pool,
            clock=clock,
            ids=IdSource(),
            readers=self._readers,
            report=lambda event, **values: self.reports.append((event, values)),
        )
        config = Config(
            no_asgi, http=lane(self.gateway), ws="none", lifespan="off", log_config=None, access_log=False
        )
        config.load()
        self.state = ServerState()
        loop = asyncio.get_running_loop()
        make = lane(self.gateway)
        self.server = await loop.create_server(
            lambda: make(config=config, server_state=self.state, app_state={}), "127.0.0.1", 0
        )
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        self.server.close()
        await self.gateway.stop()
        await self.pool.close()
        await self.upstream.__aexit__()

    @property
    def lanes(self) -> set[FastLane]:
        return self.gateway.lanes

    async def connect(self, receive_buffer: int | None = None) -> Client:
        """A client connection; a small `receive_buffer` makes the kernel take little for one that does not read."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        client = Client(*await asyncio.open_connection(sock=sock, limit=2**20))
        self.clients.append(client)
        return client

    async def ask(self, body: bytes | None = None, **options: Any) -> Answer:
        """One request on a connection of its own."""
        client = await self.connect()
        client.send(post(chat_body() if body is None else body, **options))
        answer = await client.receive()
        client.close()
        return answer

    async def send_raw(self, data: bytes) -> Answer:
        client = await self.connect()
        client.send(data)
        return await client.receive()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Turns the loop, bounded, until a condition holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0)

    async def at_rest(self) -> None:
        """Waits until nothing is open any more, then checks that nothing leaked."""
        async with asyncio.timeout(WAIT_S):
            while self.gateway.exchanges or self.gateway.tasks:
                await asyncio.sleep(0)
        assert len(self.purse.settlements) == self.purse.granted, "every grant is settled"
        assert all(health.open == 0 for health in self.gateway.board.channels.values()), "no channel counts a request"
        assert self.gateway.body_bytes_open == self.gateway.stranger_bytes_open == 0
