"""The client goes away, or stops reading: upstream is cancelled, one outcome, a defined charge, no leak."""

import asyncio

import pytest

from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import Basis
from dragonfly.settings import LimitSettings
from tests.fakes.upstream import STREAM_HEAD, Close, Gate, Reached, Reset, Send, Stall, WaitFor, answer, chunk, stream
from tests.http.rig import Rig, chat_body, post
from tests.http.test_heads import WHOLE, Later


def event(text: str, finish: str = "null", usage: str = "null") -> bytes:
    return (
        b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"deepseek-v4-flash","choices":'
        b'[{"index":0,"delta":{"content":"%b"},"finish_reason":%b}],"usage":%b}\n\n'
        % (text.encode(), finish.encode(), usage.encode())
    )


FIRST = event("Hel")
SECOND = event("lo")
LAST = event("", '"stop"', '{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}')
DONE = b"data: [DONE]\n\n"
ANSWER = [FIRST, SECOND, LAST, DONE]
STREAMED = chat_body(stream=True)


async def test_a_client_that_leaves_in_the_middle_pays_for_what_was_delivered_and_upstream_is_cancelled() -> None:
    script = [Send(STREAM_HEAD), Send(chunk(FIRST)), Send(chunk(SECOND)), Stall()]
    async with Rig([script]) as rig:
        client = await rig.connect()
        client.send(post(STREAMED))
        await client.receive_until(SECOND)
        client.reset()
        settlement = await rig.purse.settled()
        assert settlement.outcome is Outcome.CLIENT_GONE
        assert settlement.usage.basis is Basis.ESTIMATED
        assert settlement.usage.completion_tokens == 2
        assert settlement.charge.cost_nusd > 0
        await rig.upstream.until_left()
        await rig.at_rest()
        assert not rig.lanes


async def test_a_client_that_leaves_before_the_provider_accepts_pays_nothing() -> None:
    async with Rig([[Stall()]]) as rig:
        client = await rig.connect()
        client.send(post(STREAMED))
        await rig.upstream.received()
        client.reset()
        settlement = await rig.purse.settled()
        assert settlement.outcome is Outcome.CLIENT_GONE_EARLY
        assert settlement.charge.cost_nusd == 0
        await rig.upstream.until_left()
        await rig.at_rest()


async def test_a_client_that_hangs_up_on_a_whole_answer_pays_for_the_prompt() -> None:
    async with Rig([[Stall()]]) as rig:
        client = await rig.connect()
        client.send(post(chat_body()))
        await rig.upstream.received()
        client.close()
        settlement = await rig.purse.settled()
        assert settlement.outcome is Outcome.CLIENT_GONE
        assert settlement.usage.prompt_tokens > 0
        assert settlement.usage.completion_tokens == 0
        await rig.upstream.until_left()
        await rig.at_rest()


async def test_a_client_that_leaves_while_the_charge_is_being_written_has_had_its_answer_charged() -> None:
    async with Rig([stream(ANSWER)]) as rig:
        rig.purse.holding = True
        client = await rig.connect()
        client.send(post(STREAMED))
        settlement = await rig.purse.settled()
        got = client.answer
        assert LAST not in got.body
        client.reset()
        while rig.lanes:
            await asyncio.sleep(0)
        rig.purse.release()
        assert settlement.outcome is Outcome.COMPLETE
        assert len(rig.purse.settlements) == 1
        await rig.at_rest()


async def test_a_client_that_leaves_while_its_key_is_looked_up_leaves_nothing_behind() -> None:
    async with Rig([stream(ANSWER)]) as rig:
        rig.purse.slow = True
        for _ in range(20):
            client = await rig.connect()
            client.send(post(STREAMED))
            await client.writer.drain()
            client.reset()
        while rig.lanes:
            await asyncio.sleep(0)
        await rig.at_rest()


async def test_a_client_that_leaves_during_a_back_off_ends_the_retries() -> None:
    started = Gate()
    async with Rig([[Reached(started), *answer(500, b"{}")]]) as rig:
        rig.gateway.settings = rig.settings.model_copy(
            update={"upstream": rig.settings.upstream.model_copy(update={"backoff_s": 60.0, "backoff_max_s": 60.0})}
        )
        client = await rig.connect()
        client.send(post(STREAMED))
        await rig.upstream.received()
        while not any(name == "channel_failed" for name, _ in rig.reports):
            await asyncio.sleep(0)
        client.reset()
        settlement = await rig.purse.settled()
        assert settlement.outcome is Outcome.CLIENT_GONE_EARLY
        assert len(rig.upstream.requests) == 1
        await rig.at_rest()


@pytest.mark.parametrize("keep", range(1, 8))
async def test_leaving_after_any_event_settles_once(keep: int) -> None:
    pieces = [event(str(number)) for number in range(8)]
    script = [Send(STREAM_HEAD), *(Send(chunk(piece)) for piece in pieces[:keep]), Stall()]
    async with Rig([script]) as rig:
        client = await rig.connect()
        client.send(post(STREAMED))
        await client.receive_until(pieces[keep - 1])
        client.reset()
        settlement = await rig.purse.settled()
        assert settlement.usage.completion_tokens == keep
        await rig.at_rest()


