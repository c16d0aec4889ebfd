"""The quick reading of usage agrees with the careful one on everything that it accepts."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from dragonfly.providers.dialects.usage import UsageRules, read_report
from dragonfly.providers.dialects.usual import read_usual

counts = st.one_of(st.integers(-2, 50), st.none(), st.just(2**40), st.just("5"), st.just(1.5), st.booleans())
details = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(
            ["cached_tokens", "cache_write_tokens", "cache_creation_tokens", "audio_tokens", "reasoning_tokens"]
        ),
        counts,
    ),
)
names = st.sampled_from(
    ["cached_tokens", "prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "reasoning_tokens", "input_tokens", "x"]
)


@given(
    prompt=st.integers(0, 50),
    completion=st.integers(0, 50),
    off=st.sampled_from([0, 0, 0, 1, -1]),
    prompt_details=details,
    completion_details=details,
    others=st.dictionaries(names, counts, max_size=3),
)
def test_what_the_quick_reading_accepts_the_careful_one_reads_the_same(
    prompt: int,
    completion: int,
    off: int,
    prompt_details: object,
    completion_details: object,
    others: dict[str, object],
) -> None:
    report = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion + off,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": completion_details,
        **others,
    }
    raw = Raw(json.dumps(report).encode())
    quick = read_usual(raw)
    if quick is not None:
        careful = read_report(msgspec.json.decode(raw), UsageRules())
        assert careful is not None
        assert quick == careful.usage
        assert not careful.contradicts


def test_the_common_reports_are_read_quickly() -> None:
    assert read_usual(Raw(b'{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}')) == (5, 2, 0, 0, 0, *_rest())
    deepseek = (
        b'{"prompt_tokens":11,"completion_tokens":8,"total_tokens":19,"prompt_tokens_details":{"cached_tokens":3},'
        b'"prompt_cache_hit_tokens":3,"prompt_cache_miss_tokens":8,"completion_tokens_details":{"reasoning_tokens":4}}'
    )
    assert read_usual(Raw(deepseek)) == (11, 8, 3, 0, 4, *_rest())


def _rest() -> tuple[object, ...]:
    usage = read_usual(Raw(b'{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'))
    assert usage is not None
    return usage[5:]
