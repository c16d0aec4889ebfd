"""What each policy costs: CPU time per request with all of them on less that with it off, measured in turns."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import uvloop

from bench.closed import ClosedLoop
from bench.comparators.dragonfly import MODEL_PREFIX, REQUESTS_PER_MINUTE, prepare, settings_text
from bench.launch import Launch, NotRunning, Running, Site, free_port, running
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
SWITCHES = {
    Variant.NO_AUTH: "auth",
    Variant.NO_LIMITS: "limits",
    Variant.NO_SETTLE: "hold_and_settle",
    Variant.NOTHING: "auth_hold_and_settle",
}
ROOT = Path(__file__).resolve().parents[2]


def policy_rows(site: Site, plan: Plan) -> list[Row]:
    """Rows `cost_POLICY`: µs per request at 32 connections that go away when it is switched off."""
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
    return rows


@contextlib.contextmanager
def _variant(site: Site, variant: Variant) -> Iterator[Running]:
    folder = site.folder / variant.value
    folder.mkdir()
    port = free_port()
    here = Site(folder, site.programs, site.mock_port, port, site.gateway_core)
    text = settings_text(port=port, mock_port=site.mock_port, data_dir=str(folder / "data"))
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
