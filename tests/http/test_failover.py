"""Several channels: retry and fail-over before the first byte, the caller's wishes, cool-down and probe."""

import json
import socket

import pytest

from dragonfly.admission.errors import InsufficientBalance, RateLimited, StoreUnavailable
from dragonfly.admission.grants import Offer
from dragonfly.core.outcomes import Outcome
from dragonfly.gateway.health import FAILURES_MAX, Standing
from dragonfly.providers.channel import Origin
from tests.fakes.upstream import FakeUpstream, Received, Script, Stall, answer, stream
from tests.http.rig import MODEL, Rig, candidate, channel, chat_body, offer, post
from tests.http.test_client_leaves import ANSWER, DONE, FIRST, STREAMED
from tests.http.test_heads import WHOLE, Later

OTHER = "moonshotai/kimi-k3"
OK = answer(200, WHOLE)


def two_channels(upstream: FakeUpstream) -> dict[str, Offer]:
    """One model at two providers (paths /a and /b, a is cheaper), another model at a third (/c)."""
    cheap = candidate(channel(upstream, "alpha", path="/a"), prompt_nusd=100)
    dear = candidate(channel(upstream, "beta", path="/b"), prompt_nusd=200)
    third = channel(upstream, "gamma", path="/c", id=f"{OTHER}@gamma")
    return {MODEL: Offer(MODEL, (dear, cheap), 128_000, 8_192), OTHER: offer(third, model=OTHER)}


def by_path(**scripts: Script) -> "dict[str, Script]":
    return {f"/{name}": script for name, script in scripts.items()}


def rig(**scripts: Script) -> Rig:
    table = by_path(**scripts)
    return Rig(lambda request: table[request.target], offers=two_channels)


def targets(requests: list[Received]) -> str:
    return "".join(request.target[1:] for request in requests)


async def test_the_cheapest_channel_is_tried_first_and_named() -> None:
    async with rig(a=OK, b=OK) as one:
        got = await one.ask()
        assert targets(one.upstream.requests) == "a"
        assert got.headers["x-dragonfly-provider"] == "alpha"
        assert got.json()["provider"] == "alpha"


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("500", answer(500, b"{}")),
        ("503 HTML", answer(503, b"<html>", "text/html")),
        ("404 model", answer(404, b'{"error":{"code":"model_not_found"}}')),
        ("garbage", answer(200, b"<html>", "text/html")),
    ],
)
async def test_a_channel_that_fails_several_requests_is_left_alone_and_tried_when_nothing_else_is_left(
    name: str, script: Script
) -> None:
    async with rig(a=script, b=OK) as one:
        for _ in range(FAILURES_MAX):
            got = await one.ask()
            assert got.status == 200, name
        assert targets(one.upstream.requests) == "ab" * FAILURES_MAX
        await one.ask()
        assert targets(one.upstream.requests) == "ab" * FAILURES_MAX + "b", "now it cools down"
        await one.ask(chat_body(provider={"only": ["alpha"], "allow_fallbacks": False}))
        assert targets(one.upstream.requests).endswith("ba")
        await one.at_rest()


async def test_one_request_that_fails_again_and_again_takes_the_channel_from_nobody() -> None:
    async with Rig([*[answer(500, b"{}")] * 4, OK]) as one:
        assert (await one.ask()).status == 502
        assert one.gateway.board.of(f"{MODEL}@deepseek").cooldown_s == 0
        assert (await one.ask()).status == 200


async def test_a_slow_probe_does_not_keep_the_others_out() -> None:
    async with Rig([OK]) as one:
        clock = Later()
        one.gateway.board._clock = clock
        health = one.gateway.board.of(f"{MODEL}@deepseek")
        one.gateway.board.note_failure(health, retry_after_s=2.0, lasting=False)
        assert one.gateway.board.standing(health, None) is Standing.COOLING
        clock.s += 2
        assert one.gateway.board.standing(health, None) is Standing.PROBE
        one.gateway.board.started(health)
        assert one.gateway.board.standing(health, None) is Standing.COOLING
        clock.s += 2
        assert one.gateway.board.standing(health, None) is Standing.PROBE


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("429", answer(429, b'{"error":{"message":"slow down"}}', retry_after="7")),
        ("402", answer(402, b'{"error":{"message":"Insufficient Balance","type":"unknown_error"}}')),
        ("401", answer(401, b'{"error":{"type":"authentication_error"}}')),
    ],
)
async def test_a_channel_that_refuses_is_left_for_the_next_and_the_client_sees_only_the_answer(
    name: str, script: Script
) -> None:
    async with rig(a=script, b=OK) as one:
        got = await one.ask()
        assert got.status == 200, name
        assert got.headers["x-dragonfly-provider"] == "beta"
        assert targets(one.upstream.requests) == "ab"
        assert one.purse.settlements[0].attempts == 2
        await one.ask()
        assert targets(one.upstream.requests) == "abb", "the failed channel cools down"
        await one.at_rest()


