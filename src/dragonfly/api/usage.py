"""/api/usage and /api/activity: what the account's requests were and cost, for ninety days. Metadata only."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.responses import StreamingResponse

from dragonfly.api.desk import Desk
from dragonfly.api.principal import Principal, requires
from dragonfly.api.shapes import (
    PAGE_DEFAULT,
    PAGE_MAX,
    Cursor,
    Day,
    DayInvalid,
    Limit,
    Page,
    cursor_position,
    day_number,
    day_text,
    page_of,
)
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, KeyId
from dragonfly.core.money import usd_text
from dragonfly.core.spreadsheets import harmless
from dragonfly.keys.management import Scope
from dragonfly.usage.queries import NS_PER_DAY
from dragonfly.usage.reports import (
    Dimension,
    LabelledRow,
    Total,
    UsageFilter,
    has_more_rows_than,
    usage_rows,
    usage_totals,
)

EXPORT_ROWS_MAX = 100_000
EXPORT_ROWS_PER_READ = 500
Reader = Annotated[Principal, Depends(requires(Scope.USAGE_READ.value))]
From = Annotated[Day | None, Query(alias="from", description="The first UTC day, YYYY-MM-DD.")]
To = Annotated[Day | None, Query(description="The last UTC day, YYYY-MM-DD; it is included.")]
KeyFilter = Annotated[str | None, Query(max_length=64, description="Only requests of this key, by its id.")]
GroupFilter = Annotated[str | None, Query(max_length=64, description="Only requests of keys in this group.")]
ModelFilter = Annotated[str | None, Query(max_length=200, description="Only requests that this model answered.")]
DimensionName = Literal["day", "key", "key_group", "model", "provider"]
By = Annotated[tuple[DimensionName, ...], Query(min_length=1, max_length=5, description="In this order.")]
_SHAPES: dict[Dimension, type[str] | type[int]] = {Dimension.DAY: int}


class ExportTooLarge(DragonflyError):
    code = "export_too_large"
    status = 422

    def __init__(self) -> None:
        super().__init__(f"An export holds at most {EXPORT_ROWS_MAX} requests. Choose fewer days, a key or a model.")


class UsageShown(BaseModel):
    """One request after it ended."""

    request_id: Annotated[str, Field(examples=["gen-019a…"])]
    at: str
    key_id: str
    key_name: str
    key_group: str
    model: str
    provider: str
    outcome: Annotated[str, Field(description="How it ended, from the closed list in the documentation.")]
    finish_reason: str
    streamed: bool
    prompt_tokens: Annotated[int, Field(description="Cached ones included.")]
    cached_tokens: int
    completion_tokens: Annotated[int, Field(description="Reasoning included.")]
    reasoning_tokens: int
    cost_usd: str
    time_to_first_token_ms: int
    duration_ms: int


class TotalShown(BaseModel):
    """The sum of some requests. Dimensions that were not asked for are null."""

    day: str | None
    key_id: str | None
    key_group: str | None
    model: str | None
    provider: str | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_usd: str


class ActivityShown(BaseModel):
    """One model at one provider on one UTC day."""

    date: str
    model: str
    provider_name: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    usage: Annotated[float, Field(description="USD as a number; exactly in cost_usd.")]
    cost_usd: str


class Asked:
    """The filters of a request, as the domain takes them."""

    def __init__(
        self,
        first: From = None,
        to: To = None,
        key_id: KeyFilter = None,
        key_group: GroupFilter = None,
        model: ModelFilter = None,
    ) -> None:
        since = None if first is None else day_number(first)
        until = None if to is None else day_number(to) + 1
        if since is not None and until is not None and since >= until:
            raise DayInvalid
        self.filter = UsageFilter(
            None if since is None else since * NS_PER_DAY,
            None if until is None else until * NS_PER_DAY,
            None if key_id is None else KeyId(key_id),
            key_group,
            model,
        )


Filters = Annotated[Asked, Depends()]


def usage_routes(desk: Desk) -> APIRouter:
    """The routes; management keys with the scope usage:read may use them too."""
    routes = APIRouter(prefix="/api", tags=["usage"])

    @routes.get("/usage", operation_id="list_usage", summary="Requests, newest first")
    async def rows(
        principal: Reader, asked: Filters, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
    ) -> Page[UsageShown]:
        position = cursor_position("usage", cursor, int, str)
        before = None if position is None else (int(position[0]), str(position[1]))

        def find(connection: Connection) -> Page[UsageShown]:
            found = usage_rows(connection, principal.account_id, asked.filter, before=before, limit=limit + 1)
            page, next_cursor = page_of(found, limit, "usage", _position)
            return Page(data=[usage_shown(row) for row in page], next_cursor=next_cursor)

        return await desk.read(find)

    @routes.get("/usage/totals", operation_id="usage_totals", summary="Totals by day, key, group, model or provider")
    async def totals(
        principal: Reader,
        asked: Filters,
        by: By = ("day",),
        limit: Limit = PAGE_MAX,
        cursor: Cursor = None,
    ) -> Page[TotalShown]:
        """Totals are of whole UTC days. Each dimension may stand once."""
        dimensions = [Dimension(name) for name in dict.fromkeys(by)]
        page, next_cursor = await _totals(desk, principal.account_id, asked.filter, dimensions, (limit, cursor))
        return Page(data=[_total_shown(total, dimensions) for total in page], next_cursor=next_cursor)

    @routes.get("/activity", operation_id="activity", summary="Each day's use of each model")
    async def activity(
        principal: Reader, asked: Filters, limit: Limit = PAGE_MAX, cursor: Cursor = None
    ) -> Page[ActivityShown]:
        """OpenRouter's fields, for the ninety days that are kept, the running day included."""
        dimensions = [Dimension.DAY, Dimension.MODEL, Dimension.PROVIDER]
        page, next_cursor = await _totals(desk, principal.account_id, asked.filter, dimensions, (limit, cursor))
        return Page(data=[_activity_shown(total) for total in page], next_cursor=next_cursor)

    @routes.get(
        "/usage/export.csv",
        operation_id="export_usage",
        summary="Requests as a table",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "Rows of a table."}},
    )
    async def export(principal: Reader, asked: Filters) -> StreamingResponse:
        """At most 100,000 requests, newest first. No cell can be read as a formula."""
        account_id, wanted = principal.account_id, asked.filter
        is_large = await desk.read(
            lambda connection: has_more_rows_than(connection, account_id, wanted, EXPORT_ROWS_MAX)
        )
        if is_large:
            raise ExportTooLarge
        headers = {"Content-Disposition": 'attachment; filename="dragonfly-usage.csv"'}
        return StreamingResponse(_table(desk, account_id, wanted), media_type="text/csv", headers=headers)

    return routes


