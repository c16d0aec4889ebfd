"""A connection's surroundings without a socket: a transport that remembers, and an owner that keeps."""

import asyncio
from typing import cast

from dragonfly.providers.connection import Connection


class StillTransport(asyncio.Transport):
    """A transport that only remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.unsent_bytes = 0
        self.is_open = True
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def writelines(self, list_of_data: object) -> None:
        self.sent += b"".join(cast("list[bytes]", list_of_data))

    def is_closing(self) -> bool:
        return not self.is_open

    def abort(self) -> None:
        self.is_open = False

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class Shelf:
    """Stands for the pool: keeps what is released."""

    idle_s = 30.0

    def __init__(self) -> None:
        self.released: list[Connection] = []
        self.discarded: list[Connection] = []

    def opened(self, connection: Connection) -> None:
        pass

    def gone(self, connection: Connection) -> None:
        pass

    def release(self, connection: Connection) -> None:
        assert connection.is_usable
        self.released.append(connection)

    def discard(self, connection: Connection) -> None:
        self.discarded.append(connection)
