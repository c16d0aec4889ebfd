"""Reads of requests about data, each scoped to its owner or marked as the operators'."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, and_, or_, select

from dragonfly.core.ids import AccountId
from dragonfly.privacy.obstacles import Obstacle
from dragonfly.rights.rules import Origin, RequestKind, State
from dragonfly.rights.tables import data_requests

REQUESTS_PAGE_MAX = 1_000
WORK_PAGE_MAX = 100
"""Of what one turn of a job carries out."""


class DataRequest(NamedTuple):
    """One request as stored; times in nanoseconds since the epoch."""

    id: str
    account_id: AccountId | None
    kind: RequestKind
    origin: Origin
    ticket_id: str | None
    state: State
    gives_up_balance: bool
    reason: str | None
    note: str | None
    waits_for: Obstacle | None
    reviewed_by: str | None
    frozen_before_ns: int | None
    created_at_ns: int
    due_at_ns: int
    reviewed_at_ns: int | None
    until_ns: int | None
    ended_at_ns: int | None
    certificate: str | None
    """JSON, signed."""

    def is_overdue(self, now_ns: int) -> bool:
        """It waits for a review that should have been made."""
        return self.state is State.REQUESTED and self.due_at_ns <= now_ns


def request_by_id(connection: Connection, request_id: str) -> DataRequest | None:
    """For operators and jobs: any request."""
    return _one(connection, _requests().where(data_requests.c.id == request_id))


def request_of_account(connection: Connection, request_id: str, *, account_id: AccountId) -> DataRequest | None:
    """The account's request with that id, or None."""
    mine = data_requests.c.id == request_id, data_requests.c.account_id == account_id
    return _one(connection, _requests().where(*mine))


def request_of_ticket(connection: Connection, ticket_id: str) -> DataRequest | None:
    """The request that a ticket opened and that has not ended."""
    wanted = _requests().where(data_requests.c.ticket_id == ticket_id, data_requests.c.ended_at_ns.is_(None))
    return _one(connection, wanted.limit(1))


def requests_of_account(
    connection: Connection, account_id: AccountId, *, before: str | None = None, limit: int = 100
) -> list[DataRequest]:
    """The account's requests, the newest first; `before` is the id of the last one seen."""
    wanted = _requests().where(data_requests.c.account_id == account_id)
    if before is not None:
        wanted = wanted.where(data_requests.c.id < before)
    return _page(connection, wanted.order_by(data_requests.c.id.desc()), limit)


def requests_page(
    connection: Connection,
    *,
    state: State | None = None,
    kind: RequestKind | None = None,
    overdue_at_ns: int | None = None,
    after: tuple[int, str] | None = None,
    limit: int = 100,
) -> list[DataRequest]:
    """For operators: all requests that fit, what is due first; `after` is due date and id of the last one seen.

    With `overdue_at_ns` only those that should have been reviewed by then.
    """
    wanted = _requests()
    if state is not None:
        wanted = wanted.where(data_requests.c.state == state.value)
    if kind is not None:
        wanted = wanted.where(data_requests.c.kind == kind.value)
    if overdue_at_ns is not None:
        is_late = data_requests.c.due_at_ns <= overdue_at_ns
        wanted = wanted.where(data_requests.c.state == State.REQUESTED.value, is_late)
    if after is not None:
        due_at_ns, request_id = after
        is_later = data_requests.c.due_at_ns > due_at_ns
        is_next = and_(data_requests.c.due_at_ns == due_at_ns, data_requests.c.id > request_id)
        wanted = wanted.where(or_(is_later, is_next))
    return _page(connection, wanted.order_by(data_requests.c.due_at_ns, data_requests.c.id), limit)


def due_for(connection: Connection, kind: RequestKind, *, now_ns: int) -> list[str]:
    """Ids of approved requests of that kind whose day has come, the oldest first."""
    is_due = data_requests.c.state == State.APPROVED.value, data_requests.c.until_ns <= now_ns
    wanted = select(data_requests.c.id).where(*is_due, data_requests.c.kind == kind.value)
    return list(connection.execute(wanted.order_by(data_requests.c.until_ns).limit(WORK_PAGE_MAX)).scalars())


def unwiped(connection: Connection) -> list[str]:
    """Ids of erasures after which the bytes of what was deleted have not been overwritten yet."""
    is_done = data_requests.c.state == State.DONE.value, data_requests.c.kind == RequestKind.DELETION.value
    wanted = select(data_requests.c.id).where(*is_done, data_requests.c.wiped_at_ns.is_(None))
    return list(connection.execute(wanted.limit(WORK_PAGE_MAX)).scalars())


def _requests() -> Select[Any]:
    return select(*(data_requests.c[name] for name in DataRequest._fields))


def _one(connection: Connection, wanted: Select[Any]) -> DataRequest | None:
    row = connection.execute(wanted).one_or_none()
    return None if row is None else _request(row)


def _page(connection: Connection, wanted: Select[Any], limit: int) -> list[DataRequest]:
    return [_request(row) for row in connection.execute(wanted.limit(min(limit, REQUESTS_PAGE_MAX)))]


def _request(row: Row[Any]) -> DataRequest:
    return DataRequest(**row._mapping)._replace(
        kind=RequestKind(row.kind),
        origin=Origin(row.origin),
        state=State(row.state),
        gives_up_balance=bool(row.gives_up_balance),
        waits_for=None if row.waits_for is None else Obstacle(row.waits_for),
    )
