"""What this worker knows of each channel: open requests, failures, cool-down, speed.

Kept per process in plain numbers. A channel that refuses for a while (rate limit, no funds), or fails several
requests in a row, is left alone (cool-down, doubling up to a bound); when that is over, one request probes it
(half-open) before the others follow. One request never takes a channel from the others, however often it is
tried, and when nothing else is left a channel that only failed is tried all the same.
"""

import enum

from dragonfly.core.clock import Clock
from dragonfly.settings import UpstreamSettings

FAILURES_MAX = 3
"""Requests in a row that may fail before the channel is left alone."""
PROBE_S_MAX = 5.0
"""A probe that has not answered after this long holds nobody back any more."""
SMOOTHING = 0.1
"""Weight of a new sample in the moving averages: about the last twenty requests count."""


class Standing(enum.IntEnum):
    """How eligible a channel is; lower is better."""

    READY = 0
    PROBE = 1
    """The cool-down is over; one request may try."""
    COOLING = 2
    FULL = 3
    """At its concurrency limit."""


class ChannelHealth:
    """Moving figures of one channel. Times in seconds of the monotonic clock."""

    __slots__ = (
        "cooldown_s",
        "cooling_until_s",
        "failed",
        "failed_in_a_row",
        "is_refused",
        "latency_s",
        "open",
        "probing_until_s",
        "succeeded",
        "tokens_per_s",
    )

    def __init__(self) -> None:
        self.open = 0
        self.cooling_until_s = 0.0
        self.cooldown_s = 0.0
        self.is_refused = False
        """The provider itself said to stay away: it is not tried even when nothing else is left."""
        self.failed_in_a_row = 0
        self.probing_until_s = 0.0
        self.latency_s = 0.0
        self.tokens_per_s = 0.0
        self.succeeded = 0
        self.failed = 0


class HealthBoard:
    """All channels of this worker."""

    def __init__(self, settings: UpstreamSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.channels: dict[str, ChannelHealth] = {}

    def of(self, channel_id: str) -> ChannelHealth:
        health = self.channels.get(channel_id)
        if health is None:
            health = self.channels[channel_id] = ChannelHealth()
        return health

    def standing(self, health: ChannelHealth, concurrency_max: int | None) -> Standing:
        """Whether a request may be sent there now."""
        if concurrency_max is not None and health.open >= concurrency_max:
            return Standing.FULL
        if not health.cooldown_s:
            return Standing.READY
        if self._clock.monotonic_s() < max(health.cooling_until_s, health.probing_until_s):
            return Standing.COOLING
        return Standing.PROBE

    def started(self, health: ChannelHealth) -> None:
        """A request goes there; during half-open it is the probe."""
        health.open += 1
        if health.cooldown_s:
            health.probing_until_s = self._clock.monotonic_s() + min(health.cooldown_s, PROBE_S_MAX)

    def ended(self, health: ChannelHealth) -> None:
        """The request is over, however it ended."""
        health.open -= 1
        assert health.open >= 0, "every end has a start"

    def answered(self, health: ChannelHealth, latency_s: float) -> None:
        """The first byte of a good answer arrived after `latency_s`: the channel works."""
        health.succeeded += 1
        health.failed_in_a_row = 0
        health.cooldown_s = 0.0
        health.is_refused = False
        old = health.latency_s
        health.latency_s = latency_s if not old else old + SMOOTHING * (latency_s - old)

    def delivered(self, health: ChannelHealth, tokens: int, seconds: float) -> None:
        """A finished answer's throughput."""
        if tokens > 0 and seconds > 0:
            old = health.tokens_per_s
            rate = tokens / seconds
            health.tokens_per_s = rate if not old else old + SMOOTHING * (rate - old)

    def note_failure(self, health: ChannelHealth, *, retry_after_s: float | None, lasting: bool) -> None:
        """A request failed there; call it once for each request. `lasting`: nothing mends by itself soon."""
        health.failed += 1
        health.failed_in_a_row += 1
        health.probing_until_s = 0.0
        settings = self._settings
        health.is_refused = lasting or retry_after_s is not None
        if lasting:
            wait_s = settings.cooldown_max_s
        elif retry_after_s is not None:
            wait_s = min(max(retry_after_s, settings.backoff_s), settings.cooldown_max_s)
        elif health.failed_in_a_row < FAILURES_MAX:
            return
        else:
            wait_s = min(health.cooldown_s * 2 or settings.cooldown_s, settings.cooldown_max_s)
        health.cooldown_s = wait_s
        health.cooling_until_s = self._clock.monotonic_s() + wait_s

    def wait_s(self, health: ChannelHealth) -> float:
        """Seconds until the channel may be tried again; at least one, for Retry-After."""
        return max(1.0, health.cooling_until_s - self._clock.monotonic_s())
