"""The simulated provider speaks DeepSeek's format, says that it is simulated, and fails when it is asked to."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly.core.clock import SystemClock
from dragonfly.providers.connection import BrokenKind
from dragonfly.providers.dialects import FailureKind, dialect
from dragonfly.providers.pool import Pool
from dragonfly.providers.simulated import Fault, SimulatedUpstream
from dragonfly.providers.simulated.answers import answer_to
from dragonfly.providers.simulated.corpus import CHINESE_OPENING, ENGLISH_OPENING, tokens_of
from dragonfly.providers.simulated.schema import example
from tests.fakes.calls import Collector, call, channel_to, new_pool, start_call

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2, "maximum": 7}},
            "required": ["city", "days"],
        },
    },
}
FACTS = dialect("deepseek")


@pytest.fixture
async def upstream() -> AsyncIterator[SimulatedUpstream]:
    async with SimulatedUpstream(clock=SystemClock(), tokens_per_s=0) as running:
        yield running


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    running = new_pool()
    yield running
    await running.close()


def request(question: str = "Hello", **fields: Any) -> bytes:
    body = {"model": "simulated-chat", "messages": [{"role": "user", "content": question}], **fields}
    return json.dumps(body).encode()


async def answered(pool: Pool, upstream: SimulatedUpstream, body: bytes) -> Collector:
    return await call(pool, channel_to(upstream.port), body)


def chunks_of(collector: Collector) -> list[Any]:
    """The decoded data of each event, [DONE] as text."""
    found = []
    for event in collector.body.split(b"\n\n"):
        if event.startswith(b"data: "):
            data = event.removeprefix(b"data: ")
            found.append("[DONE]" if data == b"[DONE]" else json.loads(data))
    return found


async def test_an_answer_says_that_it_is_simulated_and_is_the_same_each_time(
    pool: Pool, upstream: SimulatedUpstream
) -> None:
    first = json.loads((await answered(pool, upstream, request())).body)
    again = json.loads((await answered(pool, upstream, request())).body)
    other = json.loads((await answered(pool, upstream, request("Good evening"))).body)
    text = first["choices"][0]["message"]["content"]
    assert text.startswith(ENGLISH_OPENING)
    assert again["choices"] == first["choices"]
    assert other["choices"] != first["choices"]
    assert first["usage"]["completion_tokens"] == len(tokens_of(text))
    assert upstream.connections, "the connection is kept"


async def test_a_chinese_question_is_answered_in_chinese(pool: Pool, upstream: SimulatedUpstream) -> None:
    body = json.loads((await answered(pool, upstream, request("你好，请介绍一下蜻蜓"))).body)
    assert body["choices"][0]["message"]["content"].startswith(CHINESE_OPENING)


async def test_a_stream_has_the_text_of_the_whole_answer_and_usage_on_the_finish_chunk(
    pool: Pool, upstream: SimulatedUpstream
) -> None:
    whole = json.loads((await answered(pool, upstream, request())).body)
    options = {"include_usage": True}
    collector = await answered(pool, upstream, request(stream=True, stream_options=options))
    chunks = chunks_of(collector)
    assert chunks.pop() == "[DONE]"
    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert [one["usage"] for one in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    usage = FACTS.read_usage(chunks[-1])
    assert usage is not None
    assert usage.prompt_tokens == whole["usage"]["prompt_cache_miss_tokens"]
    assert collector.headers[b"content-type"] == b"text/event-stream; charset=utf-8"


async def test_what_stands_before_the_last_message_counts_as_cached_in_whole_blocks(
    pool: Pool, upstream: SimulatedUpstream
) -> None:
    history = [{"role": "system", "content": "You are brief. " * 60}, {"role": "user", "content": "Hello"}]
    body = json.dumps({"model": "simulated-chat", "messages": history}).encode()
    usage = json.loads((await answered(pool, upstream, body)).body)["usage"]
    assert usage["prompt_cache_hit_tokens"] > 0
    assert usage["prompt_cache_hit_tokens"] % 64 == 0
    assert usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"] == usage["prompt_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_cache_hit_tokens"]


async def test_reasoning_comes_first_when_asked_for_and_is_counted_inside_the_completion(
    pool: Pool, upstream: SimulatedUpstream
) -> None:
    body = request(stream=True, stream_options={"include_usage": True}, thinking={"type": "enabled"})
    chunks = chunks_of(await answered(pool, upstream, body))[:-1]
    kinds = [
        "reasoning" if one["choices"][0]["delta"].get("reasoning_content") else "content" for one in chunks[1:-1]
    ]
    assert kinds == sorted(kinds, reverse=True)
    assert "reasoning" in kinds
    usage = chunks[-1]["usage"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < reasoning < usage["completion_tokens"]


async def test_max_tokens_cuts_the_answer_with_the_reason_length(pool: Pool, upstream: SimulatedUpstream) -> None:
    body = json.loads((await answered(pool, upstream, request(max_tokens=5))).body)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize(
    ("choice", "question", "called"),
    [
        ("required", "Hello", True),
        ({"type": "function", "function": {"name": "get_weather"}}, "Hello", True),
        ("auto", "Please get weather for Kyoto", True),
        ("auto", "Hello", False),
        ("none", "get_weather", False),
    ],
)
async def test_a_tool_is_called_when_demanded_or_mentioned(
    pool: Pool, upstream: SimulatedUpstream, choice: object, question: str, called: bool
) -> None:
    body = request(question, tools=[WEATHER], tool_choice=choice)
    answer = json.loads((await answered(pool, upstream, body)).body)["choices"][0]
    assert (answer["finish_reason"] == "tool_calls") is called
    if called:
        function = answer["message"]["tool_calls"][0]["function"]
        assert function["name"] == "get_weather"
        arguments = json.loads(function["arguments"])
        assert isinstance(arguments["city"], str)
        assert 2 <= arguments["days"] <= 7


async def test_a_streamed_tool_call_names_itself_once_and_then_sends_fragments_by_index(
    pool: Pool, upstream: SimulatedUpstream
) -> None:
    body = request(stream=True, tools=[WEATHER], tool_choice="required")
    chunks = chunks_of(await answered(pool, upstream, body))[:-1]
    calls = [
        one["choices"][0]["delta"]["tool_calls"][0] for one in chunks if "tool_calls" in one["choices"][0]["delta"]
    ]
    assert calls[0]["function"]["name"] == "get_weather"
    assert calls[0]["id"]
    assert all("id" not in call for call in calls[1:])
    json.loads("".join(call["function"]["arguments"] for call in calls))


async def test_a_json_schema_is_answered_with_a_conforming_object(pool: Pool, upstream: SimulatedUpstream) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 12},
            "mood": {"enum": ["calm", "wild"]},
            "legs": {"type": "array", "items": {"$ref": "#/$defs/leg"}, "minItems": 6, "maxItems": 6},
        },
        "required": ["name", "mood", "legs"],
        "$defs": {"leg": {"type": "object", "properties": {"side": {"const": "left"}}, "required": ["side"]}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "insect", "schema": schema}}
    answer = json.loads((await answered(pool, upstream, request(response_format=wanted))).body)
    insect = json.loads(answer["choices"][0]["message"]["content"])
    assert len(insect["name"]) >= 12
    assert insect["mood"] == "calm"
    assert insect["legs"] == [{"side": "left"}] * 6


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fault.BAD_KEY, 401, FailureKind.BAD_KEY),
        (Fault.NO_BALANCE, 402, FailureKind.NO_BALANCE),
        (Fault.RATE_LIMITED, 429, FailureKind.RATE_LIMITED),
        (Fault.OVERLOADED, 503, FailureKind.OVERLOADED),
        (Fault.SERVER_ERROR, 500, FailureKind.OVERLOADED),
        (Fault.BAD_REQUEST, 400, FailureKind.BAD_REQUEST),
        (Fault.CONTEXT_TOO_LONG, 400, FailureKind.CONTEXT_TOO_LONG),
        (Fault.MODEL_UNKNOWN, 404, FailureKind.MODEL_UNKNOWN),
    ],
)
async def test_a_refusal_is_made_on_demand_by_field_and_by_model_name(
    pool: Pool, upstream: SimulatedUpstream, fault: Fault, status: int, kind: FailureKind
) -> None:
    by_field = await answered(pool, upstream, request(simulate=fault.value))
    by_name = await answered(pool, upstream, request(model="simulated-" + fault.value.replace("_", "-")))
    for collector in (by_field, by_name):
        assert collector.status == status
        failure = FACTS.classify(status, collector.headers[b"content-type"], collector.body)
        assert failure.kind is kind


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Fault.CUT, BrokenKind.CUT), (Fault.RESET, BrokenKind.CUT), (Fault.GARBAGE, BrokenKind.GARBAGE)],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_break_is_made_on_demand(
    pool: Pool, upstream: SimulatedUpstream, fault: Fault, kind: BrokenKind, streamed: bool
) -> None:
    collector = await answered(pool, upstream, request(simulate=fault.value, stream=streamed))
    assert collector.end is kind
    assert b'finish_reason":"' not in collector.body


async def test_a_stall_ends_when_the_gateway_leaves(pool: Pool, upstream: SimulatedUpstream) -> None:
    connection, collector = await start_call(pool, channel_to(upstream.port), request(simulate="stall"))
    while not upstream.connections:
        await asyncio.sleep(0)
    connection.abort()
    async with asyncio.timeout(60):
        while upstream.connections:
            await asyncio.sleep(0)
    assert collector.end is None


@pytest.mark.parametrize(
    ("fault", "finish_reason", "error"),
    [
        (Fault.CONTENT_FILTER, "content_filter", False),
        (Fault.OUT_OF_RESOURCES, "error", True),
        (Fault.ERROR_MIDWAY, "", True),
        (Fault.EMPTY, "stop", False),
        (Fault.NO_DONE, "stop", False),
        (Fault.KEEP_ALIVE, "stop", False),
    ],
)
async def test_odd_streams_are_made_on_demand(
    pool: Pool, upstream: SimulatedUpstream, fault: Fault, finish_reason: str, error: bool
) -> None:
    collector = await answered(pool, upstream, request(simulate=fault.value, stream=True))
    facts = [FACTS.inspect_event(event + b"\n\n") for event in collector.body.split(b"\n\n") if event]
    assert "".join(one.finish_reason for one in facts) == finish_reason
    assert any(one.error for one in facts) is error
    assert any(one.done for one in facts) is (fault not in (Fault.NO_DONE, Fault.ERROR_MIDWAY))
    assert sum(one.is_comment for one in facts) == (3 if fault is Fault.KEEP_ALIVE else 0)
    assert any(one.has_output for one in facts) is (fault is not Fault.EMPTY)


async def test_a_stream_keeps_the_pace_that_was_set() -> None:
    loop = asyncio.get_running_loop()
    async with SimulatedUpstream(clock=SystemClock(), tokens_per_s=100.0) as upstream:
        pool = new_pool()
        started_s = loop.time()
        await answered(pool, upstream, request(stream=True, max_tokens=20))
        took_s = loop.time() - started_s
        await pool.close()
    assert took_s >= 0.2


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages": 1}', b"\xff"])
async def test_a_body_that_is_no_request_is_refused(pool: Pool, upstream: SimulatedUpstream, body: bytes) -> None:
    assert (await answered(pool, upstream, body)).status == 400


def test_a_long_prompt_is_counted_without_reading_all_of_it() -> None:
    answer = answer_to({"model": "m", "messages": [{"role": "user", "content": "word " * 2_000_000}]})
    assert answer.prompt_tokens > 2_000_000


def test_a_schema_that_refers_to_itself_ends() -> None:
    tree = {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["value", "next"],
    }
    assert json.dumps(example(tree)).count("value") < 50


_SCALARS = st.sampled_from(
    [{"type": "string"}, {"type": "integer", "minimum": 3}, {"type": "boolean"}, {"type": "null"}, {"enum": [7, 8]}]
)
_SCHEMAS = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        inner.map(lambda one: {"type": "array", "items": one, "minItems": 2}),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(
            lambda some: {"type": "object", "properties": some, "required": list(some)}
        ),
    ),
    max_leaves=8,
)


def conforms(value: Any, schema: dict[str, Any]) -> bool:
    if "enum" in schema:
        return value in schema["enum"]
    match schema["type"]:
        case "object":
            return all(name in value and conforms(value[name], one) for name, one in schema["properties"].items())
        case "array":
            return len(value) >= schema["minItems"] and all(conforms(one, schema["items"]) for one in value)
        case "integer":
            return type(value) is int and value >= schema["minimum"]
        case kind:
            return isinstance(value, {"string": str, "boolean": bool, "null": type(None)}[kind])


@given(_SCHEMAS)
def test_examples_conform_to_simple_schemas(schema: dict[str, Any]) -> None:
    assert conforms(example(schema), schema)
