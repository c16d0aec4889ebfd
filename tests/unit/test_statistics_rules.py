"""What is told of a cell is of enough accounts, each capped, and hardly changes without any one of them."""

from bisect import bisect_left
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly.usage.rules import (
    COMPLETION_TOKENS_CAP,
    GROUP_MIN,
    MEDIAN,
    PROMPT_TOKENS_CAP,
    REQUESTS_CAP,
    TAIL,
    VOTE,
    WAITS_MS,
    Part,
    figures_of,
    may_tell,
    percentile_ms,
)

CAPS = (REQUESTS_CAP, PROMPT_TOKENS_CAP, COMPLETION_TOKENS_CAP, REQUESTS_CAP)


def part(requests: int = 10, *, failures: int = 0, wait: int = 4) -> Part:
    waits = [0] * len(WAITS_MS)
    waits[wait] = requests - failures
    return Part(requests, 100 * requests, 20 * requests, failures, tuple(waits))


counts = st.one_of(st.integers(0, 20), st.integers(0, 3 * PROMPT_TOKENS_CAP))
some_waits = st.lists(st.integers(0, 50), min_size=len(WAITS_MS), max_size=len(WAITS_MS)).map(tuple)


@st.composite
def any_part(draw: st.DrawFn) -> Part:
    requests = draw(st.one_of(st.integers(1, 20), st.integers(1, 5 * REQUESTS_CAP)))
    return Part(requests, draw(counts), draw(counts), draw(st.integers(0, requests)), draw(some_waits))


any_cell = st.lists(any_part(), max_size=2 * GROUP_MIN)


def test_a_cell_of_fewer_accounts_than_the_group_is_not_told() -> None:
    assert figures_of([part()] * (GROUP_MIN - 1)) is None
    assert figures_of([]) is None
    told = figures_of([part()] * GROUP_MIN)
    assert told == (10 * GROUP_MIN, 1_000 * GROUP_MIN, 200 * GROUP_MIN, None, WAITS_MS[4], WAITS_MS[4])


def test_an_account_counts_for_no_more_than_the_cap_and_its_failures_shrink_with_it() -> None:
    huge = Part(10 * REQUESTS_CAP, 10 * PROMPT_TOKENS_CAP, 10 * COMPLETION_TOKENS_CAP, 5 * REQUESTS_CAP)
    told = figures_of([huge] * GROUP_MIN)
    assert told is not None
    assert told[:3] == tuple(GROUP_MIN * cap for cap in CAPS[:3])
    assert told.failures == GROUP_MIN * REQUESTS_CAP // 2


def test_a_cell_that_one_account_dominates_is_not_told() -> None:
    assert figures_of([part(1_000), *[part(1)] * 50]) is None
    assert figures_of([part(50), *[part(1)] * 51]) is not None


def test_failures_of_few_accounts_look_like_no_failures() -> None:
    without = figures_of([part()] * (2 * GROUP_MIN))
    few = figures_of([*[part(failures=3)] * (GROUP_MIN - 1), *[part()] * (GROUP_MIN + 1)])
    assert without is not None
    assert few is not None
    assert without.failures is few.failures is None


@pytest.mark.parametrize("percent", [MEDIAN, TAIL])
def test_a_percentile_weighs_accounts_not_requests(percent: int) -> None:
    slow = part(100_000, wait=10)
    assert percentile_ms([slow, *[part(1, wait=2)] * 99], percent) == WAITS_MS[2]


def test_a_tail_that_is_of_few_accounts_is_not_told() -> None:
    slow = [part(wait=10)] * (GROUP_MIN - 1)
    assert percentile_ms([*slow, *[part(wait=2)] * 10], TAIL) is None
    assert percentile_ms([*slow, part(wait=10), *[part(wait=2)] * 10], TAIL) == WAITS_MS[10]


@given(any_cell)
def test_what_is_told_is_of_a_group_in_which_nobody_has_more_than_half(parts: list[Part]) -> None:
    told = figures_of(parts)
    if told is None:
        return
    assert len(parts) >= GROUP_MIN
    for number, cap, name in zip(told, CAPS, Part._fields, strict=False):
        values = sorted(min(getattr(one, name), cap) for one in parts)
        if number is not None:
            assert sum(value > 0 for value in values) >= GROUP_MIN
            assert number <= cap * len(parts)
            if name != "failures":
                assert number == sum(values)
                assert 2 * values[-1] <= number
                assert number - values[-1] - values[-2] >= values[-1], "the second cannot guess the first"


@given(any_cell, st.data())
def test_without_any_one_account_no_figure_changes_by_more_than_the_cap(
    parts: list[Part], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(range(len(parts)))) if parts else None
    whole = figures_of(parts)
    rest = figures_of([one for place, one in enumerate(parts) if place != gone])
    if whole is None or rest is None:
        return
    for before, after, cap in zip(whole, rest, CAPS, strict=False):
        if before is not None and after is not None:
            assert 0 <= before - after <= cap


@given(any_cell, st.integers(0, 2 * GROUP_MIN), st.sampled_from([MEDIAN, TAIL]))
def test_without_any_one_account_a_percentile_stays_within_its_one_vote(
    parts: list[Part], gone: int, percent: int
) -> None:
    waiting = [one for one in parts if sum(one.waits)]
    after = percentile_ms([one for place, one in enumerate(waiting) if place != gone], percent)
    if after is None:
        return
    votes = [sum(one.waits[place] * VOTE // sum(one.waits) for one in waiting) for place in range(len(WAITS_MS))]
    sums = list(accumulate(votes))
    rank = percent * sums[-1] / 100
    low, high = (bisect_left(sums, at) for at in (rank - VOTE, rank + VOTE))
    assert low <= WAITS_MS.index(after) <= min(high, len(WAITS_MS) - 1)


@given(st.lists(st.integers(0, 5), max_size=GROUP_MIN - 1), st.integers(0, 4), st.integers(0, REQUESTS_CAP))
def test_cells_below_the_group_look_the_same_whoever_leaves_or_changes(
    values: list[int], gone: int, other: int
) -> None:
    changed = [other if place == gone else value for place, value in enumerate(values)]
    left = [value for place, value in enumerate(values) if place != gone]
    assert [may_tell(one) for one in (values, changed, left)] == [False] * 3