async def _totals(
    desk: Desk, account_id: AccountId, wanted: UsageFilter, by: list[Dimension], asked: tuple[int, str | None]
) -> tuple[list[Total], str | None]:
    """A page of totals and its next cursor; `asked` are the page's length and cursor."""
    limit, cursor = asked
    kind = "totals:" + ",".join(dimension.value for dimension in by)
    after = cursor_position(kind, cursor, *(_SHAPES.get(dimension, str) for dimension in by))
    found = await desk.read(
        lambda connection: usage_totals(connection, account_id, wanted, by, after=after, limit=limit + 1)
    )
    return page_of(found, limit, kind, lambda total: total.of)


def usage_shown(found: LabelledRow) -> UsageShown:
    """One request as its owner sees it."""
    row = found.row
    return UsageShown(
        request_id=row.request_id,
        at=moment_text(row.created_at_ns),
        key_id=row.key_id,
        key_name=found.key_name,
        key_group=found.key_group,
        model=row.model,
        provider=row.provider,
        outcome=row.outcome,
        finish_reason=row.finish_reason,
        streamed=bool(row.is_streamed),
        prompt_tokens=row.prompt_tokens,
        cached_tokens=row.cached_tokens,
        completion_tokens=row.completion_tokens,
        reasoning_tokens=row.reasoning_tokens,
        cost_usd=usd_text(row.cost_nusd),
        time_to_first_token_ms=row.ttft_us // 1_000,
        duration_ms=row.duration_us // 1_000,
    )


async def _table(desk: Desk, account_id: AccountId, wanted: UsageFilter) -> AsyncIterator[str]:
    """A head and the rows, read in small pages while the client takes them."""
    yield _line(list(UsageShown.model_fields))
    before: tuple[int, str] | None = None
    for _ in range(0, EXPORT_ROWS_MAX, EXPORT_ROWS_PER_READ):
        position = before

        def find(connection: Connection) -> list[LabelledRow]:
            return usage_rows(connection, account_id, wanted, before=position, limit=EXPORT_ROWS_PER_READ)  # noqa: B023

        found = await desk.read(find)
        if found:
            yield "".join(_line(list(usage_shown(row).model_dump().values())) for row in found)
        if len(found) < EXPORT_ROWS_PER_READ:
            return
        before = _position(found[-1])


def _line(cells: list[object] | list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerow([harmless(str(cell)) for cell in cells])
    return out.getvalue()


def _position(found: LabelledRow) -> tuple[int, str]:
    return (found.row.created_at_ns, found.row.request_id)


def _total_shown(total: Total, dimensions: list[Dimension]) -> TotalShown:
    of = dict(zip(dimensions, total.of, strict=True))
    day = of.get(Dimension.DAY)
    texts = {dimension: str(value) for dimension, value in of.items()}
    return TotalShown(
        day=None if day is None else day_text(int(day)),
        key_id=texts.get(Dimension.KEY),
        key_group=texts.get(Dimension.KEY_GROUP),
        model=texts.get(Dimension.MODEL),
        provider=texts.get(Dimension.PROVIDER),
        requests=total.requests,
        prompt_tokens=total.prompt_tokens,
        cached_tokens=total.cached_tokens,
        completion_tokens=total.completion_tokens,
        reasoning_tokens=total.reasoning_tokens,
        cost_usd=usd_text(total.cost_nusd),
    )


def _activity_shown(total: Total) -> ActivityShown:
    day, model, provider = total.of
    return ActivityShown(
        date=day_text(int(day)),
        model=str(model),
        provider_name=str(provider),
        requests=total.requests,
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        reasoning_tokens=total.reasoning_tokens,
        usage=total.cost_nusd / 1e9,
        cost_usd=usd_text(total.cost_nusd),
    )
