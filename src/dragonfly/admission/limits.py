"""Rate and concurrency of one key in this process. Time comes in as an argument: monotonic seconds."""

from typing import NamedTuple

from dragonfly.admission.errors import RateLimited
from dragonfly.admission.grants import KeyPolicy

WINDOW_S = 60.0
CONCURRENCY_RETRY_S = 1.0
"""What Retry-After says when too many requests are open: nobody knows when one ends."""
_ROUNDING_S = 1e-6


class RateState(NamedTuple):
    """Where a key stands in its request limit."""

    limit: int
    """Requests per minute; 0: none."""
    remaining: int
    reset_s: float
    """Until the whole limit is there again."""


class KeyMeter:
    """Counts the requests of one key.

    A token bucket that holds one minute's requests and refills evenly, kept as one number (GCRA): the moment at
    which it will be full again. Each request moves that moment by the interval between two requests.
    """

    __slots__ = ("_full_at_s", "open")

    def __init__(self) -> None:
        self._full_at_s = 0.0
        self.open = 0
        """Requests admitted and not yet settled."""

    def enter(self, key: KeyPolicy, now_s: float) -> None:
        """Counts a request that begins; RateLimited, and nothing counted, when the key allows no more."""
        most = key.concurrency_max
        if most and self.open >= most:
            raise RateLimited(what="concurrency", limit=most, retry_after_s=CONCURRENCY_RETRY_S)
        rate = key.requests_per_minute
        if rate:
            full_at_s = self._full_at_s
            full_at_s = (full_at_s if full_at_s > now_s else now_s) + WINDOW_S / rate
            if full_at_s > now_s + WINDOW_S + _ROUNDING_S:
                raise RateLimited(what="requests", limit=rate, retry_after_s=full_at_s - now_s - WINDOW_S)
            self._full_at_s = full_at_s
        self.open += 1

    def leave(self) -> None:
        """A request ended."""
        assert self.open > 0, "only what entered leaves"
        self.open -= 1

    def state(self, key: KeyPolicy, now_s: float) -> RateState:
        """What is left of the limit."""
        rate = key.requests_per_minute
        if not rate:
            return RateState(0, 0, 0.0)
        reset_s = max(0.0, self._full_at_s - now_s)
        left = (WINDOW_S - reset_s + _ROUNDING_S) * rate / WINDOW_S
        return RateState(rate, max(0, min(rate, int(left))), reset_s)

    def is_idle(self, now_s: float) -> bool:
        """Nothing would be lost by forgetting it."""
        return not self.open and self._full_at_s <= now_s
