"""The end of what the journal tells of single requests: groups of days that are over become one a day.

A group of a settlement bears the id of its first request and its moment, and often charges that request alone. Past
the lifetime of usage rows that is usage data without a purpose. So the groups of an account, a kind and a day of UTC
become one, with the sum of their entries in each book; what books, wallets and checks say stays as it was.
"""

from collections import defaultdict
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from dragonfly.infra.database import insert_missing
from dragonfly.ledger.tables import closings, entries, entry_groups

NS_PER_DAY = 86_400_000_000_000
NS_PER_MS = 1_000_000
GROUPS_PER_CLOSING_MAX = 1_000
"""One transaction closes no more, so that settlements never wait long behind it."""
CLOSING = "closing"
ID_PREFIXES = {"settle": "settle/gen-", "draw": "draw/gen-", "lease": "lease/lea-", "return": "return/lea-"}
"""How ids of the groups that requests make begin, by kind; what follows is a time in hexadecimal milliseconds."""


class _Closed(NamedTuple):
    """The group that takes the place of others."""

    kind: str
    account_id: str
    day: int

    @property
    def id(self) -> str:
        return f"{self.kind}/day-{self.day}/{self.account_id}"


def close_old_groups(connection: Connection, *, before_ns: int) -> int:
    """Folds groups of whole days before `before_ns`, the beginning of a day; how many went. Call again while it folds
    any."""
    assert before_ns % NS_PER_DAY == 0, "a day is closed as a whole"
    # Ids begin with a time that lies before the group's own: a range of the primary key, without an index for this.
    end = f"{before_ns // NS_PER_MS:012x}"
    ranges = (
        (entry_groups.c.id >= prefix) & (entry_groups.c.id < prefix + end) & (entry_groups.c.kind == kind)
        for kind, prefix in ID_PREFIXES.items()
    )
    wanted = select(*(entry_groups.c[name] for name in ("id", "kind", "account_id", "created_at_ns")))
    wanted = wanted.where(or_(*ranges), entry_groups.c.created_at_ns < before_ns)
    rows = connection.execute(wanted.limit(GROUPS_PER_CLOSING_MAX).with_for_update(skip_locked=True)).all()
    if not rows:
        return 0
    by_day: dict[_Closed, list[str]] = defaultdict(list)
    for group_id, kind, account_id, created_at_ns in rows:
        by_day[_Closed(kind, account_id, created_at_ns // NS_PER_DAY)].append(group_id)
    connection.execute(insert(closings).values(name=CLOSING))
    for closed in sorted(by_day):
        _fold(connection, by_day[closed], closed)
    connection.execute(delete(closings))
    return len(rows)


def _fold(connection: Connection, group_ids: list[str], closed: _Closed) -> None:
    """Moves the groups' entries into the closed group; what adds up to nothing leaves nothing."""
    group = {"id": closed.id, "kind": closed.kind, "account_id": closed.account_id}
    insert_missing(connection, entry_groups, {**group, "created_at_ns": closed.day * NS_PER_DAY})
    connection.execute(select(entry_groups.c.id).where(entry_groups.c.id == closed.id).with_for_update())
    amount = func.sum(entries.c.amount_nusd)
    sums = select(entries.c.book_id, amount).where(entries.c.group_id.in_([*group_ids, closed.id]))
    totals = {book_id: int(total) for book_id, total in connection.execute(sums.group_by(entries.c.book_id))}
    before = select(entries.c.book_id).where(entries.c.group_id == closed.id)
    known = set(connection.execute(before).scalars())
    for book_id, total in totals.items():
        row = (entries.c.group_id == closed.id) & (entries.c.book_id == book_id)
        if total == 0:
            connection.execute(delete(entries).where(row))
        elif book_id in known:
            connection.execute(update(entries).where(row).values(amount_nusd=total))
        else:
            new = {"group_id": closed.id, "book_id": book_id, "amount_nusd": total}
            connection.execute(insert(entries).values(new))
    connection.execute(delete(entries).where(entries.c.group_id.in_(group_ids)))
    connection.execute(delete(entry_groups).where(entry_groups.c.id.in_(group_ids)))
    if not any(totals.values()):
        connection.execute(delete(entry_groups).where(entry_groups.c.id == closed.id))
