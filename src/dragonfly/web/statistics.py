"""/stats: anonymous statistics of the last days, as a page and as JSON."""

from collections.abc import Callable
from datetime import timedelta
from itertools import groupby

from fastapi import APIRouter
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dragonfly.infra.database import DatabaseThreads, read
from dragonfly.usage.queries import EPOCH, day_of
from dragonfly.usage.rules import COMPLETION_TOKENS_CAP, GROUP_MIN, PROMPT_TOKENS_CAP, REQUESTS_CAP
from dragonfly.usage.statistics import Cell, cells_page
from dragonfly.web.pages import Pages, language_of

DAYS_SHOWN = 7
CELLS_SHOWN_MAX = 500
TITLES = {"en": "Statistics", "zh": "统计"}
RULES = {
    "group_min": GROUP_MIN,
    "requests_cap": REQUESTS_CAP,
    "prompt_tokens_cap": PROMPT_TOKENS_CAP,
    "completion_tokens_cap": COMPLETION_TOKENS_CAP,
}


def statistics_routes(pages: Pages, engine: Engine, threads: DatabaseThreads, now_ns: Callable[[], int]) -> APIRouter:
    """The public page of anonymous statistics."""
    routes = APIRouter(include_in_schema=False)

    def last_days() -> list[Cell]:
        with read(engine) as connection:
            since_day = day_of(now_ns()) - DAYS_SHOWN
            return cells_page(connection, since_day=since_day, limit=CELLS_SHOWN_MAX)

    @routes.get("/stats")
    async def stats(request: Request) -> Response:
        cells = await threads.run(last_days)
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({**RULES, "data": [_fields(cell) for cell in cells]})
        language = language_of(request)
        days = [(day, list(of_day)) for day, of_day in groupby(cells, key=lambda cell: _date(cell.day))]
        values = {**RULES, "title": TITLES[language], "days": days}
        return pages.render("stats.html", language, "/stats", values)

    return routes


def _fields(cell: Cell) -> dict[str, object]:
    return {"day": _date(cell.day), "model": cell.model, "provider": cell.provider, **cell.figures._asdict()}


def _date(day: int) -> str:
    return (EPOCH + timedelta(days=day)).isoformat()
