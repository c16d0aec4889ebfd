"""Writes the measured figures into docs/operate/benchmark.md: `python -m bench.page`.

The page's prose is written by hand; what stands between `<!-- figures: NAME -->` and `<!-- end -->` comes from the
newest result in bench/results, and a test checks that it does.
"""

import re
from pathlib import Path

from bench import report
from bench.comparators.table import COMPARATORS
from bench.result import Result, newest, read

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operate" / "benchmark.md"
_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def machine_lines(result: Result) -> list[str]:
    """On what and when."""
    machine = result.machine
    return [
        f"Run of {result.date} ({result.circumstances['duration_s']} s): {machine['processor']}"
        f" ({'virtual, ' if machine['virtual'] == 'yes' else ''}{machine['cores']} cores,"
        f" {machine['memory_mib']} MiB), Linux {machine['kernel']}, Python {machine['python']},"
        f" uvloop {machine['uvloop']}, httptools {machine['httptools']}, msgspec {machine['msgspec']}."
        f" Other work on the machine took {result.quiet['foreign_cores']} cores meanwhile,"
        f" the hypervisor {result.quiet['stolen_cores']}.",
        *(f"\n{what.replace('_', ' ').capitalize()}: {said}." for what, said in _remarks(result)),
    ]


def _remarks(result: Result) -> list[tuple[str, str]]:
    return [(name, result.circumstances[name]) for name in ("state", "taken_later") if name in result.circumstances]


def program_lines(result: Result) -> list[str]:
    """What was compared, in which version, and what it does beside forwarding."""
    lines = [
        [one.title, result.versions.get(one.name, "-"), result.does[one.name], _answers(result, one.name)]
        for one in COMPARATORS
        if one.name in result.does
    ]
    table = report.markdown(["Program", "Version", "Does per request", "Answers"], lines)
    return [table[0], "|---|---|---|---|", *table[2:]]


def _answers(result: Result, name: str) -> str:
    found = result.find(name, "first_answer")
    return str(found.notes.get("answers", "none")) if found else "none"


def missing_lines(result: Result) -> list[str]:
    """What has no figure, and why."""
    lines = [[row.comparator, row.measure, row.refused.replace("|", "/")] for row in report.refused_rows(result)]
    table = report.markdown(["Program", "Quantity", "Why there is no figure"], lines)
    return [table[0], "|---|---|---|", *table[2:]]


def lost_lines(result: Result) -> list[str]:
    """Where another gateway of the same run is better than Dragonfly."""
    lines = []
    for measure, title in report.MAIN:
        mine = result.value("dragonfly", measure)
        for one in COMPARATORS:
            theirs = result.value(one.name, measure)
            if one.name == "dragonfly" or mine is None or theirs is None or theirs >= mine:
                continue
            lines.append([title, measure, one.title, report.number(theirs), report.number(mine)])
    table = report.markdown(["Quantity", "Name", "Better", "Theirs", "Dragonfly"], lines)
    return [table[0], "|---|---|---|---:|---:|", *table[2:]]


def blocks(result: Result) -> dict[str, list[str]]:
    """Every block of the page by name."""
    return {
        "machine": machine_lines(result),
        "programs": program_lines(result),
        "main": report.main_table(result),
        "others": report.other_table(result),
        "budgets": report.budget_table(result),
        "lost": lost_lines(result),
        "missing": missing_lines(result),
    }


def filled(page: str, result: Result) -> str:
    """The page with every block rewritten from a result."""
    known = blocks(result)
    return _BLOCK.sub(lambda found: found[1] + "\n".join(known[found[2]]) + "\n" + found[3], page)


def main() -> None:
    """Rewrite the page from the newest result."""
    path = newest()
    if path is None:
        raise SystemExit("there is no result yet: make bench")
    PAGE.write_text(filled(PAGE.read_text(), read(path)))


if __name__ == "__main__":
    main()
