"""The load generator: what it counts, what it proves, what it refuses."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from statistics import mean, pstdev

import pytest
import pytest_asyncio

from bench import mock
from bench.answers import at_once, stream_answer
from bench.closed import closed_loop
from bench.histogram import histogram_of
from bench.measures.load import LATENESS_SHARE_MAX, _judged
from bench.modes import mode_of
from bench.openloop import constant_times, open_loop, poisson_times
from bench.processes import consumption, cpu_clock_ns, pss_bytes, schedstat_ns, tree
from bench.prompts import Target, body
from bench.streams import whole_streams
from bench.verify import STAMPED, Verdict, expected_body, judge
from bench.windows import Refused, Window


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Target]:
    server = await mock.serve("127.0.0.1", 0)
    async with server:
        yield Target("direct", "127.0.0.1", server.sockets[0].getsockname()[1])


async def test_a_closed_loop_counts_every_answer_and_proves_it(upstream: Target) -> None:
    window = await closed_loop(upstream, "bench-json-230", connections=4, seconds=5, warm_s=0.01, requests_max=200)
    window.accept()
    assert window.units == window.latency.count == 200
    assert window.verdicts[Verdict.EXACT] == 200


@pytest.mark.parametrize("mode", ["bench-fault-500", "bench-fault-reset", "bench-fault-garbage", "bench-fault-cut"])
async def test_a_window_with_a_failure_is_refused(upstream: Target, mode: str) -> None:
    window = await closed_loop(upstream, mode, connections=2, seconds=5, warm_s=0.01, requests_max=10)
    with pytest.raises(Refused):
        window.accept()


async def test_an_open_loop_sends_as_often_as_planned_and_publishes_its_lateness(upstream: Target) -> None:
    times = constant_times(400.0, 0.5)
    window = (await open_loop(upstream, "bench-json-230", times, seconds=0.5, connections=8)).accept()
    assert window.units == 200
    assert window.lateness.count == 200
    assert window.latency.lowest > 0


async def test_waiting_for_a_free_connection_counts_as_latency(upstream: Target) -> None:
    times = iter([0, 0, 0])
    window = (await open_loop(upstream, "bench-late-20", times, seconds=1.0, connections=1)).accept()
    assert window.latency.highest >= 60_000_000, "the third waited for two answers"


async def test_streams_of_a_window_are_counted_chunk_by_chunk_and_proved(upstream: Target) -> None:
    window = (await whole_streams(upstream, "bench-sse-10x2000", count=5)).accept()
    assert window.units == 50
    assert 0 < window.gap.count <= 45, "gaps are counted once all streams run"
    assert window.verdicts[Verdict.EXACT] == 5
    assert window.transit.lowest >= 0


def test_constant_times_are_even() -> None:
    times = list(constant_times(1_000.0, 0.1))
    assert len(times) == 100
    assert {later - earlier for earlier, later in pairwise(times)} == {1_000_000}


def test_poisson_times_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    times = list(poisson_times(1_000.0, 20.0, seed=3))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert pstdev(gaps) == pytest.approx(mean(gaps), rel=0.05)
    assert times == list(poisson_times(1_000.0, 20.0, seed=3))
    assert times[-1] < 20_000_000_000


def test_a_window_whose_generator_was_late_is_refused() -> None:
    window = Window("nginx", "bench-json-230", 1, units=100)
    window.latency = histogram_of([1_000_000] * 100)
    window.lateness = histogram_of([int(1_000_000 * LATENESS_SHARE_MAX) + 10_000] * 100)
    with pytest.raises(Refused, match="itself was late"):
        _judged("nginx", "load_20_p99", window, 1_000.0)


@pytest.mark.parametrize("size", [1_024, 100_000, 1_000_000])
def test_a_request_body_has_nearly_the_size_asked_for(size: int) -> None:
    assert len(body({"model": "bench-json-230"}, streamed=False, prompt_bytes=size)) == pytest.approx(size, rel=0.05)


def test_a_body_with_one_byte_changed_is_never_exact() -> None:
    mode = mode_of("bench-sse-5x0")
    good = expected_body(mode)
    assert judge(mode, good) is Verdict.EXACT
    stamps = {at for match in STAMPED.finditer(good) for at in range(match.start(2), match.end(2))}
    for position in sorted(set(range(0, len(good), 7)) - stamps):
        changed = good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]
        assert judge(mode, changed) is not Verdict.EXACT


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body.replace(b"tok000002", b"tok000003"),
        lambda body: body.replace(b'"finish_reason":"stop"', b'"finish_reason":null'),
        lambda body: body.replace(b"data: [DONE]\n\n", b""),
        lambda body: body.replace(b'"completion_tokens":5', b'"completion_tokens":6'),
        lambda body: body.replace(b'"usage"', b'"other"'),
        lambda body: body[: len(body) // 2],
        lambda body: b"",
    ],
    ids=["order", "finish", "end", "count", "usage", "half", "empty"],
)
def test_a_spoilt_stream_is_wrong(spoil: object) -> None:
    assert callable(spoil)
    mode = mode_of("bench-sse-5x0")
    assert judge(mode, spoil(expected_body(mode))) is Verdict.WRONG


def test_a_stream_in_other_words_with_the_same_content_is_rebuilt() -> None:
    mode = mode_of("bench-sse-5x0")
    other = expected_body(mode).replace(b'"logprobs":null,', b"").replace(b"\n\n", b"\n\n: comment\n\n")
    assert judge(mode, other) is Verdict.REBUILT


def test_the_expected_body_is_what_the_mock_frames() -> None:
    mode = mode_of("bench-openai-3x0")
    raw = at_once(mode, stream_answer(mode)).partition(b"\r\n\r\n")[2]
    found = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        found += raw[: int(size, 16)]
        raw = raw[int(size, 16) + 2 :]
    assert found == expected_body(mode)


def test_cpu_time_counts_threads_and_children_and_agrees_with_schedstat() -> None:
    program = (
        "import subprocess, sys, threading\n"
        "def spin(): sum(range(3_000_000))\n"
        "thread = threading.Thread(target=spin); thread.start(); thread.join()\n"
        "child = subprocess.Popen([sys.executable, '-c', 'sum(range(3_000_000)); print(1, flush=True); input()'],"
        " stdin=subprocess.PIPE)\n"
        "input()\n"
    )
    process = subprocess.Popen((sys.executable, "-c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        assert len(tree(process.pid)) == 2
        seen = consumption(process.pid)
        own = cpu_clock_ns(process.pid)
        assert seen.cpu_ns > own, "the child counts too"
        assert own > schedstat_ns(process.pid), "schedstat has forgotten the thread that ended"
        assert pss_bytes(process.pid) > 1_000_000
    finally:
        process.kill()
        process.communicate()
    assert cpu_clock_ns(os.getpid()) == pytest.approx(schedstat_ns(os.getpid()), rel=0.2)
