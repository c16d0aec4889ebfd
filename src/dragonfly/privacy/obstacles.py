"""What must be settled before an account can be erased."""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from sqlalchemy import Connection, Table, select

from dragonfly.core.ids import AccountId
from dragonfly.ledger.tables import disputes, refunds, wallets
from dragonfly.payments.tables import payment_disputes, payment_refunds, topups


class Obstacle(enum.Enum):
    """One thing that is open; the order is that in which people are told. The value stands in the database."""

    DISPUTE = "dispute"
    """A bank is deciding about a payment; its answer needs the account's books."""
    REFUND = "refund"
    """Money is on its way back, or somebody still decides about it."""
    PAYMENT = "payment"
    """A payment page is open or a payment is being processed: what arrives must find its account."""
    REQUESTS = "requests"
    """Answers are still being written; a minute at most."""
    BALANCE = "balance"
    """There is money that its owner has not given up."""


SENTENCES: Mapping[Obstacle, str] = MappingProxyType(
    {
        Obstacle.DISPUTE: "A dispute about a payment of this account is open. Erase it when the bank has decided.",
        Obstacle.REFUND: "A refund of this account is open. Decide it, or wait until the money is back.",
        Obstacle.PAYMENT: "A payment of this account is open. Erase it when it has arrived, failed or expired.",
        Obstacle.REQUESTS: "Requests of this account are running. Freeze it, wait a minute, then erase it.",
        Obstacle.BALANCE: "The account has a balance. Pay it back first, or have its owner give it up.",
    }
)


def obstacles(connection: Connection, account_id: AccountId, *, gives_up_balance: bool) -> list[Obstacle]:
    """What stands in the way, in the order of `Obstacle`; empty: nothing."""
    wallet = connection.execute(select(wallets).where(wallets.c.account_id == account_id)).mappings().one_or_none()
    found = {
        Obstacle.DISPUTE: _any(connection, disputes, account_id, "open")
        or _any(connection, payment_disputes, account_id, "inquiry", "open"),
        Obstacle.REFUND: _any(connection, refunds, account_id, "pending")
        or _any(connection, payment_refunds, account_id, "requested", "approved", "pending"),
        Obstacle.PAYMENT: _any(connection, topups, account_id, "created", "open", "processing"),
        Obstacle.REQUESTS: wallet is not None and wallet["leased_nusd"] > 0,
        Obstacle.BALANCE: wallet is not None and wallet["balance_nusd"] > 0 and not gives_up_balance,
    }
    return [obstacle for obstacle, is_there in found.items() if is_there]


def _any(connection: Connection, table: Table, account_id: AccountId, *states: str) -> bool:
    wanted = select(table.c.id).where(table.c.account_id == account_id, table.c.state.in_(states))
    return connection.execute(wanted.limit(1)).first() is not None
