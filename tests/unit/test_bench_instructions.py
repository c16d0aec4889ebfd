"""The fast lane executes no more than its budget. See bench/instructions.py for what is counted and why."""

import sys
from pathlib import Path
from types import FunctionType

import pytest

from bench.counting import Calls, Opcodes, counting, taken
from bench.instructions import BUDGETS, Figures, figures, over_budget


def test_the_fast_lane_executes_no_more_than_its_budget(tmp_path: Path) -> None:
    found = figures(tmp_path)
    assert not over_budget(found, sys.version_info[:2]), found


def test_counts_repeat_exactly(tmp_path: Path) -> None:
    runs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        runs.append(figures(tmp_path / name))
    assert runs[0] == runs[1]


def test_more_than_the_tolerance_above_a_budget_is_named() -> None:
    worse = BUDGETS._replace(chunk_opcodes=BUDGETS.chunk_opcodes * 2)
    assert [sentence.split(":")[0] for sentence in over_budget(worse, (3, 11))] == ["chunk_opcodes"]
    assert over_budget(BUDGETS, (3, 11)) == []


def test_every_budget_is_set() -> None:
    assert all(budget > 0 for budget in BUDGETS)
    assert len(BUDGETS) == len(Figures._fields)


@pytest.mark.parametrize("kind", [Opcodes, Calls])
def test_only_what_runs_inside_and_belongs_to_the_project_is_counted(kind: type[Opcodes] | type[Calls]) -> None:
    source = "def inside(n):\n    for _ in range(n):\n        abs(n)\n"
    ours, theirs = (
        FunctionType(compile(source, filename, "exec").co_consts[0], {"range": range, "abs": abs})
        for filename in ("/x/dragonfly/y.py", "/x/other/y.py")
    )
    counts = kind()
    counts.install()
    try:
        with counting(counts):
            ours(10)
            theirs(10)
        ours(10)
    finally:
        counts.remove()
    mine, others = taken(counts)
    assert set(mine) == {"inside"}
    assert mine["inside"] > 10
    assert not others
    if isinstance(counts, Calls):
        assert mine["inside"] == 11, "the function, and abs ten times"
