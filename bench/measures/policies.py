"""What each policy costs: CPU time per request with all of them on less that with it off, measured in turns."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import uvloop
from msgspec import structs

from bench.closed import ClosedLoop
from bench.comparators.dragonfly import MODEL_PREFIX, REQUESTS_PER_MINUTE, prepare, settings_text
from bench.launch import Launch, NotRunning, Running, Site, free_port, mock_upstream, running
from bench.measures.memory import memory_rows
from bench.modes import JSON_SMALL
from bench.plan import Plan
from bench.prompts import Target
from bench.rows import Row, refused, row
from bench.variants import Variant
from bench.windows import Refused

CONNECTIONS = 32
PAIRS_PER_WINDOW = 6
PAIR_S = 0.2
"""Many short pairs: what disturbs the machine then falls on both of a pair."""
TLS_STREAMS = (0, 500, 1_000, 2_000)
SWITCHES = {
    Variant.NO_AUTH: "auth",
    Variant.NO_LIMITS: "limits",
    Variant.NO_SETTLE: "hold_and_settle",
    Variant.NOTHING: "auth_hold_and_settle",
}
_OPENSSL = (
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
    *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
)
ROOT = Path(__file__).resolve().parents[2]


def policy_rows(site: Site, plan: Plan, mock_core: int) -> list[Row]:
    """Rows `cost_POLICY`: µs per request at 32 connections that go away when it is switched off; `cost_upstream_tls`:
    those that come when the provider is spoken to by TLS, and what a stream then takes of memory."""
    rows = []
    with contextlib.ExitStack() as stack:
        try:
            whole = stack.enter_context(_variant(site, Variant.ALL_ON))
        except (NotRunning, OSError) as error:
            return [refused("dragonfly", f"cost_{variant.name.lower()}", "µs", error) for variant in SWITCHES]
        for variant, policy in SWITCHES.items():
            try:
                with _variant(site, variant) as part:
                    saved = uvloop.run(_savings(whole.target, part.target, plan))
                rows.append(row("dragonfly", f"cost_{policy}", "µs", saved))
            except (NotRunning, Refused, OSError, TimeoutError) as error:
                rows.append(refused("dragonfly", f"cost_{policy}", "µs", error))
        try:
            rows += _tls_rows(site, plan, whole, mock_core)
        except (NotRunning, Refused, OSError, TimeoutError, subprocess.CalledProcessError) as error:
            rows.append(refused("dragonfly", "cost_upstream_tls", "µs", error))
    return rows


def _tls_rows(site: Site, plan: Plan, whole: Running, mock_core: int) -> list[Row]:
    certificate = site.folder / "mock.pem"
    subprocess.run(
        (*_OPENSSL, "-keyout", str(certificate), "-out", str(certificate)), capture_output=True, check=True
    )
    with mock_upstream(free_port(), site.folder / "tls-mock", mock_core, certificate=certificate) as secure:
        place = replace(site, folder=site.folder / "tls", mock_port=secure.target.port)
        place.folder.mkdir()
        with _variant(place, Variant.ALL_ON, authority=str(certificate)) as part:
            cost = [-saved for saved in uvloop.run(_savings(whole.target, part.target, plan))]
            few = replace(plan, memory_levels=TLS_STREAMS)  # each costs a handshake
            memory = uvloop.run(memory_rows(replace(part.target, name="dragonfly"), few))
    rows = [structs.replace(one, measure=f"{one.measure}_tls") for one in memory]
    return [row("dragonfly", "cost_upstream_tls", "µs", cost), *rows]


@contextlib.contextmanager
def _variant(site: Site, variant: Variant, authority: str = "") -> Iterator[Running]:
    folder = site.folder / variant.value
    folder.mkdir()
    port = free_port()
    here = Site(folder, site.programs, site.mock_port, port, site.gateway_core)
    text = settings_text(port=port, mock_port=site.mock_port, data_dir=str(folder / "data"), authority=authority)
    (folder / "dragonfly.toml").write_text(text)
    key = prepare(here, requests_per_minute=0 if variant is Variant.NO_LIMITS else REQUESTS_PER_MINUTE)
    launch = Launch(
        (sys.executable, "-m", "bench.variants", variant.value, str(folder)),
        {"PYTHONPATH": str(ROOT)},
        port=port,
        headers=(("authorization", f"Bearer {key}"),),
        model_prefix=MODEL_PREFIX,
    )
    with running(f"dragonfly-{variant.value}", launch, here) as process:
        yield process


async def _savings(whole: Target, part: Target, plan: Plan) -> list[float]:
    """CPU µs per request that the first spends above the second, window by window in turns."""
    loops = [ClosedLoop(target, JSON_SMALL, connections=CONNECTIONS) for target in (whole, part)]
    saved = []
    try:
        for loop in loops:
            await loop.open()
            (await loop.run(seconds=plan.warm_s)).accept()
        for _ in range(plan.windows * PAIRS_PER_WINDOW):
            pair = [(await loop.run(seconds=PAIR_S, settled=True)).accept() for loop in loops]
            saved.append(pair[0].cpu_us_per_unit() - pair[1].cpu_us_per_unit())
    finally:
        for loop in loops:
            loop.close()
    return saved
