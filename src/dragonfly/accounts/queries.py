"""Reads of accounts."""

from typing import NamedTuple

from sqlalchemy import Connection, or_, select

from dragonfly.accounts.tables import accounts
from dragonfly.core.ids import AccountId

ACCOUNTS_PAGE_MAX = 1_000


class Account(NamedTuple):
    """One account as stored; times in nanoseconds since the epoch."""

    id: AccountId
    name: str
    email: str | None
    verified_at_ns: int | None
    created_at_ns: int
    frozen_at_ns: int | None


def account_by_id(connection: Connection, account_id: AccountId) -> Account | None:
    """The account, or None."""
    row = connection.execute(select(accounts).where(accounts.c.id == account_id)).one_or_none()
    return None if row is None else Account(*row)


def accounts_page(connection: Connection, *, after: str = "", limit: int = 100) -> list[Account]:
    """For operators: accounts in the order of their ids, which is that of their creation."""
    wanted = select(accounts).where(accounts.c.id > after).order_by(accounts.c.id)
    return [Account(*row) for row in connection.execute(wanted.limit(min(limit, ACCOUNTS_PAGE_MAX)))]


def accounts_found(connection: Connection, text: str, *, after: str = "", limit: int = 50) -> list[Account]:
    """For operators: accounts whose id is `text`, or whose address or name contains it, in the order of their ids."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    like = f"%{escaped}%"
    matches = or_(
        accounts.c.id == text, accounts.c.email.ilike(like, escape="\\"), accounts.c.name.ilike(like, escape="\\")
    )
    wanted = select(accounts).where(accounts.c.id > after).order_by(accounts.c.id)
    if text:
        wanted = wanted.where(matches)
    return [Account(*row) for row in connection.execute(wanted.limit(min(limit, ACCOUNTS_PAGE_MAX)))]
