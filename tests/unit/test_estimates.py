"""Tokens from bytes: learnt per channel, forgetting, bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly.admission.estimates import FIRST, MEMORY, NOTHING, SAMPLE, Estimates, Sums


def taught(*answers: tuple[int, int]) -> Estimates:
    estimates = Estimates()
    for output_bytes, tokens in answers:
        assert estimates.is_due("a")
        estimates.learn("a", prompt_bytes=300, prompt_tokens=100, output_bytes=output_bytes, output_tokens=tokens)
    return estimates


def test_without_knowledge_events_count_and_four_bytes_are_a_token() -> None:
    estimates = Estimates()
    assert estimates.output_tokens("a", 400) == 100
    assert estimates.output_tokens("a", 400, events=130) == 130
    assert estimates.output_tokens("a", 0) == 0
    assert estimates.prompt_tokens("a", 0) == 1


def test_what_was_counted_decides_per_channel() -> None:
    estimates = taught((300, 150), (300, 150))
    assert estimates.output_tokens("a", 1_000, events=7) == 500
    assert estimates.prompt_tokens("a", 600) == 200
    assert estimates.output_tokens("b", 1_000) == 250


def test_old_answers_are_forgotten_slowly() -> None:
    estimates = taught(*[(400, 100)] * FIRST)
    learnt = 0
    for _ in range(8 * MEMORY):
        if estimates.is_due("a"):
            learnt += 1
            estimates.learn("a", prompt_bytes=0, prompt_tokens=0, output_bytes=200, output_tokens=100)
    assert learnt == pytest.approx(8 * MEMORY / SAMPLE, abs=1)
    assert 400 < estimates.output_tokens("a", 1_000) < 500


def test_what_was_learnt_survives_a_restart() -> None:
    estimates = taught((300, 150))
    stored = estimates.take_new()
    assert [(name, sums.seen) for name, sums in stored] == [("a", 1)]
    assert estimates.take_new() == []
    later = Estimates()
    later.load(stored)
    assert later.output_tokens("a", 1_000) == 500
    assert later.take_new() == []


@given(st.lists(st.tuples(*[st.integers(0, 10**9)] * 4), max_size=40), st.integers(0, 10**8))
def test_no_report_makes_an_estimate_absurd(answers: list[tuple[int, int, int, int]], text_bytes: int) -> None:
    estimates = Estimates()
    for prompt_bytes, prompt_tokens, output_bytes, output_tokens in answers:
        if estimates.is_due("a"):
            estimates.learn(
                "a",
                prompt_bytes=prompt_bytes,
                prompt_tokens=prompt_tokens,
                output_bytes=output_bytes,
                output_tokens=output_tokens,
            )
    assert 1 <= estimates.prompt_tokens("a", text_bytes) <= max(1, 4 * text_bytes)
    assert 0 <= estimates.output_tokens("a", text_bytes) <= max(1, 4 * text_bytes)
    assert all(value >= 0 for sums in (Sums(*NOTHING), *(s for _, s in estimates.take_new())) for value in sums)
