"""Token counts: every position and spelling, nothing ever added up, contradictions clamped and told."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from dragonfly.core.tokens import Basis, TokenUsage
from dragonfly.providers.dialects import DIALECTS, dialect
from dragonfly.providers.dialects.usage import COUNT_MAX, find_report, read_report

OPENAI = dialect("openai")


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def raw_fields(body: dict[str, Any]) -> dict[str, Raw]:
    return msgspec.json.decode(json.dumps(body), type=dict[str, Raw])


@pytest.mark.parametrize(
    "body",
    [
        {"usage": usage(5, 3)},
        {"usage": None, "x_groq": {"usage": usage(5, 3)}},
        {"choices": [{"usage": usage(5, 3)}]},
        {"choices": [{"usage": None}, {"usage": usage(5, 3)}]},
        {"usage": usage(5, 3), "x_groq": {"usage": usage(5, 3)}, "choices": [{"usage": usage(5, 3)}]},
        {"response": {"usage": {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}}},
        {"message": {"usage": {"input_tokens": 5, "output_tokens": 3}}},
    ],
)
def test_usage_is_found_wherever_it_stands_and_copies_are_not_added(body: dict[str, Any]) -> None:
    assert OPENAI.read_usage(body) == TokenUsage(5, 3)
    assert OPENAI.read_usage(raw_fields(body)) == TokenUsage(5, 3)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"usage": None},
        {"usage": {}},
        {"usage": "12"},
        {"usage": []},
        {"choices": None},
        {"choices": "x"},
        {"choices": [None, 3]},
        {"x_groq": None},
        {"x_groq": {"usage": None}},
        {"usage": {"prompt_tokens": "5", "completion_tokens": None}},
    ],
)
def test_no_usage_is_none_and_not_zero(body: dict[str, Any]) -> None:
    assert OPENAI.read_usage(body) is None
    assert OPENAI.read_usage(raw_fields(body)) is None


@pytest.mark.parametrize(
    "report",
    [
        usage(100, 3, prompt_tokens_details={"cached_tokens": 64}),
        usage(100, 3, cached_tokens=64),
        usage(100, 3, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36),
        {"input_tokens": 100, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 64}},
        {"input_tokens": 36, "output_tokens": 3, "cache_read_input_tokens": 64, "cache_creation_input_tokens": 0},
        {"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36, "completion_tokens": 3},
        usage(100, 3, prompt_tokens_details=None, cached_tokens=64.0),
    ],
)
def test_cached_tokens_are_found_under_every_name(report: dict[str, Any]) -> None:
    reading = OPENAI.audit_usage({"usage": report})
    assert reading is not None
    assert reading == (TokenUsage(100, 3, cached_tokens=64), False)


@pytest.mark.parametrize(
    "report",
    [
        usage(100, 3, prompt_tokens_details={"cache_write_tokens": 20}),
        usage(100, 3, prompt_tokens_details={"cache_creation_input_tokens": 20}),
        usage(100, 3, cache_creation_input_tokens=20),
        {"input_tokens": 80, "output_tokens": 3, "cache_creation_input_tokens": 20},
    ],
)
def test_cache_writes_are_found_under_every_name(report: dict[str, Any]) -> None:
    assert OPENAI.read_usage({"usage": report}) == TokenUsage(100, 3, cache_write_tokens=20)


def test_writes_kept_for_an_hour_are_told_apart() -> None:
    creation = {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 15}
    report = {"input_tokens": 80, "output_tokens": 3, "cache_creation_input_tokens": 20, "cache_creation": creation}
    expected = TokenUsage(100, 3, cache_write_tokens=20, cache_write_1h_tokens=15)
    assert OPENAI.read_usage({"usage": report}) == expected


def test_reasoning_lies_inside_completion_except_at_xai() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 30}}
    assert OPENAI.read_usage({"usage": usage(10, 40, **details)}) == TokenUsage(10, 40, reasoning_tokens=30)
    outside = {"usage": {**usage(10, 40, **details), "total_tokens": 80}}
    assert dialect("xai").audit_usage(outside) == (TokenUsage(10, 70, reasoning_tokens=30), False)


def test_xai_is_not_billed_twice_should_it_ever_count_like_the_others() -> None:
    inside = {"usage": usage(10, 40, completion_tokens_details={"reasoning_tokens": 30})}
    assert dialect("xai").read_usage(inside) == TokenUsage(10, 40, reasoning_tokens=30)


def test_thinking_of_gemini_is_what_the_total_has_beyond_prompt_and_completion() -> None:
    report = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 61}
    assert dialect("gemini").audit_usage({"usage": report}) == (TokenUsage(11, 50, reasoning_tokens=48), False)
    plain = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}
    assert dialect("gemini").read_usage({"usage": plain}) == TokenUsage(11, 2)


def test_a_total_that_does_not_add_up_is_told_and_not_billed() -> None:
    report = {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 999}}
    assert OPENAI.audit_usage(report) == (TokenUsage(10, 5), True)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (usage(10, 10, completion_tokens_details={"reasoning_tokens": 11}), TokenUsage(10, 10, reasoning_tokens=10)),
        (usage(10, 1, cached_tokens=11), TokenUsage(10, 1, cached_tokens=10)),
        (
            usage(10, 1, prompt_tokens_details={"cached_tokens": 6, "cache_write_tokens": 6}),
            TokenUsage(10, 1, cached_tokens=6, cache_write_tokens=4),
        ),
        (usage(10, 1, prompt_cache_hit_tokens=4, prompt_cache_miss_tokens=4), TokenUsage(10, 1, cached_tokens=4)),
        (
            usage(10, 1, cached_tokens=2, prompt_tokens_details={"cached_tokens": 8}),
            TokenUsage(10, 1, cached_tokens=8),
        ),
        ({"prompt_tokens": -1, "completion_tokens": 1}, TokenUsage(0, 1)),
        ({"prompt_tokens": 10, "completion_tokens": 1.5}, TokenUsage(10, 0)),
        ({"prompt_tokens": 10, "completion_tokens": True}, TokenUsage(10, 0)),
        ({"prompt_tokens": 10**30, "completion_tokens": 1}, TokenUsage(COUNT_MAX, 1)),
    ],
)
def test_contradictions_are_clamped_and_told(report: dict[str, Any], expected: TokenUsage) -> None:
    assert OPENAI.audit_usage({"usage": report}) == (expected, True)


_NUMBERS = st.one_of(st.integers(-5, 10**12), st.none(), st.booleans(), st.floats(), st.text(max_size=3))
_DETAILS = st.dictionaries(
    st.sampled_from(
        ["cached_tokens", "cache_write_tokens", "cache_creation_input_tokens", "reasoning_tokens", "audio_tokens"]
    ),
    _NUMBERS,
)
_REPORTS = st.dictionaries(
    st.sampled_from(
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "input_tokens",
            "output_tokens",
            "cached_tokens",
            "prompt_cache_hit_tokens",
            "prompt_cache_miss_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
            "cache_creation",
        ]
    ),
    st.one_of(_NUMBERS, _DETAILS),
)


@given(_REPORTS, st.sampled_from(sorted(DIALECTS)))
def test_whatever_is_reported_the_parts_never_exceed_the_whole(report: dict[str, Any], name: str) -> None:
    reading = read_report(report, dialect(name).usage)
    if reading is None:
        return
    counts = reading.usage
    assert counts.basis is Basis.UPSTREAM
    assert 0 <= counts.cached_tokens + counts.cache_write_tokens <= counts.prompt_tokens <= COUNT_MAX
    assert 0 <= counts.cache_write_1h_tokens <= counts.cache_write_tokens
    assert 0 <= counts.reasoning_tokens <= counts.completion_tokens <= COUNT_MAX
    assert all(type(count) is int for count in counts if not isinstance(count, Basis))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["usage", "choices", "x"]), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["usage", "choices", "x_groq", "message"]), _JSON))
def test_raw_and_decoded_bodies_give_the_same_report(body: dict[str, Any]) -> None:
    assert find_report(raw_fields(body)) == find_report(body)
