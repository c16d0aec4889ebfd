"""Start to first correct answer, and memory before and after load."""

from bench.launch import Running
from bench.processes import pss_bytes
from bench.rows import Row, row

MIB = 1024 * 1024


def start_rows(running: Running) -> list[Row]:
    """Rows `first_answer` (seconds) and `memory_idle` (MiB), right after the start."""
    name = running.target.name
    return [
        row(name, "first_answer", "s", [running.first_answer_s], {"answers": running.verdict.value}),
        row(name, "memory_idle", "MiB", [pss_bytes(running.target.pid) / MIB]),
    ]


def resident_row(running: Running) -> Row:
    """Row `memory_after` (MiB): after everything that was measured on it."""
    return row(running.target.name, "memory_after", "MiB", [pss_bytes(running.target.pid) / MIB])
