"""Results, budgets, tables, and the page that shows the newest result."""

from pathlib import Path

import pytest

from bench import page, report, result
from bench.budgets import checks
from bench.comparators.dragonfly import settings_text
from bench.comparators.table import COMPARATORS
from bench.modes import MODELS
from bench.result import FORMAT, Result
from bench.rows import Row, paired, refused, row

ROOT = Path(__file__).resolve().parents[2]


def made(*rows: Row) -> Result:
    machine: dict[str, str | int] = {"processor": "P", "virtual": "no", "cores": 2, "memory_mib": 1, "kernel": "6.1"}
    packages: dict[str, str | int] = dict.fromkeys(("python", "uvloop", "httptools", "msgspec"), "1")
    return Result(
        format=FORMAT,
        date="2026-08-01",
        plan="full",
        machine=machine | packages,
        quiet={"foreign_cores": 0.0, "stolen_cores": 0.0},
        circumstances={"duration_s": "600"},
        versions={"nginx": "1.31.3"},
        does={one.name: one.does for one in COMPARATORS},
        configurations={},
        rows=list(rows),
    )


def test_a_result_survives_being_written_and_read(tmp_path: Path) -> None:
    one = made(row("nginx", "cpu_request_1", "µs", [100.0, 102.0]), refused("litellm", "ceiling", "1/s", "why"))
    result.write(one, tmp_path / "2026-08-01.json")
    assert result.read(tmp_path / "2026-08-01.json") == one


def test_the_newest_result_is_the_one_of_the_latest_date(tmp_path: Path) -> None:
    for name in ("2026-08-01.json", "2026-11-23.json", "README.md"):
        (tmp_path / name).write_text("{}")
    assert result.newest(tmp_path) == tmp_path / "2026-11-23.json"
    assert result.newest(tmp_path / "none") is None


def test_ratios_to_nginx_come_from_windows_taken_in_turns_where_there_are() -> None:
    floor = row("nginx", "cpu_request_1", "µs", [50.0])
    ours = paired(row("dragonfly", "cpu_request_1", "µs", [200.0, 300.0, 220.0]), [100.0, 150.0, 100.0])
    found = made(floor, ours)
    assert found.ratio("dragonfly", "cpu_request_1") == pytest.approx(2.0)
    assert found.ratio("dragonfly", "cpu_request_1", to="nginx") == pytest.approx(2.0)
    assert made(floor, row("envoy", "cpu_request_1", "µs", [75.0])).ratio("envoy", "cpu_request_1") == 1.5


def test_each_budget_holds_misses_or_says_that_it_was_not_measured() -> None:
    found = checks(made(row("dragonfly", "ttft_p50", "µs", [150.0]), row("dragonfly", "ttft_p99", "µs", [900.0])))
    verdicts = {check.what: check.verdict for check in found}
    assert verdicts["added time to first token p50, ms"] == "holds"
    assert verdicts["added time to first token p99, ms"] == "MISSES"
    assert verdicts["settlements per second on SQLite"] == "not measured"


def test_a_budget_that_is_a_least_holds_from_its_bound_on() -> None:
    found = checks(made(row("dragonfly", "settle_sqlite", "1/s", [9_999.0])))
    assert {check.what: check.verdict for check in found}["settlements per second on SQLite"] == "MISSES"


def test_what_was_refused_is_told_and_never_dropped() -> None:
    one = made(refused("portkey", "cpu_request_1", "µs", "20 x status 500"))
    assert "portkey cpu_request_1: 20 x status 500" in report.text(one)
    assert "|portkey|cpu_request_1|20 x status 500|" in page.missing_lines(one)
    assert any(line.startswith("|Portkey|-|") for line in report.main_table(one))


def test_rows_that_are_lost_are_listed() -> None:
    one = made(row("haproxy", "cpu_request_1", "µs", [50.0]), row("dragonfly", "cpu_request_1", "µs", [150.0]))
    assert any("|HAProxy|50.0|150|" in line for line in page.lost_lines(one))


def test_every_comparator_has_a_name_a_title_and_says_what_it_does() -> None:
    assert len({one.name for one in COMPARATORS}) == len(COMPARATORS)
    assert all(one.title and one.does for one in COMPARATORS)


def test_dragonflys_settings_offer_every_mode_that_is_measured() -> None:
    text = settings_text(port=0, mock_port=9, data_dir="data")
    assert all(f'id = "bench/{name}"' in text for name in MODELS)


def test_the_page_shows_the_newest_result() -> None:
    newest = result.newest()
    if newest is None:
        pytest.skip("no full result is committed yet")
    text = page.PAGE.read_text()
    assert text == page.filled(text, result.read(newest)), "run `python -m bench.page`"


def test_committed_results_name_no_path_of_a_machine() -> None:
    for path in result.RESULTS.glob("*.json"):
        text = path.read_text()
        assert "/tmp/" not in text
        assert str(ROOT) not in text
