"""What commands about customers share: an account's id, dollars, times."""

from datetime import UTC, datetime
from decimal import InvalidOperation
from typing import Annotated

import typer
from sqlalchemy import Connection

from dragonfly.accounts.actions import AccountNotFound
from dragonfly.accounts.queries import account_by_id
from dragonfly.core.ids import AccountId
from dragonfly.core.money import NanoUsd, from_usd

PAGE = 1_000
COMMAND_LINE = AccountId("command line")
"""Who acted, in the audit log, when it was whoever can run commands on the machine."""


def usd(text: str) -> NanoUsd:
    """Dollars as somebody types them."""
    try:
        return from_usd(text)
    except (ValueError, InvalidOperation):
        raise typer.BadParameter("write dollars as a decimal, such as 5 or 0.25") from None


Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id, acc-…")]
SpendOption = Annotated[
    NanoUsd | None, typer.Option(metavar="USD", parser=usd, help="Most in a day, week or month of UTC")
]


def require_account(connection: Connection, account: str) -> None:
    """AccountNotFound."""
    if account_by_id(connection, AccountId(account)) is None:
        raise AccountNotFound


def moment(at_ns: int) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(at_ns // 10**9, UTC).isoformat()
