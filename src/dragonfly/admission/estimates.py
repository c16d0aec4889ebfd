"""How many tokens some bytes are, learnt per channel from what providers have counted.

For an answer whose count did not come: the client left, the provider sends none, the money ran out. What is kept is
four sums per channel, each of which forgets old answers; nothing of any text.
"""

from collections.abc import Iterable
from typing import NamedTuple

BYTES_PER_TOKEN_USUAL = 4
"""Until something is known: English text and most JSON."""
BYTES_PER_TOKEN_LEAST = 0.25
"""A ratio below this is a provider's mistake; it must not become somebody's charge."""
MEMORY = 64
"""An answer weighs one part in so many, once there were so many."""
FIRST = 16
"""So many answers of a channel are all looked at."""
SAMPLE = 8
"""From then on one in so many: ratios move slowly, and the fast lane has other things to do."""
CHANNELS_MAX = 10_000


class Sums(NamedTuple):
    """What is kept of one channel, as weighted sums over its latest answers."""

    prompt_bytes: float
    prompt_tokens: float
    output_bytes: float
    output_tokens: float
    seen: int
    """Answers looked at so far."""


NOTHING = Sums(0.0, 0.0, 0.0, 0.0, 0)


class _Learnt:
    """The sums of one channel, in use."""

    __slots__ = ("asked", "is_new", "sums")

    def __init__(self, sums: Sums) -> None:
        self.sums = sums
        self.asked = sums.seen
        self.is_new = False


class Estimates:
    """Of one process. Whoever serves loads them at the start and stores them now and then."""

    def __init__(self) -> None:
        self._channels: dict[str, _Learnt] = {}

    def is_due(self, channel_id: str) -> bool:
        """Whether the answer at hand should be learnt from: the first ones all, later ones now and then."""
        learnt = self._channels.get(channel_id)
        if learnt is None:
            if len(self._channels) >= CHANNELS_MAX:
                return False
            learnt = self._channels[channel_id] = _Learnt(NOTHING)
        learnt.asked = asked = learnt.asked + 1
        return asked <= FIRST or asked % SAMPLE == 0

    def learn(
        self, channel_id: str, *, prompt_bytes: int, prompt_tokens: int, output_bytes: int, output_tokens: int
    ) -> None:
        """Takes note of an answer that was due, with its provider's exact count. Bytes of 0 leave that side alone."""
        learnt = self._channels[channel_id]
        sums = learnt.sums
        weight = 1 / min(sums.seen + 1, MEMORY)
        prompt = _moved(sums.prompt_bytes, sums.prompt_tokens, prompt_bytes, prompt_tokens, weight)
        output = _moved(sums.output_bytes, sums.output_tokens, output_bytes, output_tokens, weight)
        learnt.sums = Sums(*prompt, *output, sums.seen + 1)
        learnt.is_new = True

    def prompt_tokens(self, channel_id: str, text_bytes: int) -> int:
        """What a request body of that many bytes of text comes to; at least 1."""
        sums = self._sums(channel_id)
        return max(1, round(text_bytes / _ratio(sums.prompt_bytes, sums.prompt_tokens)))

    def output_tokens(self, channel_id: str, output_bytes: int, events: int = 0) -> int:
        """What that many bytes of output (JSON text, without what surrounds it) come to; 0 only for none.

        While nothing is known of the channel, its events count: most providers send one for each token.
        """
        if output_bytes <= 0:
            return 0
        sums = self._sums(channel_id)
        tokens = round(output_bytes / _ratio(sums.output_bytes, sums.output_tokens))
        return max(1, tokens, 0 if sums.output_tokens else events)

    def load(self, stored: Iterable[tuple[str, Sums]]) -> None:
        """Begins with what an earlier process has learnt."""
        for channel_id, sums in stored:
            if len(self._channels) < CHANNELS_MAX:
                self._channels[channel_id] = _Learnt(sums)

    def take_new(self) -> list[tuple[str, Sums]]:
        """What has changed since the last call, to be stored."""
        new = [(channel_id, learnt) for channel_id, learnt in self._channels.items() if learnt.is_new]
        for _, learnt in new:
            learnt.is_new = False
        return [(channel_id, learnt.sums) for channel_id, learnt in new]

    def _sums(self, channel_id: str) -> Sums:
        learnt = self._channels.get(channel_id)
        return NOTHING if learnt is None else learnt.sums


def _moved(old_bytes: float, old_tokens: float, new_bytes: int, tokens: int, weight: float) -> tuple[float, float]:
    if new_bytes <= 0 or tokens <= 0:
        return old_bytes, old_tokens
    return old_bytes + (new_bytes - old_bytes) * weight, old_tokens + (tokens - old_tokens) * weight


def _ratio(known_bytes: float, known_tokens: float) -> float:
    """A ratio of sums, in which a long answer weighs more than a short one."""
    if known_tokens <= 0:
        return BYTES_PER_TOKEN_USUAL
    return max(BYTES_PER_TOKEN_LEAST, known_bytes / known_tokens)
