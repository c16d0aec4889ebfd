"""Reads of wallets, lots and books. Amounts in nano-USD."""

from typing import NamedTuple

from sqlalchemy import Connection, func, select, text

from dragonfly.core.ids import AccountId
from dragonfly.ledger.rules import CREDIT_KINDS_ONLY, WALLET_KINDS, account_book
from dragonfly.ledger.tables import entries, entry_groups, lots, wallets

CREDITS_PAGE_MAX = 1_000
LOTS_PAGE_MAX = 1_000


class Wallet(NamedTuple):
    """What an account has. `balance_nusd` is settled money, `leased_nusd` the part that workers hold for requests."""

    balance_nusd: int
    leased_nusd: int
    charged_nusd: int
    """Everything ever charged."""

    @property
    def available_nusd(self) -> int:
        return self.balance_nusd - self.leased_nusd

    @property
    def credited_nusd(self) -> int:
        """Everything ever paid in or given, less what was refunded, disputed or expired."""
        return self.balance_nusd + self.charged_nusd


class Credit(NamedTuple):
    """One event other than usage that changed a balance."""

    group_id: str
    kind: str
    amount_nusd: int
    created_at_ns: int


class StoredLot(NamedTuple):
    """Credit of one origin, as stored."""

    id: str
    source: str
    """"paid" or "promo"."""
    amount_nusd: int
    remaining_nusd: int
    """What is neither spent, nor in the hands of workers, refunded or disputed."""
    expires_at_ns: int | None
    reference: str
    created_at_ns: int


EMPTY_WALLET = Wallet(0, 0, 0)


def wallet_of(connection: Connection, account_id: AccountId) -> Wallet | None:
    """The account's wallet; None when it never had credit."""
    wanted = select(wallets.c.balance_nusd, wallets.c.leased_nusd, wallets.c.charged_nusd)
    row = connection.execute(wanted.where(wallets.c.account_id == account_id)).one_or_none()
    return None if row is None else Wallet(*row)


def credits_of_account(
    connection: Connection, account_id: AccountId, *, limit: int = 100, before: tuple[int, str] | None = None
) -> list[Credit]:
    """The newest events that were no usage, newest first; `before` is (created_at_ns, group_id) of the last seen."""
    at, group_id = entry_groups.c.created_at_ns, entry_groups.c.id
    amount = func.sum(entries.c.amount_nusd)
    books_of_wallet = [account_book(kind, account_id) for kind in WALLET_KINDS]
    wanted = (
        select(group_id, entry_groups.c.kind, amount, at)
        .select_from(entry_groups.join(entries, entries.c.group_id == group_id))
        .where(
            entry_groups.c.account_id == account_id,
            text(CREDIT_KINDS_ONLY),
            entries.c.book_id.in_(books_of_wallet),
        )
        .group_by(group_id, entry_groups.c.kind, at)
        .having(amount != 0)
        .order_by(at.desc(), group_id.desc())
        .limit(min(limit, CREDITS_PAGE_MAX))
    )
    if before is not None:
        wanted = wanted.where((at < before[0]) | ((at == before[0]) & (group_id < before[1])))
    return [Credit(row[0], row[1], int(row[2]), row[3]) for row in connection.execute(wanted)]


def credited_before(connection: Connection, account_id: AccountId, *, before_ns: int) -> int:
    """The sum of all events other than usage that were booked before an instant."""
    books_of_wallet = [account_book(kind, account_id) for kind in WALLET_KINDS]
    wanted = (
        select(func.coalesce(func.sum(entries.c.amount_nusd), 0))
        .select_from(entry_groups.join(entries, entries.c.group_id == entry_groups.c.id))
        .where(
            entry_groups.c.account_id == account_id,
            entry_groups.c.created_at_ns < before_ns,
            text(CREDIT_KINDS_ONLY),
            entries.c.book_id.in_(books_of_wallet),
        )
    )
    return int(connection.execute(wanted).scalar_one())


def lots_of_account(
    connection: Connection, account_id: AccountId, *, after: tuple[int, str] = (0, ""), limit: int = 100
) -> list[StoredLot]:
    """The account's lots, oldest first; `after` is (created_at_ns, id) of the last seen."""
    at = lots.c.created_at_ns
    wanted = select(*(lots.c[name] for name in StoredLot._fields)).where(lots.c.account_id == account_id)
    wanted = wanted.where((at > after[0]) | ((at == after[0]) & (lots.c.id > after[1])))
    rows = connection.execute(wanted.order_by(at, lots.c.id).limit(min(limit, LOTS_PAGE_MAX)))
    return [StoredLot(*row) for row in rows]
