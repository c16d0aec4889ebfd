"""OpenAI's Python SDK and LangChain, unmodified, against the lane: streams, tools, structured output, errors."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from tests.fakes.purse import KEY
from tests.fakes.upstream import Received, Script, answer, stream
from tests.http.rig import MODEL, Rig

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 9,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 4},
}
WORDS = ["A", " dragon", "fly", " 蜻蜓", "!"]
CALL = {"name": "weather", "arguments": '{"city":"Oslo"}'}
CITY = '{"name":"Oslo","inhabitants":717710}'


class City(BaseModel):
    name: str
    inhabitants: int


def whole(message: dict[str, Any], finish_reason: str = "stop") -> Script:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    body = {"id": "u", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    return answer(200, json.dumps(body).encode())


def chunk(delta: dict[str, Any], finish_reason: str | None = None, usage: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    body = {"id": "u", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps({**body, 'usage': usage})}\n\n".encode()


def streamed(deltas: list[dict[str, Any]], finish_reason: str = "stop") -> Script:
    pieces = [chunk({"role": "assistant", "content": None}), *(chunk(delta) for delta in deltas)]
    return stream([*pieces, chunk({}, finish_reason, USAGE), b"data: [DONE]\n\n"])


def provider(request: Received) -> Script:
    """Answers as a model would: tools when they are offered, JSON when it is asked for, words otherwise."""
    body = json.loads(request.body)
    tools = body.get("tools") and body["messages"][-1]["role"] != "tool"
    if body.get("stream"):
        if tools:
            name, arguments = CALL["name"], CALL["arguments"]
            first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
            rest = [{"index": 0, "function": {"arguments": letter}} for letter in arguments]
            return streamed([{"tool_calls": [part]} for part in (first, *rest)], "tool_calls")
        if body.get("response_format"):
            return streamed([{"content": letter} for letter in CITY])
        return streamed([{"content": word} for word in WORDS])
    if tools:
        call = {"id": "call_1", "type": "function", "function": CALL}
        return whole({"content": None, "tool_calls": [call]}, "tool_calls")
    if body.get("response_format"):
        return whole({"content": CITY})
    return whole({"content": "".join(WORDS), "reasoning_content": "thinking"})


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Rig(provider) as one:
        yield one
        await one.at_rest()


def client(rig: Rig) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=KEY.decode(), base_url=f"http://127.0.0.1:{rig.port}/v1", max_retries=0)


def sync_client(rig: Rig) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY.decode(), base_url=f"http://127.0.0.1:{rig.port}/v1", max_retries=0)


MESSAGES: Any = [{"role": "user", "content": "Say something."}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


async def test_a_whole_answer_has_the_text_the_public_model_and_the_cost(rig: Rig) -> None:
    got = await client(rig).chat.completions.create(model=MODEL, messages=MESSAGES, seed=7, temperature=0.5)
    assert got.choices[0].message.content == "".join(WORDS)
    assert got.model == MODEL
    assert got.usage is not None
    assert got.usage.prompt_tokens_details is not None
    assert got.usage.prompt_tokens_details.cached_tokens == 4
    extra = got.usage.model_extra or {}
    assert extra["cost"] == "0.0000072"
    assert extra["cost_usd"] == 0.0000072
    sent = json.loads(rig.upstream.requests[0].body)
    assert sent["seed"] == 7
    assert sent["temperature"] == 0.5


async def test_a_stream_has_every_word_and_the_cost_in_its_last_chunk(rig: Rig) -> None:
    chunks = [
        one
        async for one in await client(rig).chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    ]
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "".join(WORDS)
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.model_extra or {})["cost"] == "0.0000072"
    assert all(one.usage is None for one in chunks[:-1])


async def test_the_synchronous_client_works_the_same(rig: Rig) -> None:
    def ask() -> tuple[str | None, str]:
        with sync_client(rig) as one:
            plain = one.chat.completions.create(model=MODEL, messages=MESSAGES)
            chunks = one.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
            return plain.choices[0].message.content, "".join(c.choices[0].delta.content or "" for c in chunks)

    assert await asyncio.to_thread(ask) == ("".join(WORDS), "".join(WORDS))


async def test_tools_are_called_and_their_results_taken_back(rig: Rig) -> None:
    one = client(rig)
    got = await one.chat.completions.create(model=MODEL, messages=MESSAGES, tools=TOOLS, parallel_tool_calls=True)
    message = got.choices[0].message
    assert message.tool_calls is not None
    call: Any = message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    assistant: Any = message.model_dump(exclude_none=True)
    answer = await one.chat.completions.create(model=MODEL, messages=[*MESSAGES, assistant, result], tools=TOOLS)
    assert answer.choices[0].message.content == "".join(WORDS)


async def test_streamed_tool_calls_come_in_their_pieces(rig: Rig) -> None:
    async with client(rig).chat.completions.stream(model=MODEL, messages=MESSAGES, tools=TOOLS) as events:
        async for _ in events:
            pass
        final = await events.get_final_completion()
    calls: Any = final.choices[0].message.tool_calls
    assert json.loads(calls[0].function.arguments) == {"city": "Oslo"}
    assert final.choices[0].finish_reason == "tool_calls"


async def test_structured_output_is_parsed_whole_and_streamed(rig: Rig) -> None:
    got = await client(rig).chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=City)
    assert got.choices[0].message.parsed == City(name="Oslo", inhabitants=717710)
    sent = json.loads(rig.upstream.requests[0].body)
    assert sent["response_format"]["type"] == "json_schema"
    async with client(rig).chat.completions.stream(model=MODEL, messages=MESSAGES, response_format=City) as events:
        async for _ in events:
            pass
        final = await events.get_final_completion()
    assert final.choices[0].message.parsed == City(name="Oslo", inhabitants=717710)


async def test_images_reasoning_and_unknown_fields_pass(rig: Rig) -> None:
    picture: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    got = await client(rig).chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": picture}],
        reasoning_effort="high",
        logprobs=True,
        extra_body={"thinking": {"type": "enabled"}, "provider": {"sort": "price"}},
    )
    assert (got.choices[0].message.model_extra or {})["reasoning_content"] == "thinking"
    sent = json.loads(rig.upstream.requests[0].body)
    assert sent["messages"][0]["content"] == picture
    assert sent["thinking"] == {"type": "enabled"}
    assert sent["logprobs"] is True
    assert "provider" not in sent


async def test_refusals_become_the_sdks_exceptions(rig: Rig) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client(rig).chat.completions.create(model="no/such-model", messages=MESSAGES)
    assert unknown.value.code == "model_not_found"
    assert (unknown.value.request_id or "").startswith("gen-")
    with pytest.raises(openai.AuthenticationError) as wrong:
        other = openai.AsyncOpenAI(api_key="sk-df-x", base_url=f"http://127.0.0.1:{rig.port}/v1", max_retries=0)
        await other.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert wrong.value.code == "invalid_api_key"


async def test_a_stream_that_breaks_raises_in_the_sdk() -> None:
    async with Rig([stream([chunk({"content": "Hel"})])]) as rig:
        words = []
        with pytest.raises(openai.APIError) as broken:
            async for one in await client(rig).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
                words.append(one.choices[0].delta.content)
        assert words == ["Hel"]
        assert broken.value.code == "upstream_error"


async def test_leaving_a_stream_early_closes_it(rig: Rig) -> None:
    got = await client(rig).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    async for _ in got:
        break
    await got.close()


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def langchain(rig: Rig, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL,
        api_key=SecretStr(KEY.decode()),
        base_url=f"http://127.0.0.1:{rig.port}/v1",
        max_retries=0,
        **options,
    )


async def test_langchain_asks_streams_and_calls_tools(rig: Rig) -> None:
    model = langchain(rig, stream_usage=True)
    got = await model.ainvoke([HumanMessage("Say something.")])
    assert got.content == "".join(WORDS)
    assert got.usage_metadata is not None
    assert got.usage_metadata["input_tokens"] == 12
    pieces = [piece async for piece in model.astream([HumanMessage("Say something.")])]
    assert "".join(str(piece.content) for piece in pieces) == "".join(WORDS)
    calling = await model.bind_tools([weather]).ainvoke([HumanMessage("Weather?")])
    assert calling.tool_calls[0]["args"] == {"city": "Oslo"}
    structured = model.with_structured_output(City)
    assert await structured.ainvoke([HumanMessage("Which city?")]) == City(name="Oslo", inhabitants=717710)
