"""Reads of wallets and books. Amounts in nano-USD."""

from typing import NamedTuple

from sqlalchemy import Connection, select

from dragonfly.core.ids import AccountId
from dragonfly.ledger.rules import customer_book
from dragonfly.ledger.tables import entries, entry_groups, wallets

CREDITS_PAGE_MAX = 1_000


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
        """Everything ever paid in or given."""
        return self.balance_nusd + self.charged_nusd


class Credit(NamedTuple):
    """One event other than usage that changed a balance."""

    group_id: str
    kind: str
    amount_nusd: int
    created_at_ns: int


EMPTY_WALLET = Wallet(0, 0, 0)


def wallet_of(connection: Connection, account_id: AccountId) -> Wallet | None:
    """The account's wallet; None when it never had credit."""
    wanted = select(wallets.c.balance_nusd, wallets.c.leased_nusd, wallets.c.charged_nusd)
    row = connection.execute(wanted.where(wallets.c.account_id == account_id)).one_or_none()
    return None if row is None else Wallet(*row)


def credits_of_account(connection: Connection, account_id: AccountId, *, limit: int = 100) -> list[Credit]:
    """The newest events that were no usage, newest first."""
    joined = entry_groups.join(entries, entries.c.group_id == entry_groups.c.id)
    wanted = (
        select(entry_groups.c.id, entry_groups.c.kind, entries.c.amount_nusd, entry_groups.c.created_at_ns)
        .select_from(joined)
        .where(
            entry_groups.c.account_id == account_id,
            entry_groups.c.kind != "settle",
            entries.c.book_id == customer_book(account_id),
        )
        .order_by(entry_groups.c.created_at_ns.desc(), entry_groups.c.id.desc())
        .limit(min(limit, CREDITS_PAGE_MAX))
    )
    return [Credit(*row) for row in connection.execute(wanted)]
