"""What a provider can do wrong: cut, stall, garbage, errors in disguise. One outcome, a defined charge, no leak."""

import asyncio
import json

import pytest

from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import Basis
from dragonfly.gateway.relay import EARLY_COMMENTS_MAX, HELD_EVENTS_MAX
from dragonfly.providers.channel import ChannelTimeouts
from dragonfly.settings import LimitSettings
from tests.fakes.upstream import (
    STREAM_HEAD,
    Close,
    HalfClose,
    Reset,
    Send,
    Split,
    Stall,
    answer,
    chunk,
    cut,
    head,
    stream,
)
from tests.http.rig import MODEL, UPSTREAM_SECRET, Rig, channel, chat_body, offer, post
from tests.http.test_client_leaves import ANSWER, DONE, FIRST, LAST, SECOND, STREAMED, event
from tests.http.test_heads import WHOLE

WHOLE_STREAM = stream(ANSWER)
NEVER_AGAIN = (Outcome.UPSTREAM_BROKE, Outcome.UPSTREAM_ERROR, Outcome.UPSTREAM_TIMEOUT)


@pytest.mark.parametrize("end", [Close(), Reset(), HalfClose()], ids=["FIN", "RST", "half"])
async def test_a_stream_cut_at_any_byte_ends_in_one_outcome(end: Close | Reset | HalfClose) -> None:
    data = b"".join(step.data for step in WHOLE_STREAM if isinstance(step, Send))
    positions = list(range(1, len(data), 23))
    scripts = iter([cut(WHOLE_STREAM, position, end) for position in positions for _ in range(4)])
    served = {"script": next(scripts)}
    async with Rig(lambda request: served["script"]) as rig:
        for position in positions:
            served["script"] = cut(WHOLE_STREAM, position, end)
            before = len(rig.purse.settlements)
            rig.gateway.board.channels.clear()
            got = await rig.ask(STREAMED)
            settlement = await rig.purse.settled(before + 1)
            assert got.complete
            if got.status == 200:
                assert got.body.endswith(DONE)
            if settlement.outcome is Outcome.COMPLETE:
                assert settlement.charge.cost_nusd > 0
                assert b'"stop"' in got.body
            else:
                assert settlement.outcome in NEVER_AGAIN
                assert settlement.charge.cost_nusd == 0
                assert b'"stop"' not in got.body
                error = got.events()[-2]["error"] if got.status == 200 else got.json()["error"]
                assert error["code"] == "upstream_error"
        assert len(rig.purse.settlements) == len(positions)
        await rig.at_rest()


async def test_a_whole_answer_cut_at_any_byte_is_an_error_and_free() -> None:
    script = answer(200, WHOLE)
    length = len(script[0].data)  # type: ignore[union-attr]
    served = {"at": 1}
    async with Rig(lambda request: cut(script, served["at"])) as rig:
        for position in range(1, length, 29):
            served["at"] = position
            before = len(rig.purse.settlements)
            rig.gateway.board.channels.clear()
            got = await rig.ask()
            assert (got.status, got.code) == (502, "upstream_error")
            assert (await rig.purse.settled(before + 1)).outcome is Outcome.UPSTREAM_ERROR
        await rig.at_rest()


async def test_a_stream_that_arrives_byte_by_byte_is_relayed_whole() -> None:
    body = b"".join(chunk(piece) for piece in ANSWER) + chunk(b"")
    async with Rig([[Send(STREAM_HEAD), Split(body)]]) as rig:
        got = await rig.ask(STREAMED)
        assert got.body == b"".join(ANSWER)
        await rig.at_rest()


async def test_a_provider_that_never_answers_times_out() -> None:
    async with Rig([[Stall()]], timeouts=ChannelTimeouts(head_s=0.001)) as rig:
        asking = asyncio.create_task(rig.ask(STREAMED))
        await rig.upstream.received()
        while not asking.done():
            rig.pool.sweep()
            await asyncio.sleep(0.002)
        got = await asking
        assert (got.status, got.code) == (504, "upstream_timeout")
        assert rig.purse.settlements[0].outcome is Outcome.UPSTREAM_TIMEOUT
        await rig.upstream.until_left()
        await rig.at_rest()


