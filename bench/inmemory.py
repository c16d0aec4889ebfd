"""The fast lane without sockets: the real protocol, exchange, relay and provider connection between two lists.

Used to count what one request and one chunk execute, repeatably, without the kernel and without a clock.
"""

import asyncio
from typing import cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from dragonfly.core.clock import Clock
from dragonfly.core.ids import IdSource
from dragonfly.core.secrets import Secret
from dragonfly.gateway.gateway import Gateway
from dragonfly.gateway.purse import Purse
from dragonfly.gateway.server import FastLane, lane
from dragonfly.providers.channel import Channel, Origin
from dragonfly.providers.connection import Connection
from dragonfly.providers.pool import Pool
from dragonfly.settings import Settings


class Wire(asyncio.Transport):
    """A transport that keeps what is written and never blocks."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.sent: list[bytes] = []
        self.written = asyncio.Event()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(cast(bytes, data))
        self.written.set()

    def writelines(self, list_of_data: object) -> None:
        self.sent.extend(cast("list[bytes]", list_of_data))
        self.written.set()

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None:
        """Nothing is ever paused here."""

    def resume_reading(self) -> None:
        """See pause_reading."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever full here."""

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def take(self) -> bytes:
        """What was written since the last call."""
        data = b"".join(self.sent)
        self.sent.clear()
        return data


class WarmConnections:
    """Stands in for the pool: one connection, always warm, whose socket is a Wire."""

    idle_s = 3_600.0

    def __init__(self, channel: Channel) -> None:
        self.wire = Wire()
        self.connection = Connection(self, channel.timeouts, 0.0)
        self.connection.connection_made(self.wire)

    def take(self, channel: Channel) -> Connection | None:
        return self.connection

    def opened(self, connection: Connection) -> None:
        """Nothing to count."""

    def gone(self, connection: Connection) -> None:
        """Nothing to count."""

    def release(self, connection: Connection) -> None:
        """It stays the only one."""

    def discard(self, connection: Connection) -> None:
        raise AssertionError("nothing breaks here")


async def no_surface(scope: object, receive: object, send: object) -> None:
    """Stands where the control plane is; never reached."""
    raise AssertionError("only /v1 is asked here")


def bench_channel() -> Channel:
    """The channel that everything goes to."""
    return Channel(
        id="bench/model@mock",
        provider="mock",
        upstream_model="bench-json-230",
        origin=Origin("127.0.0.1", 9, tls=False),
        path="/v1/chat/completions",
        credential=Secret("bench"),
        dialect="deepseek",
    )


class LaneInMemory:
    """One client connection of a gateway whose provider and client are Wires."""

    def __init__(self, purse: Purse, channel: Channel, settings: Settings, clock: Clock) -> None:
        self.provider = WarmConnections(channel)
        self.gateway = Gateway(
            settings=settings,
            gate=purse,
            pool=cast(Pool, self.provider),
            clock=clock,
            ids=IdSource(),
            readers={},
            report=_refuse_reports,
        )
        protocol = lane(self.gateway)
        config = Config(no_surface, http=protocol, ws="none", lifespan="off", log_config=None)
        config.load()
        loop = asyncio.get_running_loop()
        self.lane: FastLane = protocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
        self.client = Wire()
        self.lane.connection_made(self.client)

    def send_request(self, request: bytes) -> None:
        """The client's bytes, as one read."""
        self.lane.data_received(request)

    def send_answer(self, data: bytes) -> None:
        """The provider's bytes, as one read."""
        self.provider.connection.data_received(data)


def _refuse_reports(event: str, /, **values: str | int | float) -> None:
    raise AssertionError(f"the lane reported {event}")
