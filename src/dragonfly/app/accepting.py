"""How several workers share one listening socket: whoever has the fewest connections takes the next one.

The kernel wakes every worker for a new connection, and the one that is awake first would take most of them for as
long as they live: of 64 connections one worker of four got all. A socket per worker (SO_REUSEPORT) spreads them by a
hash, evenly on average only, and what waits at a worker that dies is lost. Here a worker that has more connections
than another one leaves the next to it, for a few milliseconds; after that it takes it all the same, because the other
one may be busy. What waits belongs to the socket, which outlives every worker.
"""

import asyncio
import mmap
import socket
import struct
from collections.abc import Callable

UNEVEN_MAX = 1
"""Connections that a worker may have beyond the one with the fewest before it leaves the next to others …"""
UNEVEN_SHARE = 0.1
"""… or this share of the fewest, if that is more."""
LEAVE_S = 0.003
"""How long a connection is left to others."""
NO_RESOURCES_S = 0.5
"""After a failure to accept, e.g. without descriptors."""

_COUNT = struct.Struct("=q")


class Tally:
    """How many connections each worker has open, in memory that the processes share. Each writes its own number."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._shared = mmap.mmap(-1, workers * _COUNT.size)

    def put(self, worker: int, connections: int) -> None:
        _COUNT.pack_into(self._shared, worker * _COUNT.size, connections)

    def fewest_of_others(self, worker: int) -> int:
        """The smallest number that another worker has."""
        counts = _COUNT.iter_unpack(self._shared[: self._workers * _COUNT.size])
        return min(int(count) for number, (count,) in enumerate(counts) if number != worker)


class Share:
    """One worker's part of the tally."""

    def __init__(self, tally: Tally, worker: int) -> None:
        self._tally = tally
        self._worker = worker

    def put(self, connections: int) -> None:
        self._tally.put(self._worker, connections)

    def is_exceeded(self, connections: int) -> bool:
        """Somebody else should take the next one."""
        fewest = self._tally.fewest_of_others(self._worker)
        return connections > fewest + max(UNEVEN_MAX, int(fewest * UNEVEN_SHARE))


class SharedListener:
    """Accepts from `bound`, which is listening in other processes too. uvicorn ends it as one of its servers."""

    def __init__(
        self,
        bound: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        share: Share,
        connections: Callable[[], int],
        *,
        backlog: int,
    ) -> None:
        self._bound = bound
        self._protocol = protocol
        self._share = share
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._was_left = False
        self._is_closed = False
        self._greeting: set[asyncio.Task[None]] = set()
        bound.setblocking(False)
        bound.listen(backlog)
        self._listen()

    def close(self) -> None:
        """Accepts no more; what waits is for the others."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._bound.fileno())
        if self._again is not None:
            self._again.cancel()

    async def wait_closed(self) -> None:
        """There is nothing to wait for: connections are closed by their owner."""

    def _listen(self) -> None:
        self._again = None
        self._loop.add_reader(self._bound.fileno(), self._accept)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._bound.fileno())
        self._again = self._loop.call_later(seconds, self._listen)

    def _accept(self) -> None:
        connections = self._connections() + len(self._greeting)
        self._share.put(connections)
        if not self._was_left and self._share.is_exceeded(connections):
            self._was_left = True
            self._pause(LEAVE_S)
            return
        self._was_left = False
        try:
            accepted, _ = self._bound.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker, or the client left
        except OSError:
            self._pause(NO_RESOURCES_S)
            return
        self._share.put(connections + 1)
        task = self._loop.create_task(self._greet(accepted))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _greet(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            transport, _ = await self._loop.connect_accepted_socket(self._protocol, accepted)
        except OSError:
            accepted.close()
            return
        if self._is_closed:
            transport.close()  # as an idle connection at the stop, which had no chance to know of this one