async def test_a_provider_that_falls_silent_in_the_middle_times_out_with_an_error_event() -> None:
    script = [Send(STREAM_HEAD), Send(chunk(FIRST)), Stall()]
    async with Rig([script], timeouts=ChannelTimeouts(idle_s=0.001)) as rig:
        client = await rig.connect()
        asking = asyncio.create_task(rig.ask(STREAMED))
        await rig.upstream.received()
        while not asking.done():
            rig.pool.sweep()
            await asyncio.sleep(0.002)
        got = await asking
        assert got.status == 200
        assert got.events()[-2]["error"]["code"] == "upstream_timeout"
        assert rig.purse.settlements[0].outcome is Outcome.UPSTREAM_TIMEOUT
        assert rig.purse.settlements[0].charge.cost_nusd == 0
        client.close()
        await rig.at_rest()


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("no HTTP", [Send(b"SSH-2.0-OpenSSH\r\n"), Close()]),
        ("binary", [Send(bytes(range(256)) * 4), Close()]),
        ("HTML with 200", answer(200, b"<html><body>Welcome</body></html>", "text/html")),
        ("HTML with 504", answer(504, b"<html>Gateway Time-out</html>", "text/html")),
        ("nothing with 200", answer(200, b"")),
        ("an empty object", answer(200, b"{}")),
        ("no choices", answer(200, b'{"id":"x","choices":[]}')),
        ("a text", answer(200, b'"ok"')),
        ("deep nesting", answer(200, b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}")),
        ("an error in disguise", answer(200, b'{"error":{"message":"boom"}}')),
        ("a redirect", [Send(head(302, [("location", "http://127.0.0.1:1/"), ("content-length", "0")]))]),
        ("no content", [Send(head(204, []))]),
        ("a huge head", [Send(head(200, [("x-a", "a" * 100_000), ("content-length", "0")]))]),
        ("a stream where none was asked for", WHOLE_STREAM),
        ("gzip", [Send(head(200, [("content-encoding", "gzip"), ("content-length", "3")]) + b"abc")]),
        ("both framings", [Send(head(200, [("content-length", "3"), ("transfer-encoding", "chunked")]) + b"abc")]),
    ],
)
async def test_garbage_instead_of_an_answer_is_an_error_of_the_provider(name: str, script: list[object]) -> None:
    async with Rig([script]) as rig:  # type: ignore[list-item]
        got = await rig.ask()
        assert got.status in (502, 503), name
        assert got.code in ("upstream_error", "no_healthy_channel")
        assert rig.purse.settlements[0].charge.cost_nusd == 0
        await rig.at_rest()


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("HTML", answer(200, b"<html></html>", "text/html")),
        ("JSON", answer(200, WHOLE)),
        ("an empty stream", stream([])),
        ("comments only", stream([b": keep-alive\n\n"] * 3)),
        ("only [DONE]", stream([DONE])),
        ("an event that is no JSON", stream([b"data: hello\n\n"])),
        ("no events at all", stream([b"hello\n\n"])),
        ("bytes", stream([bytes(range(256))])),
    ],
)
async def test_garbage_instead_of_a_stream_is_an_error_and_free(name: str, script: list[object]) -> None:
    async with Rig([script]) as rig:  # type: ignore[list-item]
        got = await rig.ask(STREAMED)
        settlement = await rig.purse.settled()
        assert settlement.charge.cost_nusd == 0, name
        assert settlement.outcome in NEVER_AGAIN, name
        assert got.complete
        if got.status == 200:
            assert got.events()[-2]["error"]
        await rig.at_rest()


async def test_an_event_without_end_is_cut_off_at_the_bound() -> None:
    endless = [Send(STREAM_HEAD), Send(chunk(FIRST)), *[Send(chunk(b"x" * 65_536))] * 8, Stall()]
    async with Rig([endless], limits=LimitSettings(event_bytes_max=65_536 * 3)) as rig:
        got = await rig.ask(STREAMED)
        assert got.events()[-2]["error"]["code"] == "upstream_error"
        assert rig.purse.settlements[0].outcome is Outcome.UPSTREAM_BROKE
        await rig.upstream.until_left()
        await rig.at_rest()


