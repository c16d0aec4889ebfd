"""How long each measure takes: the full run and the quick one."""

from dataclasses import dataclass

from bench.modes import STREAM_500, STREAM_1000, STREAM_FAST, STREAM_PACED


@dataclass(frozen=True, slots=True)
class Gaps:
    """Paced streams whose gaps are compared: how many, in which mode, how often."""

    streams: int
    mode: str
    rounds: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Bounds of a run. Seconds and counts; windows and rounds are repeated and their median is shown."""

    name: str
    windows: int
    """Of each measure of CPU time; three times as many for Dragonfly itself."""
    chunk_windows: int
    """Of CPU time per chunk; twice as many for Dragonfly itself."""
    window_s: float
    warm_s: float
    rounds: int
    requests_per_round: int
    streams_per_round: int
    gaps: tuple[Gaps, ...]
    memory_levels: tuple[int, ...]
    stalled_readers: int
    prompt_bytes: tuple[int, ...]
    load_shares: tuple[float, ...]
    load_s: float
    fairness_s: float
    settle_s: float
    deep: bool = True
    """Also stalled readers, fairness, policies, and the memory of streams of nginx and HAProxy."""
    only: tuple[str, ...] | None = None
    """Comparators that are run; None: all."""


FULL = Plan(
    name="full",
    windows=3,
    chunk_windows=2,
    window_s=0.7,
    warm_s=0.3,
    rounds=15,
    requests_per_round=400,
    streams_per_round=50,
    gaps=(
        Gaps(1, STREAM_FAST, 10),
        Gaps(100, STREAM_PACED, 3),
        Gaps(500, STREAM_500, 3),
        Gaps(1_000, STREAM_1000, 3),
    ),
    memory_levels=(0, 1_000, 2_000, 5_000, 10_000),
    stalled_readers=200,
    prompt_bytes=(100_000, 1_000_000, 10_000_000),
    load_shares=(0.2, 0.4, 0.6, 0.8),
    load_s=2.0,
    fairness_s=2.0,
    settle_s=3.0,
)

QUICK = Plan(
    name="quick",
    windows=2,
    chunk_windows=1,
    window_s=0.5,
    warm_s=0.2,
    rounds=5,
    requests_per_round=300,
    streams_per_round=30,
    gaps=(Gaps(100, STREAM_PACED, 1),),
    memory_levels=(0, 500, 1_000),
    stalled_readers=0,
    prompt_bytes=(),
    load_shares=(),
    load_s=1.0,
    fairness_s=1.0,
    settle_s=1.0,
    deep=False,
    only=("nginx", "dragonfly"),
)
