"""Small writes of payments; the large ones have files of their own."""

from sqlalchemy import Connection, update

from dragonfly.core.ids import AccountId
from dragonfly.infra.database import insert_missing
from dragonfly.payments.queries import Billing
from dragonfly.payments.tables import billing_details


def set_billing(connection: Connection, account_id: AccountId, billing: Billing, *, now_ns: int) -> None:
    """What stands on the account's receipts from now on."""
    values = {**billing._asdict(), "updated_at_ns": now_ns}
    if not insert_missing(connection, billing_details, {"account_id": account_id, **values}):
        mine = billing_details.c.account_id == account_id
        connection.execute(update(billing_details).where(mine).values(values))