async def test_an_answer_without_end_is_cut_off_at_the_bound() -> None:
    endless = [Send(head(200, [("transfer-encoding", "chunked")])), *[Send(chunk(b"x" * 65_536))] * 8, Stall()]
    async with Rig([endless], limits=LimitSettings(answer_bytes_max=65_536 * 3)) as rig:
        got = await rig.ask()
        assert got.status == 502
        await rig.at_rest()


@pytest.mark.parametrize(
    "error",
    [
        b'event: error\ndata: {"error":{"message":"boom","type":"server_error","code":500}}\n\n',
        b'data: {"error":{"message":"boom","type":"server_error"}}\n\n',
        b'error: {"code":500,"message":"boom"}\n\n',
        event("", '"insufficient_system_resource"'),
    ],
    ids=["event: error", "error in a chunk", "an error line", "a finish reason"],
)
async def test_an_error_in_the_middle_of_a_stream_is_told_in_our_words_and_free(error: bytes) -> None:
    async with Rig([stream([FIRST, SECOND, error, DONE])]) as rig:
        got = await rig.ask(STREAMED)
        assert got.body.startswith(FIRST + SECOND)
        last = got.events()[-2]
        assert last["choices"][0]["finish_reason"] == "error"
        assert last["error"]["request_id"] == got.headers["x-request-id"]
        assert "boom" not in got.body.decode()
        settlement = rig.purse.settlements[0]
        assert settlement.outcome is Outcome.UPSTREAM_BROKE
        assert settlement.charge.cost_nusd == 0
        await rig.at_rest()


async def test_an_answer_without_usage_is_counted_and_flagged() -> None:
    async with Rig([stream([FIRST, SECOND, event("", '"stop"'), DONE])]) as rig:
        got = await rig.ask(chat_body(stream=True, stream_options={"include_usage": True}))
        settlement = rig.purse.settlements[0]
        assert settlement.outcome is Outcome.COMPLETE
        assert settlement.usage.basis is Basis.ESTIMATED
        assert got.events()[-2]["usage"]["cost_usd"] == settlement.charge.cost_nusd / 1e9
        assert got.events()[-1] == "[DONE]"


async def test_an_answer_without_output_is_free() -> None:
    empty = event("", '"stop"', '{"prompt_tokens":5,"completion_tokens":0,"total_tokens":5}')
    async with Rig([stream([event(""), empty, DONE])]) as rig:
        await rig.ask(STREAMED)
        assert rig.purse.settlements[0].outcome is Outcome.EMPTY
        assert rig.purse.settlements[0].charge.cost_nusd == 0


async def test_a_filtered_answer_is_free() -> None:
    async with Rig(
        [stream([FIRST, event("", '"content_filter"', '{"prompt_tokens":5,"completion_tokens":1}'), DONE])]
    ) as rig:
        await rig.ask(STREAMED)
        assert rig.purse.settlements[0].outcome is Outcome.FILTERED
        assert rig.purse.settlements[0].charge.cost_nusd == 0


async def test_nothing_of_a_hostile_providers_words_reaches_the_client_or_the_reports() -> None:
    secret = UPSTREAM_SECRET
    words = json.dumps(
        {"error": {"message": f"key {secret} at http://10.0.0.7/internal", "type": secret, "code": secret}}
    )
    hostile = [
        answer(400, words.encode()),
        answer(401, words.encode()),
        answer(500, words.encode(), secret=secret),
        answer(200, words.encode()),
        [Send(f"HTTP/1.1 500 {secret}\r\ncontent-length: 0\r\n\r\n".encode())],
        answer(302, b"", location=f"http://{secret}/"),
    ]
    for script in hostile:
        for request in (chat_body(), STREAMED):
            async with Rig([script]) as rig:
                got = await rig.ask(request)
                seen = got.body.decode() + str(got.headers) + str(rig.reports)
                assert secret not in seen
                assert "10.0.0.7" not in seen
    async with Rig([stream([FIRST, f"data: {words}\n\n".encode()])]) as rig:
        got = await rig.ask(STREAMED)
        assert secret not in got.body.decode()


