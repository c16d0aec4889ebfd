"""How much the fast lane executes for one request, one chunk and one settlement: figures that repeat exactly.

CPU time moves with the machine; a regression check needs a count. Hardware counters are missing in most virtual
machines and callgrind is not everywhere, so `make check` counts what Python itself can tell (counting.py), on the
real lane in memory (inmemory.py), with the real gate over a real SQLite file and a clock that stands still. What C
code does inside a call is not seen; where valgrind is installed, `python -m bench.instructions --callgrind` counts
machine instructions too.

When a change is worth its price, put the new figures that `python -m bench.instructions` prints into BUDGETS.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench.callgrind import NoCallgrind, machine_instructions
from bench.counting import Calls, Counts, Opcodes, counting, taken
from bench.inmemory import LaneInMemory
from bench.installation import Installation, installation, open_gate
from bench.modes import JSON_SMALL
from bench.script import WARM_UP, Script, StandingClock

CHUNKS = 50
TOLERANCE = 0.10
"""A figure may be this much above its budget; below it, nothing is said."""
OTHER_VERSIONS = 1.25
"""Bytecode differs between versions of Python: on others than BUDGETS_MADE_ON this much more is allowed."""
BUDGETS_MADE_ON = (3, 11)


class Figures(NamedTuple):
    """Executed bytecode instructions and calls, of the event loop's thread but for `settlement`."""

    request_opcodes: int
    request_calls: int
    stream_opcodes: int
    """A whole stream but for its plain chunks."""
    stream_calls: int
    chunk_opcodes: int
    """One more plain chunk."""
    chunk_calls: int
    settlement_opcodes: int
    """In the writer's thread, for a request that is settled alone."""
    settlement_calls: int


async def _count(installed: Installation, counts: Counts) -> tuple[list[Counter[str]], list[Counter[str]]]:
    """By function: a request, a short stream, a stream of CHUNKS more chunks; each for the loop and the writer."""
    clock = StandingClock()
    counts.install()
    gate = open_gate(installed, clock)
    await gate.start()
    try:
        channel = gate.offer(f"bench/{JSON_SMALL}").candidates[0].channel
        memory = LaneInMemory(gate, channel, installed.configured.settings, clock)
        script = Script(memory, installed.keys[0])
        loop, writer = [], []
        for run in (script.ask_whole, lambda: script.ask_stream(2), lambda: script.ask_stream(2 + CHUNKS)):
            for _ in range(WARM_UP):
                await run()
            taken(counts)
            with counting(counts):
                await run()
            mine, others = taken(counts)
            loop.append(mine)
            writer.append(others)
        return loop, writer
    finally:
        counts.remove()
        await gate.stop()


def count(folder: Path, counts: Counts) -> tuple[list[Counter[str]], list[Counter[str]]]:
    """Make an installation in an empty folder and count in it."""
    with installation(folder, mock_port=9) as installed:
        return uvloop.run(_count(installed, counts))


def figures(folder: Path) -> Figures:
    """All figures of the code as it stands."""
    found: list[int] = []
    for name, counts in (("opcodes", Opcodes()), ("calls", Calls())):
        (folder / name).mkdir()
        loop, writer = count(folder / name, counts)
        whole_, short, long_ = (sum(one.values()) for one in loop)
        chunk = round((long_ - short) / CHUNKS)
        found += [whole_, short - 2 * chunk, chunk, sum(writer[0].values())]
    return Figures(*(found[index] for index in (0, 4, 1, 5, 2, 6, 3, 7)))


BUDGETS = Figures(
    request_opcodes=4_287,
    request_calls=266,
    stream_opcodes=8_120,
    stream_calls=618,
    chunk_opcodes=192,
    chunk_calls=13,
    settlement_opcodes=1_574,
    settlement_calls=105,
)


def over_budget(found: Figures, python: tuple[int, int]) -> list[str]:
    """A sentence for each figure above its budget."""
    factor = 1 + TOLERANCE if python == BUDGETS_MADE_ON else OTHER_VERSIONS
    return [
        f"{name}: {mine} instead of {budget}"
        for name, mine, budget in zip(Figures._fields, found, BUDGETS, strict=True)
        if mine > budget * factor + 1
    ]


def main() -> None:
    """Print the figures, and where the instructions of a request go."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions")
    parser.add_argument("--callgrind", action="store_true", help="count machine instructions with valgrind")
    parser.add_argument("--top", type=int, default=25, help="functions shown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = figures(Path(folder))
        for name, value in found._asdict().items():
            print(f"{name:20} {value:8,}")
        (Path(folder) / "top").mkdir()
        loop, writer = count(Path(folder) / "top", Opcodes())
        for title, functions in (("request", loop[0]), ("settlement, in its thread", writer[0])):
            print(f"\nBytecode instructions of one {title}:")
            for function, instructions in functions.most_common(arguments.top):
                print(f"  {instructions:6,}  {function}")
        if arguments.callgrind:
            _print_machine(Path(folder))
    for sentence in over_budget(found, sys.version_info[:2]):
        print(f"over budget: {sentence}")


def _print_machine(folder: Path) -> None:
    try:
        for name, machine in machine_instructions(folder).items():
            print(f"{name:20} {machine:12,.0f} machine instructions")
    except NoCallgrind as missing:
        print(missing)


if __name__ == "__main__":
    main()
