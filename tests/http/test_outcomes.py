"""The table of outcomes in docs/use/outcomes.md: every row is provoked over sockets, and holds."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dragonfly.admission.grants import Settlement
from dragonfly.core.outcomes import CHARGING, Charging, Outcome
from dragonfly.core.tokens import Basis
from dragonfly.providers.channel import ChannelTimeouts
from dragonfly.settings import LimitSettings
from tests.fakes.purse import COMPLETION_NUSD, POLICY, PROMPT_NUSD
from tests.fakes.upstream import STREAM_HEAD, Close, Script, Send, Stall, answer, chunk, stream
from tests.http.rig import Rig, chat_body, post
from tests.http.test_client_leaves import ANSWER, DONE, FIRST, LAST, SECOND, STREAMED, event, long_stream
from tests.http.test_heads import WHOLE, Later

PAGE = Path(__file__).resolve().parents[2] / "docs/use/outcomes.md"
WHOLE_BODY = chat_body()
ERROR = b'data: {"error":{"message":"x","code":500}}\n\n'
Ending = Callable[[], Awaitable[Settlement | None]]


def rows() -> dict[str, tuple[str, str]]:
    """Outcome and charge by how a request ends."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    found = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]
    return {ends: (outcome.strip("`"), charge) for ends, outcome, charge in found}


async def asked(script: Script, body: bytes = STREAMED, **options: object) -> Settlement:
    """The client waits for whatever comes."""
    async with Rig([script], **options) as rig:  # type: ignore[arg-type]
        asking = asyncio.create_task(rig.ask(body))
        await rig.upstream.received()
        while not asking.done():
            if "timeouts" in options:
                rig.pool.sweep()
            await asyncio.sleep(0.001)
        settlement = await rig.purse.settled()
        await rig.at_rest()
        return settlement


async def left(script: Script, body: bytes, until: bytes) -> Settlement:
    """The client leaves: after it has read `until`, or after the provider has the request."""
    async with Rig([script]) as rig:
        client = await rig.connect()
        client.send(post(body))
        await rig.upstream.received()
        if until == STREAM_HEAD:
            await rig.until(lambda: any(one.attempt and one.attempt.is_accepted for one in rig.gateway.exchanges))
        elif until:
            await client.receive_until(until)
        client.reset()
        settlement = await rig.purse.settled()
        await rig.upstream.until_left()
        await rig.at_rest()
        return settlement


def asking(*script: object, body: bytes = STREAMED, **options: object) -> Ending:
    return lambda: asked(list(script), body, **options)  # type: ignore[arg-type]


def leaving(*script: object, body: bytes = STREAMED, until: bytes = b"") -> Ending:
    return lambda: left(list(script), body, until)  # type: ignore[arg-type]


async def lost_between_commit_and_last_byte() -> Settlement:
    async with Rig([stream(ANSWER)]) as rig:
        rig.purse.holding = True
        client = await rig.connect()
        client.send(post(STREAMED))
        settlement = await rig.purse.settled()
        assert LAST not in client.answer.body
        client.reset()
        await rig.until(lambda: not rig.lanes)
        rig.purse.release()
        await rig.at_rest()
        return settlement


async def reading_nothing() -> Settlement:
    async with Rig([long_stream(60)], limits=LimitSettings(client_stall_s=30.0)) as rig:
        clock = Later()
        client = await rig.connect()
        client.writer.transport.pause_reading()
        client.send(post(STREAMED))
        await rig.until(lambda: any(exchange.client_waits for exchange in rig.gateway.exchanges))
        clock.s = rig.gateway.coarse_s + 31
        rig.gateway.clock = clock
        rig.gateway.sweep()
        settlement = await rig.purse.settled()
        await rig.at_rest()
        return settlement


async def stopping(*script: object, until: bytes) -> Settlement:
    async with Rig([list(script)]) as rig:  # type: ignore[list-item]
        client = await rig.connect()
        client.send(post(STREAMED))
        await rig.upstream.received()
        if until:
            await client.receive_until(until)
        (exchange,) = rig.gateway.exchanges
        assert rig.gateway.stop_running(POLICY.account_id, exchange.request_id)
        assert (await client.receive()).complete
        await rig.at_rest()
        return rig.purse.settlements[0]


async def without_money() -> Settlement:
    async with Rig([[Send(STREAM_HEAD), *[Send(chunk(SECOND))] * 50, Stall()]]) as rig:
        rig.purse.covered, rig.purse.money_for = 4, 0
        assert (await rig.ask(STREAMED)).complete
        await rig.at_rest()
        return rig.purse.settlements[0]


async def in_the_middle(rig: Rig) -> None:
    client = await rig.connect()
    client.send(post(STREAMED))
    await client.receive_until(FIRST)


