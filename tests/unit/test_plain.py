"""`plain_events` never says plain of an event that means something, however it is written."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dragonfly.providers.dialects import DIALECTS, plain_events
from dragonfly.providers.dialects.facts import EventFacts

CHUNK = {
    "id": "own",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "own",
    "choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}],
    "usage": None,
}
ALL = tuple(DIALECTS.values())


def event(data: str | bytes) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")) + b"\n\n"


def matters(facts: EventFacts) -> bool:
    return facts._replace(has_output=False, output_bytes=0, obj=None, choices_empty=False) != EventFacts()


def means_nothing(data: bytes) -> bool:
    return not any(matters(one.inspect_event(data)) for one in ALL)


def test_ordinary_chunks_are_plain_alone_and_together() -> None:
    one = event(json.dumps(CHUNK, separators=(",", ":")))
    spaced = event(json.dumps(CHUNK, indent=None))
    assert plain_events(one)
    assert plain_events(spaced)
    assert plain_events(one * 7 + spaced)


@pytest.mark.parametrize(
    "data",
    [
        b"data: [DONE]\n\n",
        b": keep-alive\n\n",
        b"\n\n",
        b"",
        b"event: error\ndata: {}\n\n",
        b'error: {"code":500}\n\n',
        b'{"error":{"code":500}}\n\n',
        b'data: {"error":{"code":500}}\n\n',
        b'data: {"\\u0065rror":{"code":500}}\n\n',
        b'data: {"err\\u006fr" : "text"}\n\n',
        b'data: {"choices":[{"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"finish_reason"\t:\t"stop"}]}\n\n',
        b'data: {"choices":[{"finish_reason":null,"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"finish_reason":null},{"\\u0066inish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"error":{"message":"x"}}]}\n\n',
        b'data: {"choices":[{"usage":{"prompt_tokens":1}}]}\n\n',
        b'data: {"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"usage":null,"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"x_groq":{"usage":{"prompt_tokens":1}}}\n\n',
        b'data: {"base_resp":{"status_code":1008}}\n\n',
        b'data: {"code":"1302","message":"x"}\n\n',
        b'data: {"object":"error","message":"x"}\n\n',
        b'data: {"choices":[]}\ndata: {"error":1}\n\n',
        b'data: {"choices":[]}\revent: error\n\n',
        b'data: {"choices":[]}\r\n\r\n',
        b'data: {"choices":[]}\n\ndata: [DONE]\n\n',
        b'data: {"choices":[]}\n\n: comment\n\n',
        b'data: {"choices":[]}\n\ndata: {"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"choices":[]}\n',
        b'data: {"choices":[]}',
        b'data: {"choices":[}\n\n',
    ],
)
def test_what_means_something_or_is_oddly_framed_is_not_plain(data: bytes) -> None:
    assert not plain_events(data)


_NAMES = [
    "choices",
    "usage",
    "error",
    "finish_reason",
    "native_finish_reason",
    "x_groq",
    "base_resp",
    "message",
    "object",
    "code",
    "type",
    "delta",
    "content",
    "status_code",
    "prompt_tokens",
    "response",
]
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2_000),
    st.sampled_from(["stop", "error", "", "chat.completion.chunk", "[DONE]", "\n", "\u2028", "data: [DONE]", "é"]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4),
    max_leaves=10,
)
_CHOICES = st.lists(st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=4), max_size=3)
_OBJECTS = st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=5).flatmap(
    lambda fields: _CHOICES.map(lambda choices: {**fields, "choices": choices}) | st.just(fields)
)


@st.composite
def written(draw: st.DrawFn, value: Any) -> str:
    """A value as JSON in any spelling: spaces, key order as given, letters of names and texts escaped at will."""
    space = draw(st.sampled_from(["", " ", "\t", "  "]))
    if isinstance(value, dict):
        parts = [f"{draw(written(key))}{space}:{space}{draw(written(one))}" for key, one in value.items()]
        return "{" + space + f",{space}".join(parts) + space + "}"
    if isinstance(value, list):
        return "[" + space + f",{space}".join(draw(written(one)) for one in value) + space + "]"
    if isinstance(value, str) and value and draw(st.booleans()):
        position = draw(st.integers(0, len(value) - 1))
        escaped = "".join(
            f"\\u{ord(letter):04x}" if index == position else json.dumps(letter, ensure_ascii=False)[1:-1]
            for index, letter in enumerate(value)
        )
        return f'"{escaped}"'
    return json.dumps(value, ensure_ascii=False)


@settings(max_examples=400)
@given(_OBJECTS.flatmap(written))
@example('{"choices":[{"index":0,"delta":{"content":"\\u0065rror"},"finish_reason":null}]}')
def test_plain_objects_mean_nothing_to_any_dialect(text: str) -> None:
    data = event(text)
    if plain_events(data):
        assert means_nothing(data)


_FRAMES = st.lists(
    st.sampled_from(
        [
            b"data: ",
            b"data:",
            b"event: error",
            b"error: ",
            b": c",
            b"\n",
            b"\n\n",
            b"\r",
            b"\r\n",
            b'{"choices":[]}',
            b'{"error":1}',
            b'{"usage":{"prompt_tokens":1}}',
            b"[DONE]",
            b"[",
            b" ",
            b"\xef\xbb\xbf",
            b"id: 1",
        ]
    ),
    max_size=8,
)


@settings(max_examples=400)
@given(_FRAMES)
def test_plain_reads_mean_nothing_however_they_are_framed(parts: list[bytes]) -> None:
    data = b"".join(parts) + b"\n\n"
    if plain_events(data):
        assert all(means_nothing(one + b"\n\n") for one in data[:-2].split(b"\n\n"))


@given(st.binary(max_size=40))
def test_any_bytes_at_all_are_read_without_an_error(junk: bytes) -> None:
    for data in (junk, event(junk), b'data: {"choices":[{"delta":{"content":"' + junk + b'"}}]}\n\n'):
        if plain_events(data) and data.count(b"\n") == 2:
            assert means_nothing(data)
        for one in ALL:
            one.inspect_event(data)
            one.inspect_answer(data)
            one.classify(500, b"", data)


def test_deep_nesting_is_no_error() -> None:
    deep = b'data: {"choices":' + b"[" * 100_000 + b"\n\n"
    assert not plain_events(deep)
    assert means_nothing(deep)
    assert DIALECTS["openai"].classify(500, b"application/json", b"[" * 100_000).kind.value == "overloaded"
