"""Machine instructions of the fast lane, counted by valgrind's callgrind where that is installed.

The program under valgrind prepares everything uncounted, turns instrumentation on around its requests, and ends;
the difference between a run of many requests and one of few is the figure. All threads count, so that a settlement is
in it, and the turns of the event loop spent waiting for its commit too: read it as a trend, not to the digit.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import uvloop

from bench.inmemory import LaneInMemory
from bench.installation import Installation, installation, open_gate
from bench.modes import JSON_SMALL
from bench.script import WARM_UP, Script, StandingClock

REQUESTS = (50, 250)
CHUNKS_SHORT = 2
CHUNKS_LONG = 52
TIMEOUT_S = 300.0
_TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


class NoCallgrind(RuntimeError):
    """valgrind is not installed, or did not do its work."""


def machine_instructions(folder: Path) -> dict[str, float]:
    """Machine instructions of one request, of one stream without its chunks, and of one chunk."""
    whole = _run(folder, "whole", 0)
    short, long_ = (_run(folder, "stream", chunks) for chunks in (CHUNKS_SHORT, CHUNKS_LONG))
    chunk = (long_ - short) / (CHUNKS_LONG - CHUNKS_SHORT)
    return {"request": whole, "stream": short - CHUNKS_SHORT * chunk, "chunk": chunk}


def _run(folder: Path, kind: str, chunks: int) -> float:
    few, many = (_total(folder, kind, chunks, requests) for requests in REQUESTS)
    return (many - few) / (REQUESTS[1] - REQUESTS[0])


def _total(folder: Path, kind: str, chunks: int, requests: int) -> int:
    if not shutil.which("valgrind") or not shutil.which("callgrind_control"):
        raise NoCallgrind("valgrind is not installed")
    place = folder / f"{kind}-{chunks}-{requests}"
    place.mkdir()
    out = place / "callgrind.out"
    tool = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}")
    command = (*tool, sys.executable, "-m", "bench.callgrind", kind, str(chunks), str(requests), str(place))
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False)
    found = _TOTALS.search(out.read_text()) if out.exists() else None
    if done.returncode or found is None:
        raise NoCallgrind(f"the run under valgrind ended with status {done.returncode}")
    return int(found[1])


async def _main(installed: Installation, kind: str, chunks: int, requests: int) -> None:
    clock = StandingClock()
    gate = open_gate(installed, clock)
    await gate.start()
    channel = gate.offer(f"bench/{JSON_SMALL}").candidates[0].channel
    script = Script(LaneInMemory(gate, channel, installed.configured.settings, clock), installed.keys[0])
    for _ in range(WARM_UP):
        await (script.ask_stream(chunks) if kind == "stream" else script.ask_whole())
    await _instrument("on")
    for _ in range(requests):
        await (script.ask_stream(chunks) if kind == "stream" else script.ask_whole())
    await _instrument("off")
    await gate.stop()


async def _instrument(state: str) -> None:
    process = await asyncio.create_subprocess_exec("callgrind_control", "-i", state, str(os.getpid()))
    if await process.wait():
        raise NoCallgrind("callgrind_control could not reach its program")


if __name__ == "__main__":
    with installation(Path(sys.argv[4]), mock_port=9) as prepared:
        uvloop.run(_main(prepared, sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
