"""What this worker knows of each channel: open requests, failures, cool-down, speed.

Kept per process in plain numbers. A channel that fails is left alone for a while (cool-down, doubling up to a
bound); when that is over, one request probes it (half-open) before the others follow.
"""

import enum

from dragonfly.core.clock import Clock
from dragonfly.settings import UpstreamSettings

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
        "latency_s",
        "open",
        "probing",
        "succeeded",
        "tokens_per_s",
    )

    def __init__(self) -> None:
        self.open = 0
        self.cooling_until_s = 0.0
        self.cooldown_s = 0.0
        self.probing = False
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
        if self._clock.monotonic_s() < health.cooling_until_s or health.probing:
            return Standing.COOLING
        return Standing.PROBE

    def started(self, health: ChannelHealth) -> None:
        """A request goes there; during half-open it is the probe."""
        health.open += 1
        if health.cooldown_s:
            health.probing = True

    def ended(self, health: ChannelHealth) -> None:
        """The request is over, however it ended."""
        health.open -= 1
        assert health.open >= 0, "every end has a start"
        if health.cooldown_s:
            health.probing = False

    def answered(self, health: ChannelHealth, latency_s: float) -> None:
        """The first byte of a good answer arrived after `latency_s`: the channel works."""
        health.succeeded += 1
        health.cooldown_s = 0.0
        health.probing = False
        old = health.latency_s
        health.latency_s = latency_s if not old else old + SMOOTHING * (latency_s - old)

    def delivered(self, health: ChannelHealth, tokens: int, seconds: float) -> None:
        """A finished answer's throughput."""
        if tokens > 0 and seconds > 0:
            old = health.tokens_per_s
            rate = tokens / seconds
            health.tokens_per_s = rate if not old else old + SMOOTHING * (rate - old)

    def note_failure(self, health: ChannelHealth, *, retry_after_s: float | None, lasting: bool) -> None:
        """The channel failed: leave it alone. `lasting`: nothing mends by itself soon (no funds, bad key)."""
        health.failed += 1
        health.probing = False
        settings = self._settings
        if lasting:
            wait_s = settings.cooldown_max_s
        elif retry_after_s is not None:
            wait_s = min(max(retry_after_s, settings.backoff_s), settings.cooldown_max_s)
        else:
            wait_s = min(health.cooldown_s * 2 or settings.cooldown_s, settings.cooldown_max_s)
        health.cooldown_s = wait_s
        health.cooling_until_s = self._clock.monotonic_s() + wait_s

    def wait_s(self, health: ChannelHealth) -> float:
        """Seconds until the channel may be tried again; at least one, for Retry-After."""
        return max(1.0, health.cooling_until_s - self._clock.monotonic_s())
