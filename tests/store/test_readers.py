"""What callers read about their requests, their key and their money."""

import json
from typing import Any

import pytest
from sqlalchemy import Engine

from dragonfly.api.credits import credits_reader
from dragonfly.api.generation import GenerationIdMissing, GenerationNotFound, generation_reader
from dragonfly.api.key import key_reader
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import DatabaseAway, DatabaseThreads, open_engine
from dragonfly.keys.rules import KeyLimits
from tests.factories import START_NS, MovableClock, make_customer
from tests.fakes.outage import Outage, Trouble
from tests.store.desk import MODEL, running_desk
from tests.store.test_gate import HOLD_NUSD


def data_of(body: bytes) -> dict[str, Any]:
    answer = json.loads(body)
    assert list(answer) == ["data"]
    data: dict[str, Any] = answer["data"]
    return data


async def test_a_generation_is_readable_when_its_charge_is_durable(engine: Engine, clock: MovableClock) -> None:
    alice, bob = make_customer(engine), make_customer(engine, name="Bob")
    threads = DatabaseThreads()
    read_generation = generation_reader(engine, threads)
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice))
        await desk.settle_durably(grant, TokenUsage(10, 20, 3, 0, 7))
        policies = [await desk.gate.key(customer.secret) for customer in (alice, bob)]
        query = {"id": grant.ask.request_id}
        shown = data_of(await read_generation(policies[0], {}, query))
        with pytest.raises(GenerationNotFound):
            await read_generation(policies[1], {}, query)
        with pytest.raises(GenerationNotFound):
            await read_generation(policies[0], {}, {"id": "gen-' OR 1=1"})
        with pytest.raises(GenerationIdMissing):
            await read_generation(policies[0], {}, {})
    assert (shown["id"], shown["model"], shown["provider_name"]) == (grant.ask.request_id, MODEL, "acme")
    assert (shown["cost"], shown["total_cost"], shown["usage"]) == ("0.00005", 0.00005, 0.00005)
    assert (shown["tokens_prompt"], shown["tokens_completion"]) == (10, 20)
    assert (shown["native_tokens_cached"], shown["native_tokens_reasoning"]) == (3, 7)
    assert (shown["latency"], shown["generation_time"]) == (1, 1)
    assert (shown["finish_reason"], shown["streamed"], shown["cancelled"]) == ("stop", True, False)
    assert shown["created_at"] == "2026-11-18T11:06:40Z"
    assert shown["cost_details"] == {"prompt": "0.00001", "completion": "0.00004", "price_version": "acme-1"}
    assert shown["http_referer"] is None
    threads.close()


async def test_a_cancelled_generation_says_so(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    threads = DatabaseThreads()
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice))
        await desk.settle_durably(grant, TokenUsage(10, 2), Outcome.CLIENT_GONE)
        body = await generation_reader(engine, threads)(grant.ask.key, {}, {"id": grant.ask.request_id})
    shown = data_of(body)
    assert (shown["cancelled"], shown["outcome"], shown["cost"]) == (True, "client_gone", "0.000014")
    threads.close()


async def test_credits_show_settled_held_and_available_apart(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine, usd="0.5")
    threads = DatabaseThreads()
    read_credits = credits_reader(engine, threads)
    async with running_desk(engine, clock) as desk:
        policy = await desk.gate.key(alice.secret)
        await desk.settle_durably(await desk.admit(await desk.ask(policy)), TokenUsage(64, 100))
        grant = await desk.admit(await desk.ask(policy))
        shown = data_of(await read_credits(policy, {}, {}))
        desk.settle(grant)
    assert HOLD_NUSD == 264_000
    assert (shown["total_credits"], shown["total_usage"]) == (0.5, 0.000264)
    assert (shown["credited"], shown["used"], shown["balance"]) == ("0.5", "0.000264", "0.499736")
    assert (shown["held"], shown["available"]) == ("0.000264", "0.499472")
    poor = make_customer(engine, name="Bob", usd="0")
    async with running_desk(engine, clock) as desk:
        shown = data_of(await read_credits(await desk.gate.key(poor.secret), {}, {}))
    assert (shown["balance"], shown["total_credits"]) == ("0", 0)
    threads.close()


async def test_a_key_shows_its_limits_and_its_running_totals(engine: Engine, clock: MovableClock) -> None:
    limits = KeyLimits(requests_per_minute=30, spend_limit_nusd=1_000_000, models=frozenset({MODEL}))
    alice = make_customer(engine, limits=limits)
    threads = DatabaseThreads()
    read_key = key_reader(engine, threads, clock)
    async with running_desk(engine, clock) as desk:
        policy = await desk.gate.key(alice.secret)
        await desk.settle_durably(await desk.admit(await desk.ask(policy)), TokenUsage(64, 100))
        today = data_of(await read_key(policy, {}, {}))
        clock.move(86_400.0)
        tomorrow = data_of(await read_key(policy, {}, {}))
        clock.move(31 * 86_400.0)
        next_month = data_of(await read_key(policy, {}, {}))
    assert (today["hash"], today["name"], today["disabled"]) == (alice.key_id, "test", False)
    assert today["label"].startswith("sk-df-")
    assert today["exact"] == {
        "limit": "0.001",
        "limit_remaining": "0.000736",
        "usage": "0.000264",
        "usage_daily": "0.000264",
        "usage_weekly": "0.000264",
        "usage_monthly": "0.000264",
    }
    assert (today["limit"], today["usage"]) == (0.001, 0.000264)
    assert today["rate_limit"] == {"requests": 30, "interval": "1m"}
    assert today["models"] == [MODEL]
    assert (tomorrow["usage_daily"], tomorrow["usage_weekly"]) == (0, 0.000264)
    assert (next_month["usage_monthly"], next_month["usage"]) == (0, 0.000264)
    assert START_NS == 1_795_000_000_000_000_000
    threads.close()


async def test_readers_say_when_the_database_is_away(url: str, engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        policy = await desk.gate.key(alice.secret)
    shaky = open_engine(url)
    Outage(shaky).trouble = Trouble.AWAY
    threads = DatabaseThreads()
    readers = (
        generation_reader(shaky, threads),
        key_reader(shaky, threads, clock),
        credits_reader(shaky, threads),
    )
    for reader in readers:
        with pytest.raises(DatabaseAway) as caught:
            await reader(policy, {}, {"id": "gen-" + "0" * 32})
        assert (caught.value.code, caught.value.retry_after_s) == ("store_unavailable", 2.0)
    threads.close()
    shaky.dispose()
