"""What /metrics tells: counters that the parts of a process keep anyway, read when somebody asks.

No label is about a person, a key, an account or a request; the inventory lists all labels (privacy/outside.py).
"""

import os
import resource
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path

from fastapi import APIRouter
from pydantic import SecretStr

from dragonfly import __version__
from dragonfly.admission.counting import BOUNDS_S, US_PER_S, Counting, Waits
from dragonfly.admission.gate import Gate
from dragonfly.api.metrics import Family, Sample, metrics_routes
from dragonfly.core.clock import Clock
from dragonfly.core.money import NUSD_PER_USD
from dragonfly.gateway.gateway import Gateway
from dragonfly.providers.pool import Pool
from dragonfly.worker import Job

LAG_EVERY_S = 0.5
STATM = Path("/proc/self/statm")


def metrics_parts(
    token: SecretStr, gateway: Gateway, gate: Gate, pool: Pool, *, clock: Clock, worker: int
) -> tuple[tuple[APIRouter, ...], tuple[Job, ...]]:
    """The page and what measures for it; nothing is counted when no token is set. Before the gate starts."""
    if not token.get_secret_value():
        return (), ()
    counting, lag = Counting(), LoopLag(clock)
    gate.count_with(counting.count)
    gauges = Gauges(gateway, gate, pool, counting, lag, worker=worker)
    return (metrics_routes(token, gauges.read),), (lag.job,)


class LoopLag:
    """How late the event loop was at the most since somebody last asked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s = clock.monotonic_s()
        self._most_s = 0.0

    @property
    def job(self) -> Job:
        return Job("lag", LAG_EVERY_S, self._look)

    def take_s(self) -> float:
        """The most since the last call."""
        most_s, self._most_s = self._most_s, 0.0
        return most_s

    async def _look(self) -> None:
        now_s = self._clock.monotonic_s()
        self._most_s = max(self._most_s, now_s - self._last_s - LAG_EVERY_S)
        self._last_s = now_s


class Gauges:
    """Reads the parts of one process. `worker` tells several of a machine apart."""

    def __init__(
        self, gateway: Gateway, gate: Gate, pool: Pool, counting: Counting, lag: LoopLag, *, worker: int
    ) -> None:
        self._gateway = gateway
        self._gate = gate
        self._pool = pool
        self._counting = counting
        self._lag = lag
        self._own = {"worker": str(worker)}

    def read(self) -> Iterator[Family]:
        """Every family."""
        yield self._one("info", "gauge", "Which version serves", [({"version": __version__}, 1)])
        yield from self._settled()
        yield from self._now()

    def _settled(self) -> Iterator[Family]:
        counting, refused = self._counting, dict(self._gateway.refused)
        ended = [(one._asdict(), count) for one, count in dict(counting.requests).items()]
        yield self._one("requests_total", "counter", "Requests that were admitted and have ended", ended)
        tokens = [(one._asdict(), count) for one, count in dict(counting.tokens).items()]
        yield self._one("tokens_total", "counter", "Tokens that providers counted", tokens)
        yield self._histogram("first_token_seconds", "Time to the first token", dict(counting.first))
        yield self._histogram("duration_seconds", "Time to the end of the answer", dict(counting.whole))
        codes = [({"code": code}, count) for code, count in refused.items()]
        yield self._one("refused_total", "counter", "Requests that were refused, by the code of the error", codes)

    def _now(self) -> Iterator[Family]:
        gateway, gate = self._gateway, self._gate
        numbers = {
            "connections_open": ("Connections of clients to the data plane", len(gateway.lanes)),
            "exchanges_open": ("Requests that are being answered", len(gateway.exchanges)),
            "body_bytes_open": ("Bytes of requests' bodies in memory", gateway.body_bytes_open),
            "provider_connections_open": ("Connections to providers", self._pool.open_connections),
            "grants_open": ("Requests that hold money", gate.grants_open),
            "held_usd": ("Money that open requests hold", gate.held_nusd / NUSD_PER_USD),
            "settlements_waiting": ("Settlements that are not durable yet", gate.unsettled),
            "settlements_refused": ("Settlements that the database refused; a bug", gate.refused_settlements),
            "loop_lag_seconds": ("How late the event loop was at the most since the last look", self._lag.take_s()),
            "resident_bytes": ("Memory of the process", resident_bytes()),
            "cpu_seconds": ("Processor time of the process", _cpu_s()),
        }
        for name, (help_, value) in numbers.items():
            yield self._one(name, "gauge", help_, [({}, value)])

    def _one(self, name: str, kind: str, help_: str, numbers: Iterable[tuple[Mapping[str, str], float]]) -> Family:
        samples = tuple(Sample({**self._own, **labels}, value) for labels, value in numbers)
        return Family(f"dragonfly_{name}", kind, help_, samples)

    def _histogram(self, name: str, help_: str, by_provider: Mapping[str, Waits]) -> Family:
        samples = []
        for provider, waits in by_provider.items():
            labels = {**self._own, "provider": provider}
            *sums, count = accumulate(waits.counts)
            samples += [
                Sample({**labels, "le": f"{at:g}"}, sum_, "_bucket") for at, sum_ in zip(BOUNDS_S, sums, strict=True)
            ]
            samples.append(Sample({**labels, "le": "+Inf"}, count, "_bucket"))
            samples += [Sample(labels, waits.sum_us / US_PER_S, "_sum"), Sample(labels, count, "_count")]
        return Family(f"dragonfly_{name}", "histogram", help_, tuple(samples))


def resident_bytes() -> int:
    """Of this process; 0 where the system does not say."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
