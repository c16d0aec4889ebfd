"""The mock upstream: its wire format, its pacing, its faults."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench import mock
from bench.answers import DONE_EVENT
from bench.client import Caller, connect
from bench.launch import NotRunning, answered
from bench.modes import MODELS, Fault, UnknownMode, mode_of
from bench.prompts import Target, request
from bench.timer import FineTimer
from bench.verify import STAMPED, Verdict, events, judge

TIMEOUT_S = 10.0


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Target]:
    server = await mock.serve("127.0.0.1", 0)
    async with server:
        yield Target("direct", "127.0.0.1", server.sockets[0].getsockname()[1])


async def ask(target: Target, mode: str) -> Caller:
    """One request; the caller after its end."""
    done = asyncio.Event()
    caller = await connect(target, lambda _: done.set())
    caller.ask(request(target, mode))
    async with asyncio.timeout(TIMEOUT_S):
        await done.wait()
    caller.close()
    return caller


async def read_raw(target: Target, mode: str) -> bytes:
    """Every byte of one answer, framing included, up to its end."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(request(target, mode))
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await reader.readuntil(b"\r\n0\r\n\r\n")
    finally:
        writer.close()


@pytest.mark.parametrize("name", MODELS)
def test_every_mode_that_is_measured_has_a_valid_name(name: str) -> None:
    assert mode_of(name).name == name


@pytest.mark.parametrize(
    "name", ["", "json-230", "bench-sse-5", "bench-sse-0x5", "bench-fault-nothing", "bench-json-x"]
)
def test_other_names_are_no_modes(name: str) -> None:
    with pytest.raises(UnknownMode):
        mode_of(name)


@pytest.mark.parametrize(("mode", "size"), [("bench-json-230", 230), ("bench-json-1024", 1_024)])
async def test_a_json_answer_has_the_size_asked_for_and_its_usage(upstream: Target, mode: str, size: int) -> None:
    caller = await ask(upstream, mode)
    assert caller.failure == ""
    assert abs(caller.body_bytes - size) <= 20
    assert json.loads(caller.body())["usage"] == {
        "prompt_tokens": 25,
        "completion_tokens": 8,
        "total_tokens": 33,
    }


async def test_a_stream_is_chunked_events_of_openais_form_with_usage_in_the_finish_chunk(upstream: Target) -> None:
    raw = await read_raw(upstream, "bench-sse-3x1000")
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"text/event-stream" in head
    sizes = re.findall(rb"(?:^|\r\n)([0-9a-f]+)\r\n", rest)
    assert len(sizes) == 7, "role, three tokens, finish, done, end"
    body = re.sub(rb"(^|\r\n)[0-9a-f]+\r\n", b"", rest)
    *chunks, done = events(body)
    assert done == DONE_EVENT[6:-2]
    decoded = [json.loads(chunk) for chunk in chunks]
    assert {one["object"] for one in decoded} == {"chat.completion.chunk"}
    assert decoded[0]["choices"][0]["delta"]["role"] == "assistant"
    assert decoded[-1]["choices"][0]["finish_reason"] == "stop"
    assert decoded[-1]["usage"]["completion_tokens"] == 3
    assert [len(one["choices"]) for one in decoded] == [1] * 5


async def test_openais_form_has_usage_in_a_chunk_without_choices(upstream: Target) -> None:
    caller = await ask(upstream, "bench-openai-3x1000")
    *chunks, _ = events(caller.body())
    last = json.loads(chunks[-1])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert judge(mode_of("bench-openai-3x1000"), caller.body()) is Verdict.EXACT


@pytest.mark.parametrize("mode", ["bench-sse-300x0", "bench-sse-20x500", "bench-openai-20x0"])
async def test_streams_arrive_whole_in_order_and_exact(upstream: Target, mode: str) -> None:
    caller = await ask(upstream, mode)
    assert judge(mode_of(mode), caller.body()) is Verdict.EXACT


async def test_chunks_never_leave_early_and_a_stall_does_not_delay_those_after_it(upstream: Target) -> None:
    gap_ns, stall_ns = 5_000_000, 40_000_000
    asyncio.get_running_loop().call_later(0.02, time.sleep, 0.04)
    caller = await ask(upstream, "bench-sse-30x5000")
    stamps = [int(stamp) for _, stamp in STAMPED.findall(caller.body())]
    late = [stamp - stamps[0] - number * gap_ns for number, stamp in enumerate(stamps)]
    assert min(late) >= 0
    assert max(late) >= stall_ns // 2, "the stall was felt"
    assert min(late[-5:]) < stall_ns // 2, "and made up for"


async def test_a_late_answer_waits_for_its_time(upstream: Target) -> None:
    caller = await ask(upstream, "bench-late-30")
    assert caller.failure == ""
    assert caller.ended_ns - caller.sent_ns >= 30_000_000


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault.RATE_LIMITED, "status 429"),
        (Fault.BROKEN, "status 500"),
        (Fault.HTML, "status 502"),
        (Fault.RESET, "closed before the end of the answer"),
        (Fault.CUT, "closed before the end of the answer"),
        (Fault.GARBAGE, "not HTTP"),
    ],
)
async def test_each_fault_is_seen_by_the_generator(upstream: Target, fault: Fault, failure: str) -> None:
    caller = await ask(upstream, f"bench-fault-{fault.value}")
    assert caller.failure == failure


async def test_a_silent_fault_never_answers(upstream: Target) -> None:
    done = asyncio.Event()
    caller = await connect(upstream, lambda _: done.set())
    caller.ask(request(upstream, "bench-fault-silent"))
    assert (await ask(upstream, "bench-json-230")).failure == "", "later requests of others are answered meanwhile"
    assert not done.is_set()
    caller.close()


async def test_the_mode_may_stand_in_the_field_user(upstream: Target) -> None:
    fixed = Target("direct", upstream.host, upstream.port, fixed_model="gpt-4o-mini")
    caller = await ask(fixed, "bench-json-1024")
    assert judge(mode_of("bench-json-1024"), caller.body()) is Verdict.EXACT


async def test_a_question_for_the_lateness_is_answered_with_its_histogram(upstream: Target) -> None:
    await ask(upstream, "bench-sse-10x1000")
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: mock\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.findall(rb"content-length: (\d+)", head)[0])
    rows = json.loads(await reader.readexactly(length))["lateness"]
    writer.close()
    assert sum(count for _, count in rows) == 10


async def test_a_probe_refuses_a_model_that_is_no_mode(upstream: Target) -> None:
    odd = Target("direct", upstream.host, upstream.port, fixed_model="gpt-4o-mini", model_prefix="x")
    with pytest.raises(NotRunning, match="status 500"):
        await asyncio.to_thread(answered, odd, "unknown", timeout_s=TIMEOUT_S)


async def test_the_fine_timer_calls_in_order_never_early_and_with_the_deadline() -> None:
    loop = asyncio.get_running_loop()
    timer = FineTimer(loop)
    start_ns = time.monotonic_ns()
    called: list[tuple[int, int]] = []
    finished = loop.create_future()

    def note(due_ns: int) -> None:
        called.append((due_ns, time.monotonic_ns()))
        if len(called) == 4:
            finished.set_result(None)

    for offset_us in (3_000, 500, 900, 2_000):
        timer.at(start_ns + offset_us * 1_000, note)
    async with asyncio.timeout(TIMEOUT_S):
        await finished
    timer.close()
    assert [due - start_ns for due, _ in called] == [500_000, 900_000, 2_000_000, 3_000_000]
    assert all(at >= due for due, at in called)
