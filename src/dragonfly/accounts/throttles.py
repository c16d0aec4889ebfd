"""Budgets against guessing and flooding; here those in the memory of one process, forgotten within minutes.

A budget is a bucket per rule and subject that fills up again steadily. Nobody is ever locked out for good, and no
budget that strangers can use up stands between an owner and their account: see `sign_in`. What guesses are counted by
is shared by all workers (`watch`); what is here keeps a flood from costing more than memory.
"""

from collections import OrderedDict
from typing import NamedTuple

from dragonfly.core.clock import Clock
from dragonfly.core.errors import DragonflyError

BUCKETS_MAX = 100_000
"""When there are more, those that were not used for the longest time are forgotten."""


class TooManyAttempts(DragonflyError):
    """The budget of a network, or of a network with one address, is used up for now."""

    code = "too_many_attempts"
    status = 429

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("Too many attempts from here. Wait for the seconds in Retry-After.")
        self.retry_after_s = retry_after_s


class Rate(NamedTuple):
    """`attempts` at once, and as many again every `per_s` seconds."""

    name: str
    attempts: int
    per_s: float


class _Bucket(NamedTuple):
    left: float
    at_s: float


class Throttle:
    """Buckets by rule and subject."""

    def __init__(self, clock: Clock, *, buckets_max: int = BUCKETS_MAX) -> None:
        self._clock = clock
        self._buckets_max = buckets_max
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def take(self, rate: Rate, subject: str) -> None:
        """One from the bucket; TooManyAttempts when it is empty."""
        left = self._left(rate, subject)
        if left < 1:
            raise TooManyAttempts((1 - left) * rate.per_s / rate.attempts)
        self._put(rate, subject, left - 1)

    def _left(self, rate: Rate, subject: str) -> float:
        bucket = self._buckets.get((rate.name, subject))
        if bucket is None:
            return float(rate.attempts)
        passed_s = max(0.0, self._clock.monotonic_s() - bucket.at_s)
        return min(float(rate.attempts), bucket.left + passed_s * rate.attempts / rate.per_s)

    def _put(self, rate: Rate, subject: str, left: float) -> None:
        key = (rate.name, subject)
        self._buckets[key] = _Bucket(left, self._clock.monotonic_s())
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._buckets_max:
            self._buckets.popitem(last=False)
