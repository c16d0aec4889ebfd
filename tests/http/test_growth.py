"""A hold grows with its stream, and the stream ends in order when there is no money or when its account says so."""

import asyncio
import json
from typing import Any

from dragonfly.core.ids import AccountId, RequestId
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import Basis
from tests.fakes.purse import COMPLETION_NUSD, POLICY, PROMPT_NUSD
from tests.fakes.upstream import STREAM_HEAD, Gate, Send, Stall, WaitFor, chunk, stream
from tests.http.rig import Rig, chat_body, post
from tests.http.test_client_leaves import ANSWER, DONE, FIRST, LAST, STREAMED, event

WITH_USAGE = chat_body(stream=True, stream_options={"include_usage": True})
MANY = [event(f"w{number:03}") for number in range(100)]


def shape(events: list[Any]) -> list[str]:
    """What each of a stream's last events is for."""
    return [
        one
        if isinstance(one, str)
        else "error"
        if "error" in one
        else "usage"
        if one.get("usage")
        else str(one["choices"][0]["finish_reason"])
        for one in events
    ]


async def test_a_long_stream_asks_for_more_ahead_of_need_and_pays_what_was_counted() -> None:
    async with Rig([stream([*MANY, LAST, DONE])]) as rig:
        rig.purse.covered = 8
        got = await rig.ask(STREAMED)
        assert got.body == b"".join([*MANY, LAST, DONE])
        settlement = await rig.purse.settled()
        assert settlement.outcome is Outcome.COMPLETE
        assert rig.purse.extensions, "the hold grew"
        assert rig.purse.extensions == sorted(rig.purse.extensions)
        assert len(rig.purse.extensions) < 5, "not for every event"
        await rig.at_rest()


async def test_a_provider_is_held_back_while_the_wallet_is_asked_and_goes_on_after() -> None:
    async with Rig([stream([*MANY, LAST, DONE])]) as rig:
        rig.purse.covered = 4
        rig.purse.slow = True
        got = await rig.ask(STREAMED)
        assert got.body == b"".join([*MANY, LAST, DONE])
        assert rig.purse.extensions
        await rig.at_rest()


async def test_a_stream_ends_in_order_when_the_money_is_used_up() -> None:
    for slow in (False, True):
        async with Rig([[Send(STREAM_HEAD), *(Send(chunk(one)) for one in MANY), Stall()]]) as rig:
            rig.purse.covered, rig.purse.money_for, rig.purse.slow = 4, 0, slow
            got = await rig.ask(WITH_USAGE)
            assert got.complete
            assert shape(got.events())[-4:] == ["length", "usage", "error", "[DONE]"]
            *_, usage, error, _ = got.events()
            assert error["error"]["code"] == "insufficient_balance"
            assert error["choices"] == []
            assert error["error"]["metadata"]["limit"] == "account"
            settlement = await rig.purse.settled()
            assert settlement.outcome is Outcome.WALLET_EMPTY
            assert settlement.usage.basis is Basis.ESTIMATED
            delivered = sum(one in got.body for one in MANY)
            assert settlement.usage.completion_tokens == delivered
            assert settlement.charge.cost_nusd == usage["usage"]["cost_usd"] * 1e9 > delivered * COMPLETION_NUSD
            await rig.upstream.until_left()
            await rig.at_rest()


async def test_the_last_bytes_of_a_stream_without_money_wait_for_its_charge() -> None:
    async with Rig([[Send(STREAM_HEAD), *(Send(chunk(one)) for one in MANY), Stall()]]) as rig:
        rig.purse.covered, rig.purse.money_for, rig.purse.holding = 4, 0, True
        client = await rig.connect()
        client.send(post(STREAMED))
        await rig.purse.settled()
        await client.receive_until(MANY[0])
        assert b'"length"' not in client.answer.body
        rig.purse.release()
        assert (await client.receive()).complete
        await rig.at_rest()


async def test_a_count_beyond_the_hold_is_paid_when_there_is_money() -> None:
    usage = '{"prompt_tokens":5,"completion_tokens":9000,"total_tokens":9005}'
    for slow in (False, True):
        async with Rig([stream([FIRST, event("", '"stop"', usage), DONE])]) as rig:
            rig.purse.covered, rig.purse.slow, rig.purse.hold_nusd = 2_048, slow, 2_048 * COMPLETION_NUSD
            rig.purse.covers_nusd = COMPLETION_NUSD
            await rig.ask(STREAMED)
            settlement = await rig.purse.settled()
            assert settlement.charge.cost_nusd == 9_000 * COMPLETION_NUSD + 5 * PROMPT_NUSD
            assert rig.purse.extensions == [9_000]
            await rig.at_rest()


