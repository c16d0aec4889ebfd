"""A worker that dies by `kill -9` in the middle of settling: nothing acknowledged is lost, nothing charged twice.

The full run is this file with more kills: `KILLS=200 python -m pytest tests/store/test_kill.py`.
"""

import contextlib
import multiprocessing
import os
import random

import pytest
from sqlalchemy import Engine, func, select

from dragonfly.admission.queries import beats_of_workers
from dragonfly.admission.verify import verify
from dragonfly.infra.database import read
from dragonfly.ledger.queries import wallet_of
from dragonfly.usage.tables import usage
from tests.factories import Customer, MovableClock, make_customer
from tests.store.desk import WAIT_S, running_desk
from tests.store.settling_process import main

KILLS = int(os.environ.get("KILLS", "20"))
SECONDS_PER_KILL = 5
ACKNOWLEDGED_MAX = 150
"""Before a kill; the number is random, so kills meet every phase of a batch."""


class Victim:
    """A worker's process and what it told."""

    def __init__(self, url: str, secret: bytes, seed: int) -> None:
        # A server process imports everything once; each victim is a fork of it.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([main.__module__])
        self._told, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=main, args=(url, secret, seed, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def acknowledged_until_killed(self, count: int) -> dict[str, int]:
        """Costs by request id: `count` of them, and what else was told before the kill took effect."""
        costs: dict[str, int] = {}
        try:
            while len(costs) < count:
                assert self._told.poll(WAIT_S), "the worker tells its charges"
                request_id, cost = self._told.recv()
                costs[request_id] = cost
        finally:
            self._process.kill()
        self._process.join(WAIT_S)
        with contextlib.suppress(EOFError, OSError):
            while self._told.poll(0):
                request_id, cost = self._told.recv()
                costs[request_id] = cost
        self._told.close()
        return costs


def stored_costs(engine: Engine, request_ids: list[str]) -> dict[str, int]:
    with read(engine) as connection:
        wanted = select(usage.c.request_id, usage.c.cost_nusd).where(usage.c.request_id.in_(request_ids))
        return {row.request_id: row.cost_nusd for row in connection.execute(wanted)}


def check_books(engine: Engine, customer: Customer, credited_nusd: int) -> None:
    with read(engine) as connection:  # one snapshot: the next worker is running already
        assert verify(connection).findings == ()
        charged = connection.execute(select(func.sum(usage.c.cost_nusd))).scalar_one() or 0
        wallet = wallet_of(connection, customer.account_id)
    assert wallet is not None
    assert (wallet.charged_nusd, wallet.balance_nusd) == (charged, credited_nusd - charged)


@pytest.mark.slow
@pytest.mark.timeout(60 + KILLS * SECONDS_PER_KILL)
async def test_killed_workers_lose_and_double_nothing(url: str, engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="50")
    source = random.Random(KILLS)
    acknowledged = 0
    following = Victim(url, alice.secret, 0)
    for number in range(KILLS):
        victim, following = following, Victim(url, alice.secret, number + 1)
        costs = victim.acknowledged_until_killed(source.randrange(ACKNOWLEDGED_MAX))
        acknowledged += len(costs)
        assert stored_costs(engine, list(costs)) == costs
        check_books(engine, alice, 50_000_000_000)
    following.acknowledged_until_killed(1)
    assert acknowledged > KILLS
    async with running_desk(engine, clock) as sweeper:
        await sweeper.gate.sweep()
        clock.move(15.0)
        await sweeper.gate.beat()
        await sweeper.gate.sweep()
        assert sweeper.wallet(alice).leased_nusd == 0
        check_books(engine, alice, 50_000_000_000)
        with read(engine) as connection:
            assert [worker.id for worker in beats_of_workers(connection)] == [sweeper.gate.worker_id]