async def test_a_stream_fails_over_while_nothing_has_been_sent() -> None:
    broken = stream([b": keep-alive\n\n", b'data: {"error":{"message":"overloaded"}}\n\n'])
    async with rig(a=broken, b=stream(ANSWER)) as one:
        got = await one.ask(STREAMED)
        assert got.body == b"".join(ANSWER)
        assert targets(one.upstream.requests) == "ab"


async def test_a_stream_does_not_fail_over_once_something_was_sent() -> None:
    async with rig(a=stream([FIRST], ended=True), b=stream(ANSWER)) as one:
        got = await one.ask(STREAMED)
        assert got.body.startswith(FIRST)
        assert got.events()[-2]["error"]["code"] == "upstream_error"
        assert targets(one.upstream.requests) == "a"


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (answer(400, b'{"error":{"message":"bad tool","type":"invalid_request_error"}}'), 400, "upstream_refused"),
        (
            answer(400, b'{"error":{"message":"This model\'s maximum context length is 1048565 tokens"}}'),
            400,
            "context_length_exceeded",
        ),
        (answer(413, b"{}"), 413, "request_too_large"),
    ],
)
async def test_what_is_the_callers_fault_is_returned_at_once(script: Script, status: int, code: str) -> None:
    async with rig(a=script, b=OK, c=OK) as one:
        got = await one.ask()
        assert (got.status, got.code) == (status, code)
        assert targets(one.upstream.requests) == "a"
        assert one.purse.settlements[0].outcome is Outcome.UPSTREAM_REFUSED
        assert one.gateway.board.of(f"{MODEL}@alpha").cooldown_s == 0
        second = await one.ask(chat_body(models=[OTHER]))
        assert second.json()["model"] == OTHER, "a fallback model may take what another refused"


async def test_fallback_models_are_tried_in_order_and_the_one_that_answers_is_billed_and_named() -> None:
    down = answer(500, b"{}")
    async with rig(a=down, b=down, c=OK) as one:
        got = await one.ask(chat_body(models=["no/such-model", OTHER]))
        assert got.json()["model"] == OTHER
        assert one.purse.settlements[0].answered_model == OTHER
        assert targets(one.upstream.requests) == "abc"
        forwarded = json.loads(one.upstream.requests[-1].body)
        assert "models" not in forwarded


async def test_a_lone_channel_is_tried_again_after_a_pause() -> None:
    scripts = [answer(500, b"{}"), answer(503, b"{}"), OK]
    async with Rig(scripts) as one:
        got = await one.ask()
        assert got.status == 200
        assert len(one.upstream.requests) == 3


async def test_tries_are_bounded() -> None:
    async with Rig([answer(500, b"{}")]) as one:
        got = await one.ask()
        assert (got.status, got.code) == (502, "upstream_error")
        assert len(one.upstream.requests) == one.settings.upstream.attempts_max


async def test_an_upstream_account_without_funds_is_our_503_and_reported() -> None:
    script = answer(402, b'{"error":{"message":"Insufficient Balance"}}')
    async with Rig([script]) as one:
        got = await one.ask()
        assert (got.status, got.code) == (503, "no_healthy_channel")
        assert got.headers["retry-after"]
        assert (
            "channel_failed",
            {"channel": f"{MODEL}@deepseek", "kind": "no_balance", "status": 402},
        ) in one.reports
        again = await one.ask()
        assert again.status == 503
        assert len(one.upstream.requests) == 1, "it is out of service"


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({"order": ["beta"]}, "beta"),
        ({"order": ["nobody", "beta"]}, "beta"),
        ({"only": ["beta"]}, "beta"),
        ({"ignore": ["alpha"]}, "beta"),
        ({"sort": "price"}, "alpha"),
        ({"max_price": {"prompt": 0.15}}, "alpha"),
        ({"order": [f"{MODEL}@beta"]}, "beta"),
    ],
)
async def test_the_callers_wishes_are_honoured(wishes: dict[str, object], expected: str) -> None:
    async with rig(a=OK, b=OK) as one:
        got = await one.ask(chat_body(provider=wishes))
        assert got.headers["x-dragonfly-provider"] == expected
        assert "provider" not in json.loads(one.upstream.requests[0].body)


async def test_wishes_that_leave_no_channel_are_refused_by_name() -> None:
    async with rig(a=OK, b=OK) as one:
        for wishes in ({"only": ["nobody"]}, {"ignore": ["alpha", "beta"]}, {"max_price": {"completion": 0.1}}):
            got = await one.ask(chat_body(provider=wishes))
            assert (got.status, got.code) == (503, "no_route")
        assert not one.purse.settlements


async def test_without_fallbacks_only_the_first_channel_is_tried_once() -> None:
    async with rig(a=answer(500, b"{}"), b=OK) as one:
        got = await one.ask(chat_body(provider={"allow_fallbacks": False}))
        assert got.status == 502
        assert targets(one.upstream.requests) == "a"


