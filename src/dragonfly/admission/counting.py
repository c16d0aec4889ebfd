"""Counts what was settled, for the operator's metrics: by model, provider and outcome, never by person or key.

Runs in the writer's thread, a batch at a time; others copy what is counted, which the interpreter does in one step.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from dragonfly.admission.batches import Settled

BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
US_PER_S = 1_000_000
_BOUNDS_US = tuple(round(bound * US_PER_S) for bound in BOUNDS_S)


class Ended(NamedTuple):
    """How requests ended; names from the catalogue and a closed list."""

    model: str
    provider: str
    outcome: str


class Spoken(NamedTuple):
    """Which tokens."""

    model: str
    provider: str
    kind: str


class Waits:
    """A histogram over BOUNDS_S; the last count is of what took longer."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_us = 0

    def add(self, duration_us: int) -> None:
        self.counts[bisect_left(_BOUNDS_US, duration_us)] += 1
        self.sum_us += duration_us


class Counting:
    """Counters since the process began."""

    def __init__(self) -> None:
        self.requests: Counter[Ended] = Counter()
        self.tokens: Counter[Spoken] = Counter()
        self.first: defaultdict[str, Waits] = defaultdict(Waits)
        """By provider: until the first token."""
        self.whole: defaultdict[str, Waits] = defaultdict(Waits)
        """By provider: until the end."""

    def count(self, batch: Sequence[Settled]) -> None:
        """A batch was committed."""
        for settled in batch:
            settlement = settled.settlement
            candidate, usage = settlement.candidate, settlement.usage
            provider = candidate.channel.provider if candidate is not None else ""
            model = settlement.answered_model
            self.requests[Ended(model, provider, settlement.outcome.value)] += 1
            self.tokens[Spoken(model, provider, "prompt")] += usage.prompt_tokens
            self.tokens[Spoken(model, provider, "completion")] += usage.completion_tokens
            self.tokens[Spoken(model, provider, "cached")] += usage.cached_tokens
            if settlement.ttft_us:
                self.first[provider].add(settlement.ttft_us)
            self.whole[provider].add(settlement.duration_us)
