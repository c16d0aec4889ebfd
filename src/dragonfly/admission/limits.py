"""Rate and concurrency of one key in this process. Time comes in as an argument: monotonic seconds."""

from typing import NamedTuple

from dragonfly.admission.errors import RateLimited
from dragonfly.admission.grants import Ask, KeyPolicy

WINDOW_S = 60.0
CONCURRENCY_RETRY_S = 1.0
"""What Retry-After says when too many requests are open: nobody knows when one ends."""
BYTES_PER_TOKEN = 4
OUTPUT_TOKENS_USUAL = 256
OUTPUT_TOKENS_RESERVED_MAX = 2_048
"""Of each choice; what comes on top is charged to the limit at the end."""
_ROUNDING_S = 1e-6


class RateState(NamedTuple):
    """Where a key stands in one of its limits per minute."""

    limit: int
    """0: none."""
    remaining: int
    reset_s: float
    """Until the whole limit is there again."""


NO_LIMIT = RateState(0, 0, 0.0)


def reserved_tokens(ask: Ask) -> int:
    """What a request is taken for before it is counted; at least 1."""
    limit = OUTPUT_TOKENS_USUAL if ask.output_tokens is None else ask.output_tokens
    return 1 + ask.body_bytes // BYTES_PER_TOKEN + min(limit, OUTPUT_TOKENS_RESERVED_MAX) * ask.choices


class KeyMeter:
    """Counts the requests and tokens of one key.

    Token buckets that hold one minute's allowance and refill evenly, each kept as one number (GCRA): the moment at
    which it will be full again. Each request moves that moment by the interval between two requests.
    """

    __slots__ = ("_full_at_s", "_tokens_full_at_s", "open")

    def __init__(self) -> None:
        self._full_at_s = 0.0
        self._tokens_full_at_s = 0.0
        self.open = 0
        """Requests admitted and not yet settled."""

    def enter(self, key: KeyPolicy, now_s: float, tokens: int = 0) -> None:
        """Counts a request that begins, with its `tokens`; RateLimited, and nothing counted, when the key allows no
        more. A request larger than a whole minute's tokens passes when nothing else has used any."""
        most = key.concurrency_max
        if most and self.open >= most:
            raise RateLimited(what="concurrency", limit=most, retry_after_s=CONCURRENCY_RETRY_S)
        rate = key.requests_per_minute
        if rate:
            full_at_s = self._full_at_s
            full_at_s = (full_at_s if full_at_s > now_s else now_s) + WINDOW_S / rate
            if full_at_s > now_s + WINDOW_S + _ROUNDING_S:
                raise RateLimited(what="requests", limit=rate, retry_after_s=full_at_s - now_s - WINDOW_S)
            if tokens:
                self._take_tokens(key, now_s, tokens)
            self._full_at_s = full_at_s
        elif tokens:
            self._take_tokens(key, now_s, tokens)
        self.open += 1

    def _take_tokens(self, key: KeyPolicy, now_s: float, tokens: int) -> None:
        full_at_s = self._tokens_full_at_s
        if full_at_s <= now_s:
            self._tokens_full_at_s = now_s + tokens * WINDOW_S / key.tokens_per_minute
            return
        full_at_s += tokens * WINDOW_S / key.tokens_per_minute
        late_s = full_at_s - now_s - WINDOW_S
        if late_s > _ROUNDING_S:
            wait_s = min(late_s, self._tokens_full_at_s - now_s)
            raise RateLimited(what="tokens", limit=key.tokens_per_minute, retry_after_s=wait_s)
        self._tokens_full_at_s = full_at_s

    def correct(self, key: KeyPolicy, tokens: int, now_s: float) -> None:
        """A request used so many more tokens than were reserved, or fewer (below zero)."""
        if key.tokens_per_minute:
            since_s = max(self._tokens_full_at_s, now_s)
            self._tokens_full_at_s = since_s + tokens * WINDOW_S / key.tokens_per_minute

    def leave(self) -> None:
        """A request ended."""
        assert self.open > 0, "only what entered leaves"
        self.open -= 1

    def until_full(self, now_s: float) -> tuple[float, float]:
        """Seconds until all requests, and all tokens, of a minute are there again."""
        return max(0.0, self._full_at_s - now_s), max(0.0, self._tokens_full_at_s - now_s)

    def go_on_from(self, requests_s: float, tokens_s: float, now_s: float) -> None:
        """Takes over from others, with whom it would have taken so long until all are there again."""
        self._full_at_s, self._tokens_full_at_s = now_s + requests_s, now_s + tokens_s

    def state(self, key: KeyPolicy, now_s: float) -> RateState:
        """What is left of the requests per minute."""
        return _state(key.requests_per_minute, self._full_at_s - now_s)

    def token_state(self, key: KeyPolicy, now_s: float) -> RateState:
        """What is left of the tokens per minute."""
        return _state(key.tokens_per_minute, self._tokens_full_at_s - now_s)

    def is_idle(self, now_s: float) -> bool:
        """Nothing would be lost by forgetting it."""
        return not self.open and self._full_at_s <= now_s and self._tokens_full_at_s <= now_s


def _state(rate: int, until_full_s: float) -> RateState:
    if not rate:
        return NO_LIMIT
    reset_s = max(0.0, until_full_s)
    left = (WINDOW_S - reset_s + _ROUNDING_S) * rate / WINDOW_S
    return RateState(rate, max(0, min(rate, int(left))), reset_s)
