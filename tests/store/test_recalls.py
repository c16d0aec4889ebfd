"""Money that one worker has leased and does not need serves the requests of the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import Engine

from dragonfly.admission.errors import InsufficientBalance
from dragonfly.core.clock import SystemClock
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.changes import current_revision
from dragonfly.infra.database import read
from dragonfly.keys.rules import KeyLimits
from dragonfly.settings import AdmissionSettings
from dragonfly.worker import gate_jobs, run_jobs
from tests.factories import give_credit, make_customer
from tests.store.desk import Desk, make_log, running_desk
from tests.store.test_gate import HOLD_NUSD

LARGE = AdmissionSettings(lease_nusd=4 * HOLD_NUSD, heartbeat_s=1, refresh_s=0.05, requests_per_minute=0)
"""Leases much more than one request needs, and keeps it for long."""
LITTLE = TokenUsage(1, 1)
DESKS = 3


def revision_of(engine: Engine) -> int:
    with read(engine) as connection:
        return current_revision(connection)


@asynccontextmanager
async def several_desks(engine: Engine) -> AsyncIterator[list[Desk]]:
    """Workers with all their recurring jobs."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(running_desk(engine, clock, LARGE)) for _ in range(DESKS)]
        log = make_log()
        jobs = [asyncio.create_task(run_jobs(gate_jobs(desk.gate, LARGE, log), log)) for desk in desks]
        try:
            yield desks
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)


@pytest.mark.parametrize("limits", [None, KeyLimits(spend_limit_nusd=10 * HOLD_NUSD)], ids=["account", "key"])
async def test_one_who_asks_here_and_there_is_never_refused_while_the_money_is_there(
    engine: Engine, limits: KeyLimits | None
) -> None:
    alice = make_customer(engine, nusd=HOLD_NUSD // 2, limits=limits)
    give_credit(engine, alice.account_id, nusd=HOLD_NUSD - HOLD_NUSD // 2 + 100_000)
    async with several_desks(engine) as desks:
        for turn in range(2 * DESKS):
            desk = desks[turn % DESKS]
            await desk.settle_durably(await desk.admit(await desk.ask(alice)), LITTLE)
        assert desks[0].wallet(alice).charged_nusd == 2 * DESKS * 3_000
        assert desks[0].verify().is_clean


async def test_a_dear_request_gets_what_large_leases_of_others_hold_for_nobody(engine: Engine) -> None:
    alice = make_customer(engine, nusd=40 * HOLD_NUSD)
    async with several_desks(engine) as desks:
        for desk in desks[1:]:
            await desk.settle_durably(await desk.admit(await desk.ask(alice)), LITTLE)
        wallet = desks[0].wallet(alice)
        assert wallet.leased_nusd > 2 * HOLD_NUSD
        dear = await desks[0].ask(alice, body_bytes=2 * (wallet.balance_nusd - 300_000) // 1_000)
        grant = await desks[0].admit(dear)
        assert grant.hold_nusd > wallet.balance_nusd - wallet.leased_nusd
        await desks[0].settle_durably(grant, LITTLE)
        assert desks[0].verify().is_clean


async def test_what_open_requests_hold_is_not_taken_from_them(engine: Engine) -> None:
    alice = make_customer(engine, nusd=3 * HOLD_NUSD)
    async with several_desks(engine) as desks:
        held = [await desk.admit(await desk.ask(alice)) for desk in desks]
        with pytest.raises(InsufficientBalance) as refused:
            await desks[0].admit(await desks[0].ask(alice))
        assert refused.value.available_nusd == 0
        for desk, grant in zip(desks, held, strict=True):
            await desk.settle_durably(grant, TokenUsage(64, 100))
        assert desks[0].wallet(alice).balance_nusd == 0
        assert desks[0].verify().is_clean


async def test_nobody_is_asked_for_money_that_nobody_has(engine: Engine) -> None:
    bob = make_customer(engine, name="Bob", nusd=HOLD_NUSD - 1)
    async with several_desks(engine) as desks:
        before = revision_of(engine)
        for desk in desks:
            with pytest.raises(InsufficientBalance):
                await desk.admit(await desk.ask(bob))
        assert revision_of(engine) == before
