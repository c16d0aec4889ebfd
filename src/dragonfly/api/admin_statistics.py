"""/api/admin/statistics: the anonymous statistics that /stats shows, all of them."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from dragonfly.api.desk import Desk
from dragonfly.api.operating import Operator
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Page, cursor_position, page_of
from dragonfly.usage.queries import EPOCH
from dragonfly.usage.statistics import Cell, cells_page


class CellShown(BaseModel):
    """One model at one provider on one day; null: of too few accounts, or one weighs too much."""

    day: str
    model: str
    provider: str
    requests: int
    prompt_tokens: int | None
    completion_tokens: int | None
    failures: Annotated[int | None, Field(description="Failures of providers and of ours.")]
    ttft_p50_ms: Annotated[int | None, Field(description="Time to the first token, rounded up in steps.")]
    ttft_p95_ms: int | None


def admin_statistics_routes(desk: Desk) -> APIRouter:
    """For operators with a second factor; the groups and caps are those of the public page."""
    routes = APIRouter(prefix="/api/admin", tags=["operators"])

    @routes.get(
        "/statistics", operation_id="admin_statistics", summary="Anonymous statistics of closed days, newest first"
    )
    async def shown(principal: Operator, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None) -> Page[CellShown]:
        position = cursor_position("statistics", cursor, int, str, str)
        after = None if position is None else (int(position[0]), str(position[1]), str(position[2]))
        found = await desk.read(lambda connection: cells_page(connection, after=after, limit=limit + 1))
        page, next_cursor = page_of(found, limit, "statistics", lambda cell: (cell.day, cell.model, cell.provider))
        return Page(data=[_cell_shown(cell) for cell in page], next_cursor=next_cursor)

    return routes


def _cell_shown(cell: Cell) -> CellShown:
    day = EPOCH + timedelta(days=cell.day)
    return CellShown(day=day.isoformat(), model=cell.model, provider=cell.provider, **cell.figures._asdict())
