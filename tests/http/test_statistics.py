"""Everybody sees the anonymous statistics of the last week, in two languages; operators see all of them."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine

from dragonfly.infra.database import DatabaseThreads, write
from dragonfly.usage.queries import day_of
from dragonfly.usage.rules import Figures
from dragonfly.usage.statistics import Cell, keep_day
from dragonfly.web.pages import PAGE_HEADERS, Pages
from dragonfly.web.statistics import DAYS_SHOWN, statistics_routes
from tests.factories import START_NS, make_database
from tests.http.account import Office

DAY = day_of(START_NS)
CELLS = [
    Cell(DAY - 1, "acme/<b>", "acme", Figures(12_345, 678_900, None, None, 300, 1_500)),
    Cell(DAY - DAYS_SHOWN - 1, "acme/old", "acme", Figures(77, 770, 70, 7, None, None)),
]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = make_database(tmp_path)
    yield engine
    engine.dispose()


@pytest.fixture
def counted(engine: Engine) -> Engine:
    with write(engine) as connection:
        for cell in CELLS:
            keep_day(connection, cell.day, [cell], now_ns=START_NS)
    return engine


async def stats(engine: Engine, path: str = "/stats", **headers: str) -> httpx.Response:
    app, threads = FastAPI(), DatabaseThreads()
    app.include_router(statistics_routes(Pages("Acme"), engine, threads, lambda: START_NS))
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            return await client.get(path, headers=headers)
    finally:
        threads.close()


async def test_the_page_shows_the_last_week_and_a_dash_for_what_is_not_told(counted: Engine) -> None:
    page = await stats(counted)
    assert page.status_code == 200
    assert {name: page.headers[name] for name in PAGE_HEADERS} == PAGE_HEADERS
    assert "<td>12,345</td><td>678,900</td><td>—</td><td>—</td><td>≤ 0.3 s</td><td>≤ 1.5 s</td>" in page.text
    assert "acme/&lt;b&gt;" in page.text
    assert "acme/old" not in page.text
    assert "at least 5 accounts" in page.text
    assert "<script" not in page.text


async def test_the_page_is_there_in_chinese_and_before_anything_is_counted(engine: Engine) -> None:
    page = await stats(engine, "/stats?lang=zh")
    assert page.headers["content-language"] == "zh"
    assert "目前没有可以公布的数据" in page.text
    assert "至少来自 5 个账户" in page.text


async def test_programs_get_the_same_as_json(counted: Engine) -> None:
    got = (await stats(counted, accept="application/json")).json()
    assert (got["group_min"], got["requests_cap"]) == (5, 1_000)
    (cell,) = got["data"]
    assert (cell["day"], cell["requests"], cell["failures"]) == ("2026-11-17", 12_345, None)


async def test_operators_page_through_all_days(counted: Engine) -> None:
    office = Office(counted)
    first = (await office.ask("charlie", "GET", "/api/admin/statistics?limit=1")).json()
    assert [cell["model"] for cell in first["data"]] == ["acme/<b>"]
    path = f"/api/admin/statistics?limit=1&cursor={first['next_cursor']}"
    second = (await office.ask("charlie", "GET", path)).json()
    assert [(cell["model"], cell["ttft_p50_ms"]) for cell in second["data"]] == [("acme/old", None)]
    assert second["next_cursor"] is None
    office.threads.close()