async def test_the_last_bytes_wait_for_the_charge_and_the_first_do_not() -> None:
    async with Rig([stream(ANSWER)]) as rig:
        rig.purse.holding = True
        client = await rig.connect()
        client.send(post(STREAMED))
        got = await client.receive_until(SECOND)
        await rig.purse.settled()
        assert LAST not in got.body
        rig.purse.release()
        got = await client.receive()
        assert got.complete
        assert got.body == b"".join(ANSWER)


async def test_a_whole_answer_waits_for_the_charge() -> None:
    async with Rig([answer(200, WHOLE)]) as rig:
        rig.purse.holding = True
        client = await rig.connect()
        client.send(post(chat_body()))
        await rig.purse.settled()
        assert client.answer.status == 0
        rig.purse.release()
        assert (await client.receive()).json()["usage"]["cost_usd"] == 0.00000105


def long_stream(pieces: int) -> list[Send]:
    body = b"".join(event("x" * 1_000) for _ in range(100))
    return [Send(STREAM_HEAD), *[Send(chunk(body))] * pieces, Send(chunk(LAST + DONE)), Send(chunk(b""))]


async def test_a_slow_reader_holds_the_provider_back_and_memory_stays_bounded() -> None:
    async with Rig([long_stream(60)]) as rig:
        client = await rig.connect()
        client.writer.transport.pause_reading()
        client.send(post(STREAMED))
        while not any(exchange.client_waits for exchange in rig.gateway.exchanges):
            await asyncio.sleep(0)
        (lane,) = rig.lanes
        sizes = set()
        for _ in range(200):
            await asyncio.sleep(0)
            sizes.add(lane.transport.get_write_buffer_size())
        assert max(sizes) < 1_000_000
        client.writer.transport.resume_reading()
        got = await client.receive()
        assert got.complete
        assert got.body.count(b"data: ") == 6_002
        settlement = await rig.purse.settled()
        assert settlement.outcome is Outcome.COMPLETE
        await rig.at_rest()


async def test_a_reader_that_takes_nothing_is_ended_after_the_stall_limit() -> None:
    async with Rig([long_stream(60)], limits=LimitSettings(client_stall_s=30.0)) as rig:
        clock = Later()
        client = await rig.connect()
        client.writer.transport.pause_reading()
        client.send(post(STREAMED))
        while not any(exchange.client_waits for exchange in rig.gateway.exchanges):
            await asyncio.sleep(0)
        clock.s = rig.gateway.coarse_s + 31
        rig.gateway.clock = clock
        rig.gateway.sweep()
        settlement = await rig.purse.settled()
        assert settlement.outcome is Outcome.CLIENT_STALLED
        assert settlement.charge.cost_nusd > 0
        await rig.upstream.until_left()
        await rig.at_rest()


async def test_a_stop_of_the_gateway_ends_running_answers_with_an_error_and_no_charge() -> None:
    held = Gate()
    script = [Send(STREAM_HEAD), Send(chunk(FIRST)), WaitFor(held), Close()]
    async with Rig([script]) as rig:
        client = await rig.connect()
        client.send(post(STREAMED))
        await client.receive_until(FIRST)
        await rig.gateway.stop()
        got = await client.receive()
        assert got.complete
        assert got.events()[-2]["error"]["code"] == "shutting_down"
        assert rig.purse.settlements[0].outcome is Outcome.SHUTDOWN
        assert rig.purse.settlements[0].charge.cost_nusd == 0


async def test_a_graceful_shutdown_lets_a_running_answer_finish_and_then_closes() -> None:
    held = Gate()
    script = [Send(STREAM_HEAD), Send(chunk(FIRST)), WaitFor(held), *(Send(chunk(one)) for one in ANSWER[1:])]
    async with Rig([[*script, Send(chunk(b""))]]) as rig:
        running, idle = await rig.connect(), await rig.connect()
        running.send(post(STREAMED))
        await running.receive_until(FIRST)
        for lane in list(rig.lanes):
            lane.shutdown()
        assert await idle.closed()
        held.open()
        got = await running.receive()
        assert got.complete
        assert got.body == b"".join(ANSWER)
        assert await running.closed()
        assert rig.purse.settlements[0].outcome is Outcome.COMPLETE


async def test_a_reset_upstream_after_the_client_left_is_no_second_end() -> None:
    gate = Gate()
    async with Rig([[Send(STREAM_HEAD), Send(chunk(FIRST)), WaitFor(gate), Reset()]]) as rig:
        client = await rig.connect()
        client.send(post(STREAMED))
        await client.receive_until(FIRST)
        client.reset()
        gate.open()
        await rig.purse.settled()
        await rig.upstream.until(lambda: rig.upstream.open_connections == 0)
        await rig.at_rest()