async def test_measured_latency_and_throughput_decide_when_asked_for() -> None:
    async with rig(a=OK, b=OK) as one:
        one.gateway.board.of(f"{MODEL}@alpha").latency_s = 2.0
        one.gateway.board.of(f"{MODEL}@beta").latency_s = 0.5
        assert (await one.ask(chat_body(provider={"sort": "latency"}))).json()["provider"] == "beta"
        one.gateway.board.of(f"{MODEL}@alpha").tokens_per_s = 90.0
        one.gateway.board.of(f"{MODEL}@beta").tokens_per_s = 100.0
        assert (await one.ask(chat_body(provider={"sort": "throughput"}))).json()["provider"] == "beta"


async def test_after_the_cool_down_one_request_probes_and_success_brings_the_channel_back() -> None:
    scripts = {"/a": answer(429, b"{}", retry_after="7"), "/b": OK}
    async with Rig(lambda request: scripts[request.target], offers=two_channels) as one:
        await one.ask()
        clock = Later()
        clock.s = one.gateway.clock.monotonic_s() + 6
        one.gateway.board._clock = clock
        await one.ask()
        assert targets(one.upstream.requests) == "abb"
        clock.s += 2
        health = one.gateway.board.of(f"{MODEL}@alpha")
        assert one.gateway.board.standing(health, None) is Standing.PROBE
        scripts["/a"] = OK
        await one.ask()
        assert targets(one.upstream.requests) == "abba"
        assert one.gateway.board.standing(health, None) is Standing.READY


async def test_a_channel_at_its_concurrency_limit_is_passed_over() -> None:
    def limited(upstream: FakeUpstream) -> dict[str, Offer]:
        first = candidate(channel(upstream, "alpha", path="/a", concurrency_max=1), prompt_nusd=100)
        second = candidate(channel(upstream, "beta", path="/b", concurrency_max=1), prompt_nusd=200)
        return {MODEL: Offer(MODEL, (first, second), 128_000, 8_192)}

    scripts: dict[str, Script] = {"/a": [Stall()], "/b": [Stall()]}
    async with Rig(lambda request: scripts[request.target], offers=limited) as one:
        for count in (1, 2):
            client = await one.connect()
            client.send(post(STREAMED))
            await one.upstream.received(count)
        assert targets(one.upstream.requests) == "ab"
        got = await one.ask()
        assert (got.status, got.code) == (503, "no_healthy_channel")
        assert got.headers["retry-after"] == "1"


async def test_connections_that_the_provider_closed_while_idle_cost_no_attempt() -> None:
    closing = answer(200, WHOLE)
    async with Rig([closing]) as one:
        for _ in range(3):
            await one.ask()
        for connection in list(one.pool._open):
            assert connection.transport is not None
        assert one.purse.settlements[-1].attempts == 1


async def test_nobody_listening_is_an_upstream_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = Origin("127.0.0.1", taken.getsockname()[1], tls=False)
    async with Rig([OK], offers=lambda up: {MODEL: offer(channel(up, origin=closed))}) as one:
        got = await one.ask()
        assert (got.status, got.code) == (502, "upstream_error")
        await one.at_rest()


async def test_refusals_of_admission_have_their_shape() -> None:
    async with Rig([OK]) as one:
        one.purse.refusal = InsufficientBalance(needed_nusd=5_000_000, available_nusd=1_000, limit="account")
        got = await one.ask()
        assert (got.status, got.code) == (402, "insufficient_balance")
        assert got.json()["error"]["metadata"] == {
            "needed_usd": "0.005",
            "available_usd": "0.000001",
            "limit": "account",
        }
        one.purse.refusal = RateLimited(what="requests", limit=60, retry_after_s=2.4)
        got = await one.ask()
        assert (got.status, got.code, got.headers["retry-after"]) == (429, "rate_limited", "3")
        assert got.headers["x-ratelimit-limit-requests"] == "600"
        one.purse.refusal = StoreUnavailable()
        got = await one.ask()
        assert (got.status, got.headers["retry-after"]) == (503, "2")
        assert not one.upstream.requests
        one.purse.refusal = None
        got = await one.ask()
        assert got.headers["x-ratelimit-remaining-requests"] == "599"


async def test_a_clamp_is_written_into_the_request_and_told_in_a_header() -> None:
    async with Rig([OK]) as one:
        one.purse.clamp = 77
        got = await one.ask()
        assert got.headers["x-dragonfly-max-tokens"] == "77"
        assert json.loads(one.upstream.requests[0].body)["max_tokens"] == 77


async def test_the_waiting_way_of_admission_gives_the_same_answer() -> None:
    async with Rig([stream(ANSWER)]) as one:
        one.purse.slow = True
        got = await one.ask(STREAMED)
        assert got.body == b"".join(ANSWER)
        assert (await one.ask(key=b"sk-df-nope")).status == 401
        assert DONE in got.body
        await one.at_rest()
