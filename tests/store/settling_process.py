"""What a worker that is to be killed does: it admits and settles, and tells each charge after its commit."""

import asyncio
import random
from multiprocessing.connection import Connection

from dragonfly.core.clock import SystemClock
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import open_engine
from dragonfly.worker import gate_jobs, run_jobs
from tests.store.desk import Desk, make_gate, make_log, make_settings

OPEN_AT_ONCE = 12
OUTCOMES = (Outcome.COMPLETE, Outcome.COMPLETE, Outcome.CLIENT_GONE, Outcome.UPSTREAM_BROKE)


async def request_after_request(desk: Desk, secret: bytes, source: random.Random, told: Connection) -> None:
    """Admits and settles for ever; `told` gets (request id, cost) of each durable charge, and never before."""
    while True:
        policy = await desk.gate.key(secret)
        grant = await desk.admit(await desk.ask(policy, output_tokens=source.choice((50, 100, 200))))
        for _ in range(source.randrange(5)):
            await asyncio.sleep(0)
        usage = TokenUsage(source.randrange(64), source.randrange(300))
        settlement = await desk.settle_durably(grant, usage, source.choice(OUTCOMES))
        told.send((grant.ask.request_id, settlement.charge.cost_nusd))


async def serve(url: str, secret: bytes, seed: int, told: Connection) -> None:
    """Serves as a worker does, with all its periodic jobs."""
    clock = SystemClock()
    engine = open_engine(url)
    settings = make_settings()
    gate = make_gate(engine, clock, settings)
    await gate.start()
    source = random.Random(seed)
    async with asyncio.TaskGroup() as group:
        group.create_task(run_jobs(gate_jobs(gate, settings, make_log()), make_log()))
        for _ in range(OPEN_AT_ONCE):
            group.create_task(request_after_request(Desk(gate, engine, clock), secret, source, told))


def main(url: str, secret: bytes, seed: int, told: Connection) -> None:
    """Never returns."""
    asyncio.run(serve(url, secret, seed, told))
