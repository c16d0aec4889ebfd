"""What routes need of the process: the database from threads, the clock, ids."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, Engine
from starlette.requests import Request

from dragonfly.core.clock import Clock
from dragonfly.core.ids import IdSource
from dragonfly.infra.database import DatabaseThreads, read, write

T = TypeVar("T")
Moderate = Callable[[Request], object]
"""Called by routes that need no session: raises when the caller's network asks too much."""


@dataclass(frozen=True, slots=True)
class Desk:
    """One use case of a route is one call: `await desk.write(work)`, where `work` gets the connection."""

    engine: Engine
    threads: DatabaseThreads
    clock: Clock
    ids: IdSource

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` says of one snapshot. DatabaseAway."""

        def run() -> T:
            with read(self.engine) as connection:
                return work(connection)

        return await self.threads.run(run)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, after its transaction is committed. DatabaseAway."""

        def run() -> T:
            with write(self.engine) as connection:
                return work(connection)

        return await self.threads.run(run)


@dataclass(frozen=True, slots=True)
class RepeatStore:
    """Where `Repeats` remembers what idempotency keys were used for."""

    desk: Desk
    seal: Callable[[bytes], bytes]
    """A digest of 32 bytes under a secret of the installation: bodies may hold passwords, which must not be
    guessable from it."""
