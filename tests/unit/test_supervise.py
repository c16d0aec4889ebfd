"""How soon a worker that ended is started again, and who takes a connection."""

from itertools import pairwise

import pytest

from dragonfly.app.accepting import Share, Tally
from dragonfly.app.supervise import RESTART_S, RESTART_S_MAX, START_EVERY_S, restart_pause_s


def test_a_worker_that_served_is_replaced_at_once_but_not_more_often_than_every_second() -> None:
    assert restart_pause_s(lived_s=60.0, failures=0) == 0.0
    assert restart_pause_s(lived_s=0.2, failures=0) == START_EVERY_S - 0.2


def test_starts_that_fail_are_tried_again_ever_later_up_to_a_bound() -> None:
    pauses = [restart_pause_s(lived_s=0.1, failures=failures) for failures in range(1, 200)]
    assert pauses[:3] == [RESTART_S, 2 * RESTART_S, 4 * RESTART_S]
    assert all(earlier <= later for earlier, later in pairwise(pauses))
    assert pauses[-1] == RESTART_S_MAX


@pytest.mark.parametrize(
    ("counts", "takers"),
    [
        ((0, 0, 0), {0, 1, 2}),
        ((1, 0, 0), {0, 1, 2}),
        ((2, 0, 0), {1, 2}),
        ((5, 5, 3), {2}),
        ((110, 100, 105), {0, 1, 2}),
    ],
)
def test_whoever_has_the_fewest_connections_takes_the_next(counts: tuple[int, ...], takers: set[int]) -> None:
    tally = Tally(len(counts))
    for worker, count in enumerate(counts):
        tally.put(worker, count)
    shares = [Share(tally, worker) for worker in range(len(counts))]
    assert {number for number, share in enumerate(shares) if not share.is_exceeded(counts[number])} == takers