async def test_extra_headers_of_the_provider_do_not_pass() -> None:
    async with Rig([answer(200, WHOLE, set_cookie="a=b", x_leak="1", x_request_id="theirs")]) as rig:
        got = await rig.ask()
        assert got.status == 200
        assert not {"set-cookie", "x-leak"} & set(got.headers)
        assert got.headers["x-request-id"].startswith("gen-")


async def test_comments_reach_the_client_with_the_first_event_or_after_a_while() -> None:
    comment = b": keep-alive\n\n"
    async with Rig([stream([comment, *ANSWER])]) as rig:
        assert (await rig.ask(STREAMED)).body == comment + b"".join(ANSWER)
        assert (await rig.ask(STREAMED, headers=["x-dragonfly-comments: off"])).body == b"".join(ANSWER)
    waiting = [Send(STREAM_HEAD), Send(chunk(comment)), Stall()]
    async with Rig([waiting]) as rig:
        client = await rig.connect()
        client.send(post(STREAMED))
        await rig.upstream.received()
        while not any(one.attempt and one.attempt.is_accepted for one in rig.gateway.exchanges):
            await asyncio.sleep(0)
        (exchange,) = rig.gateway.exchanges
        while not exchange.first_byte_ns:
            exchange.comment_is_due()
            await asyncio.sleep(0)
        got = await client.receive_until(comment)
        assert got.status == 200


async def test_usage_in_an_extra_chunk_reaches_only_those_who_asked() -> None:
    extra = (
        b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
        b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}\n\n'
    )
    pieces = [FIRST, SECOND, event("", '"stop"'), extra, DONE]
    async with Rig([stream(pieces)]) as rig:
        plain = await rig.ask(STREAMED)
        assert plain.body == b"".join([*pieces[:3], DONE])
        asked = await rig.ask(chat_body(stream=True, stream_options={"include_usage": True}))
        assert asked.body.startswith(b"".join(pieces[:3]))
        assert asked.events()[-2]["usage"]["cost"] == "0.00000195"
        forwarded = json.loads(rig.upstream.requests[0].body)
        assert forwarded["stream_options"] == {"include_usage": True}
        assert rig.purse.settlements[0].charge == rig.purse.settlements[1].charge


async def test_the_tail_is_rendered_with_the_public_model_and_the_provider() -> None:
    async with Rig([stream(ANSWER)]) as rig:
        got = await rig.ask(chat_body(stream=True, usage={"include": True}))
        last = got.events()[-2]
        assert last["model"] == "deepseek/deepseek-flash"
        assert last["provider"] == "deepseek"
        assert last["choices"][0]["finish_reason"] == "stop"
        assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert last["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
        assert got.body.startswith(FIRST + SECOND)
        assert LAST not in got.body


async def test_a_flat_error_with_status_200_is_read_as_what_it_says() -> None:
    flat = answer(200, b'{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}')
    minimax = {"dialect": "minimax"}
    async with Rig([flat], offers=lambda up: {MODEL: offer(channel(up, "minimax", **minimax))}) as rig:
        got = await rig.ask()
        assert (got.status, got.code) == (503, "no_healthy_channel")
        assert rig.reports[0][1]["kind"] == "no_balance"


async def test_more_events_behind_the_end_than_are_held_end_the_answer() -> None:
    many = [event("", '"stop"'), *[event("x")] * (HELD_EVENTS_MAX + 5), DONE]
    async with Rig([stream([FIRST, b"".join(many)])]) as rig:
        got = await rig.ask(STREAMED)
        assert got.events()[-2]["error"]["code"] == "upstream_error"
        assert not any(name == "exchange_crashed" for name, _ in rig.reports)
        assert rig.purse.settlements[0].charge.cost_nusd == 0
        await rig.at_rest()


async def test_a_flood_of_comments_is_dropped_and_stalls_nobody() -> None:
    flood = b": c\n\n" * 200_000
    async with Rig([stream([flood, *ANSWER])]) as rig:
        got = await rig.ask(STREAMED)
        assert got.body.endswith(b"".join(ANSWER))
        assert got.body.count(b": c\n\n") <= EARLY_COMMENTS_MAX
