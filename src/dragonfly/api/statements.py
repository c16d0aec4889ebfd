"""/api/statements: what the account had, paid and used in a month, to the nano-dollar, as JSON and as a table."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.responses import Response

from dragonfly.accounts.queries import account_by_id
from dragonfly.admission.account_statement import Statement, months_until, parse_month, statement_of
from dragonfly.admission.statement_lines import statement_fields, statement_rows
from dragonfly.api.desk import Desk
from dragonfly.api.principal import Principal, SessionInvalid, requires
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Page, cursor_position, page_of
from dragonfly.core.ids import AccountId
from dragonfly.core.spreadsheets import csv_text
from dragonfly.keys.management import Scope
from dragonfly.usage.queries import day_of

Reader = Annotated[Principal, Depends(requires(Scope.WALLET_READ.value))]
MonthPath = Annotated[str, Path(min_length=1, max_length=10, description="A month of UTC, YYYY-MM.")]
_BEYOND = 999_999
"""No month has such a number."""


class MonthShown(BaseModel):
    """A month that has a statement."""

    month: Annotated[str, Field(examples=["2026-11"])]
    is_over: Annotated[bool, Field(description="false: it runs, and its statement still grows.")]


class EventShown(BaseModel):
    """Credit that came or went."""

    at: str
    kind: Annotated[str, Field(description="top_up, grant, refund_hold, …")]
    reference: str
    amount_usd: Annotated[str, Field(description="Below zero for what went.")]


class DayShown(BaseModel):
    """A key's use of a model at a provider on a UTC day."""

    date: str
    key_id: str
    model: str
    provider: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_usd: str


class StatementShown(BaseModel):
    """Opening balance + events - usage = closing balance, exactly."""

    account: str
    month: str
    opening_balance_usd: str
    events: list[EventShown]
    usage: list[DayShown]
    closed_usage_usd: Annotated[str, Field(description="Of days older than 90 days, of which one total is left.")]
    usage_usd: Annotated[str, Field(description="All usage of the month.")]
    closing_balance_usd: str


TABLE = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "Lines of a table."}}


def statement_routes(desk: Desk) -> APIRouter:
    """The routes; management keys with the scope wallet:read may use them too."""
    routes = APIRouter(prefix="/api/statements", tags=["wallet"])

    @routes.get("", operation_id="list_statements", summary="Months that have a statement, newest first")
    async def months(principal: Reader, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None) -> Page[MonthShown]:
        position = cursor_position("statements", cursor, int)
        before = _BEYOND if position is None else int(position[0])
        now_ns = desk.clock.now_ns()

        def find(connection: Connection) -> Page[MonthShown]:
            account = account_by_id(connection, principal.account_id)
            if account is None:
                raise SessionInvalid  # the account was erased while it asked
            found = months_until(now_ns, since_ns=account.created_at_ns, before=before, limit=limit + 1)
            page, next_cursor = page_of(found, limit, "statements", lambda one: (one.number,))
            data = [MonthShown(month=one.text, is_over=one.last_day < day_of(now_ns)) for one in page]
            return Page(data=data, next_cursor=next_cursor)

        return await desk.read(find)

    @routes.get(
        "/{month}.csv",
        operation_id="statement_table",
        summary="A month's statement as a table",
        response_class=Response,
        responses=TABLE,  # type: ignore[arg-type]
    )
    async def table(principal: Reader, month: MonthPath) -> Response:
        """The amounts between the two balances add up to their difference. No cell can be read as a formula."""
        now_ns = desk.clock.now_ns()

        def make(connection: Connection) -> str:
            return csv_text(statement_rows(_statement(connection, principal.account_id, month, now_ns)))

        headers = {"Content-Disposition": 'attachment; filename="dragonfly-statement.csv"'}
        return Response(await desk.read(make), media_type="text/csv", headers=headers)

    @routes.get(
        "/{month}",
        operation_id="statement",
        summary="A month's statement",
        responses={200: {"model": StatementShown}},
    )
    async def statement(principal: Reader, month: MonthPath) -> Response:
        """Opening balance, credit that came and went, usage by day, key, model and provider, closing balance."""
        now_ns = desk.clock.now_ns()

        def make(connection: Connection) -> bytes:
            # Encoded in the database's thread: a long statement has tens of thousands of lines.
            return msgspec.json.encode(statement_fields(_statement(connection, principal.account_id, month, now_ns)))

        return Response(await desk.read(make), media_type="application/json")

    return routes


def _statement(connection: Connection, account_id: AccountId, month: str, now_ns: int) -> Statement:
    return statement_of(connection, account_id, parse_month(month, now_ns=now_ns))