async def shut_down() -> Settlement:
    async with Rig([[Send(STREAM_HEAD), Send(chunk(FIRST)), Stall()]]) as rig:
        await in_the_middle(rig)
        await rig.gateway.stop()
        return rig.purse.settlements[0]


async def a_fault_of_ours() -> Settlement:
    async with Rig([[Send(STREAM_HEAD), Send(chunk(FIRST)), Stall()]]) as rig:
        await in_the_middle(rig)
        (exchange,) = rig.gateway.exchanges
        exchange.crash(RuntimeError("a fault"))
        assert rig.reports == [("exchange_crashed", {"kind": "RuntimeError"})]
        await rig.at_rest()
        return rig.purse.settlements[0]


async def dead_before_the_commit() -> None:
    """Nothing has been handed to the books while an answer runs, so nothing of it can outlive the process; real
    kills are in the tests of the system and of the store."""
    async with Rig([[Send(STREAM_HEAD), Send(chunk(FIRST)), Stall()]]) as rig:
        await in_the_middle(rig)
        assert not rig.purse.settlements


UNCOUNTED = json.loads(WHOLE)
del UNCOUNTED["usage"]
FILTERED = event("", '"content_filter"', '{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}')
ENDINGS: dict[str, Ending] = {
    "The whole answer arrives with the provider's count": asking(*stream(ANSWER)),
    "The whole answer arrives without a count": asking(*answer(200, json.dumps(UNCOUNTED).encode()), body=WHOLE_BODY),
    "The answer is finished and has no output": asking(*stream([LAST, DONE])),
    "The provider's content filter ends the answer": asking(*stream([FIRST, FILTERED, DONE])),
    "The provider calls the request wrong, too long or against its policy": asking(*answer(400, b'{"error":{}}')),
    "Every try fails before the first byte": asking(*answer(500, b"{}")),
    "The provider says that it failed, after the first byte": asking(*stream([FIRST, ERROR])),
    "The provider cuts the answer after the first byte": asking(Send(STREAM_HEAD), Send(chunk(FIRST)), Close()),
    "The provider does not begin in time": asking(Stall(), timeouts=ChannelTimeouts(head_s=0.001)),
    "The provider falls silent in the middle": asking(
        Send(STREAM_HEAD), Send(chunk(FIRST)), Stall(), timeouts=ChannelTimeouts(idle_s=0.001)
    ),
    "The client leaves before the provider has accepted": leaving(Stall()),
    "The client leaves after the provider has accepted and before the first event": leaving(
        Send(STREAM_HEAD), Stall(), until=STREAM_HEAD
    ),
    "The client leaves in the middle of a stream": leaving(
        Send(STREAM_HEAD), Send(chunk(FIRST)), Stall(), until=FIRST
    ),
    "The client leaves an answer that is not streamed": leaving(Stall(), body=WHOLE_BODY),
    "The client leaves, or the process dies, between the commit of the charge and the last byte": (
        lost_between_commit_and_last_byte
    ),
    "The client reads nothing for longer than `limits.client_stall_s`": reading_nothing,
    "The account stops a stream": lambda: stopping(Send(STREAM_HEAD), Send(chunk(FIRST)), Stall(), until=FIRST),
    "The account stops a request that no provider has accepted": lambda: stopping(Stall(), until=b""),
    "The money is used up in the middle of a stream": without_money,
    "The gateway is told to stop and the answer does not end in time": shut_down,
    "A fault of the gateway's own": a_fault_of_ours,
    "The process dies before the charge is committed": dead_before_the_commit,
}


def test_every_row_is_provoked_and_every_outcome_has_a_row() -> None:
    assert set(rows()) == set(ENDINGS)
    assert {outcome for outcome, _ in rows().values()} == {one.value for one in Outcome} | {"no row"}


@pytest.mark.parametrize("ends", ENDINGS)
async def test_a_request_that_ends_so_has_the_outcome_and_the_charge_of_its_row(ends: str) -> None:
    outcome, charge = rows()[ends]
    settlement = await ENDINGS[ends]()
    if settlement is None:
        assert (outcome, charge) == ("no row", "nothing")
        return
    usage = settlement.usage
    assert settlement.outcome.value == outcome
    paid = usage.prompt_tokens * PROMPT_NUSD + usage.completion_tokens * COMPLETION_NUSD
    assert settlement.charge.cost_nusd == (0 if charge == "nothing" else paid)
    if charge == "nothing":
        assert CHARGING[settlement.outcome] is Charging.NOTHING or not paid
        return
    assert usage.prompt_tokens > 0
    assert usage.basis is (Basis.UPSTREAM if charge == "counted" else Basis.ESTIMATED)
    assert (CHARGING[settlement.outcome] is Charging.DELIVERED) == (charge == "delivered")
