"""What a run must show, and what it shows."""

from dataclasses import dataclass

from bench.result import Result

GATEWAYS = ("tensorzero", "ferro", "aigw", "portkey", "litellm", "litellm_database")
"""Those that do more than forward."""


@dataclass(frozen=True, slots=True)
class Check:
    """One budget: the figure, its bound, and whether it holds; `figure` is None when it was not measured."""

    what: str
    figure: float | None
    bound: float
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        good = self.figure >= self.bound if self.at_least else self.figure <= self.bound
        return "holds" if good else "MISSES"


def checks(result: Result) -> list[Check]:
    """Every budget of the project for the subject `dragonfly`."""
    ours = "dragonfly"
    found = [
        Check(f"CPU per request at {count} connections, times nginx", result.ratio(ours, f"cpu_request_{count}"), 2.5)
        for count in (1, 32)
    ]
    found.append(Check("CPU per request at 50 per second, times nginx", result.ratio(ours, "cpu_request_calm"), 2.5))
    found += [
        Check(f"CPU per chunk at {rate} chunks/s, times nginx", result.ratio(ours, f"cpu_chunk_{rate}"), 1.5)
        for rate in (1_600, 5_000)
    ]
    for gateway in GATEWAYS:
        if gateway not in result.does:
            continue
        least = {"litellm": 100.0, "tensorzero": 3.0}.get(gateway, 1.0)
        for count in (1, 32):
            times = result.ratio(gateway, f"cpu_request_{count}", to=ours)
            found.append(
                Check(f"CPU per request of {gateway} at {count} connections, times Dragonfly's", times, least, True)
            )
    found += [
        Check("added time to first token p50, ms", _thousandth(result.value(ours, "ttft_p50")), 0.2),
        Check("added time to first token p99, ms", _thousandth(result.value(ours, "ttft_p99")), 0.5),
        Check("p99 gap added at 500 streams, ms", _thousandth(result.value(ours, "gap_p99_500")), 0.2),
        Check("longest wait beside 10 MB prompts, ms", _thousandth(result.value(ours, "stall_prompt")), 50.0),
        Check("memory per open stream, KiB", result.value(ours, "memory_stream"), 8.0),
        Check("open streams held in one process", _note(result, ours, "memory_stream", "streams"), 10_000, True),
        Check("settlements per second on SQLite", result.value(ours, "settle_sqlite"), 10_000, True),
        Check("idle memory, MiB", result.value(ours, "memory_idle"), 120.0),
        Check("first answer after start, s", result.value(ours, "first_answer"), 2.0),
    ]
    return found


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1_000


def _note(result: Result, comparator: str, measure: str, note: str) -> float | None:
    found = result.find(comparator, measure)
    value = found.notes.get(note) if found else None
    return value if isinstance(value, float | int) else None