async def test_a_count_beyond_the_hold_and_the_money_costs_the_hold() -> None:
    usage = '{"prompt_tokens":5,"completion_tokens":9000,"total_tokens":9005}'
    async with Rig([stream([FIRST, event("", '"stop"', usage), DONE])]) as rig:
        rig.purse.covered, rig.purse.hold_nusd, rig.purse.money_for = 2_048, 2_048 * COMPLETION_NUSD, 2_048
        assert (await rig.ask(STREAMED)).complete
        assert rig.purse.settlements[0].charge.cost_nusd == 2_048 * COMPLETION_NUSD
        await rig.at_rest()


async def started(rig: Rig, body: bytes = WITH_USAGE) -> tuple[Any, RequestId]:
    """A stream under way, and its id."""
    client = await rig.connect()
    client.send(post(body))
    got = await client.receive_until(FIRST)
    return client, RequestId(got.headers["x-request-id"])


async def test_a_stopped_stream_ends_in_order_with_its_usage() -> None:
    async with Rig([[Send(STREAM_HEAD), Send(chunk(FIRST)), Stall()]]) as rig:
        client, request_id = await started(rig)
        assert not rig.gateway.stop_running(AccountId("acc-bob"), request_id)
        assert rig.gateway.stop_running(POLICY.account_id, request_id)
        assert not rig.gateway.stop_running(POLICY.account_id, RequestId("gen-none"))
        got = await client.receive()
        assert shape(got.events()) == ["None", "stop", "usage", "[DONE]"]
        settlement = await rig.purse.settled()
        assert settlement.outcome is Outcome.STOPPED
        assert settlement.finish_reason == "stop"
        await rig.upstream.until_left()
        await rig.at_rest()


async def test_every_choice_of_a_stopped_stream_ends() -> None:
    async with Rig([[Send(STREAM_HEAD), Send(chunk(FIRST)), Stall()]]) as rig:
        client, request_id = await started(rig, chat_body(stream=True, n=3))
        assert rig.gateway.stop_running(POLICY.account_id, request_id)
        last = (await client.receive()).events()[-2]
        assert [(one["index"], one["finish_reason"]) for one in last["choices"]] == [
            (0, "stop"),
            (1, "stop"),
            (2, "stop"),
        ]


async def test_a_stop_that_comes_with_the_end_changes_nothing() -> None:
    held = Gate()
    script = [Send(STREAM_HEAD), Send(chunk(FIRST)), Send(chunk(LAST)), WaitFor(held), Send(chunk(DONE))]
    async with Rig([[*script, Send(chunk(b""))]]) as rig:
        client, request_id = await started(rig, STREAMED)
        (exchange,) = rig.gateway.exchanges
        await rig.until(lambda: getattr(exchange.attempt, "_finish_reason", "") == "stop")
        assert rig.gateway.stop_running(POLICY.account_id, request_id)
        held.open()
        got = await client.receive()
        assert got.body == b"".join([FIRST, LAST, DONE])
        assert rig.purse.settlements[0].outcome is Outcome.COMPLETE
        await rig.at_rest()


async def test_a_request_stopped_before_its_answer_is_told_so() -> None:
    for body, cost in ((STREAMED, False), (chat_body(), True)):
        async with Rig([[Stall()]]) as rig:
            asking = asyncio.create_task(rig.ask(body))
            await rig.upstream.received()
            (exchange,) = rig.gateway.exchanges
            assert rig.gateway.stop_running(POLICY.account_id, exchange.request_id)
            got = await asking
            assert (got.status, got.code) == (409, "generation_stopped")
            settlement = await rig.purse.settled()
            assert settlement.outcome is Outcome.STOPPED
            assert (settlement.charge.cost_nusd > 0) is cost
            await rig.upstream.until_left()
            await rig.at_rest()


async def test_a_path_with_an_action_answers_posts_only() -> None:
    async def act(key: object, params: dict[str, str], query: dict[str, str]) -> bytes:
        return json.dumps(params).encode()

    async with Rig([stream(ANSWER)]) as rig:
        rig.gateway.add_action("/v1/generation/{id}/stop", act)
        got = await rig.ask(b"", path="/v1/generation/gen-1/stop")
        assert (got.status, got.json()) == (200, {"id": "gen-1"})
        got = await rig.send_raw(
            b"GET /v1/generation/gen-1/stop HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\n\r\n"
        )
        assert (got.status, got.headers["allow"]) == (405, "POST")
