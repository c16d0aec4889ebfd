"""A line to PostgreSQL that stalls on command: it stands, takes what is sent, and nothing arrives on either side."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import make_url

PIECE_BYTES = 65_536
START_S_MAX = 10.0


class StallingLine:
    """Listens on a port of this machine and passes bytes to a server's Unix socket, unless it is stalled."""

    def __init__(self, server_url: str) -> None:
        folder = make_url(server_url).query["host"]
        assert isinstance(folder, str)
        self._socket = str(Path(folder) / ".s.PGSQL.5432")
        self._flows = asyncio.Event()
        self._flows.set()
        self._loop = asyncio.get_running_loop()
        self.port = 0
        self.opened = 0
        """Connections that were accepted so far."""

    def url(self, database_url: str) -> str:
        """The same database by way of this line."""
        direct = make_url(database_url)
        led = direct.set(host="127.0.0.1", port=self.port, query={})
        return led.render_as_string(hide_password=False)

    def stall(self) -> None:
        """From now on nothing passes; connections stay, and new ones are accepted."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def resume(self) -> None:
        """What was held back passes, and everything after it."""
        self._loop.call_soon_threadsafe(self._flows.set)

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.opened += 1
        await self._flows.wait()
        inner_reader, inner_writer = await asyncio.open_unix_connection(self._socket)
        await asyncio.gather(self._pass(reader, inner_writer), self._pass(inner_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(PIECE_BYTES):
                await self._flows.wait()
                writer.write(piece)
                await writer.drain()
        await self._flows.wait()
        writer.close()


@contextlib.contextmanager
def stalling_line(server_url: str) -> Iterator[StallingLine]:
    """A line with its own loop in a thread, for tests that drive real processes."""
    made: list[StallingLine] = []
    started, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        line = StallingLine(server_url)
        server = await asyncio.start_server(line.lead, "127.0.0.1", 0)
        line.port = server.sockets[0].getsockname()[1]
        made.append(line)
        started.set()
        await asyncio.to_thread(ended.wait)
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(START_S_MAX), "the line did not start"
    try:
        yield made[0]
    finally:
        ended.set()
        thread.join(START_S_MAX)
