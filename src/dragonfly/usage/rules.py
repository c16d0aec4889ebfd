"""What may be told of a day without telling anything of anybody: groups, caps and the figures of a cell. Pure.

A cell is one model at one provider on one day. Each of its figures is a sum over accounts, and is told only when
enough accounts are in it and none of them weighs much. Nothing else is told: no sum over cells, so that a cell that
is left out cannot be found by subtracting.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

GROUP_MIN = 5
"""No figure is told of fewer accounts."""
REQUESTS_CAP = 1_000
"""One account counts for no more requests in a cell; its failures are scaled down with them."""
PROMPT_TOKENS_CAP = 10_000_000
COMPLETION_TOKENS_CAP = 2_000_000
WAITS_MS = (
    100,
    200,
    300,
    500,
    750,
    1_000,
    1_500,
    2_000,
    3_000,
    5_000,
    7_500,
    10_000,
    20_000,
    30_000,
    60_000,
    600_000,
)
"""Times to the first token are told as the first of these that is not less; the last stands for longer ones too."""
VOTE = 1_000_000
"""What one account weighs in a percentile, however much it asked; its answers share it."""
MEDIAN, TAIL = 50, 95
"""Percentiles that are told."""


class Part(NamedTuple):
    """What one account adds to one cell."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    failures: int
    waits: tuple[int, ...] = (0,) * len(WAITS_MS)
    """How many whole answers began within each of WAITS_MS."""


class Figures(NamedTuple):
    """What is told of a cell; None: too few accounts, or one that weighs too much."""

    requests: int
    prompt_tokens: int | None
    completion_tokens: int | None
    failures: int | None
    ttft_p50_ms: int | None
    ttft_p95_ms: int | None


def figures_of(parts: Sequence[Part]) -> Figures | None:
    """What may be told of a cell, given the part of each account in it; None: not even that it is there."""
    capped = [_capped(part) for part in parts]
    requests = _sum([part.requests for part in capped])
    if requests is None:
        return None
    return Figures(
        requests,
        _sum([part.prompt_tokens for part in capped]),
        _sum([part.completion_tokens for part in capped]),
        _sum([part.failures for part in capped]),
        percentile_ms(parts, MEDIAN),
        percentile_ms(parts, TAIL),
    )


def percentile_ms(parts: Sequence[Part], percent: int) -> int | None:
    """The time within which `percent` of the answers began, each account weighing the same.

    None unless enough accounts have answers on both sides of it: a tail that is one account's is not told.
    """
    waiting = [part.waits for part in parts if sum(part.waits)]
    votes = [0] * len(WAITS_MS)
    for waits in waiting:
        total = sum(waits)
        for place, count in enumerate(waits):
            votes[place] += count * VOTE // total
    place = bisect_left([100 * sum_ for sum_ in accumulate(votes)], percent * sum(votes))
    below = sum(any(waits[: place + 1]) for waits in waiting)
    above = sum(any(waits[place:]) for waits in waiting)
    return WAITS_MS[place] if min(below, above) >= GROUP_MIN else None


def may_tell(values: Sequence[int]) -> bool:
    """Whether the sum of these may be told: they are of enough accounts, and all but the two largest together weigh
    no less than the largest, so that the second cannot guess the first by taking off its own."""
    largest = sorted((value for value in values if value > 0), reverse=True)
    return len(largest) >= GROUP_MIN and sum(largest[2:]) >= largest[0]


def _sum(values: Sequence[int]) -> int | None:
    return sum(values) if may_tell(values) else None


def _capped(part: Part) -> Part:
    requests = min(part.requests, REQUESTS_CAP)
    return part._replace(
        requests=requests,
        prompt_tokens=min(part.prompt_tokens, PROMPT_TOKENS_CAP),
        completion_tokens=min(part.completion_tokens, COMPLETION_TOKENS_CAP),
        failures=part.failures * requests // max(1, part.requests),
    )
