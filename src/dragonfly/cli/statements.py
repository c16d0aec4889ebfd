"""`dragonfly statement`: what an account had, paid and used in a month, for people, programs and spreadsheets."""

import sys
from typing import Annotated

import typer

from dragonfly.accounts.actions import AccountNotFound
from dragonfly.accounts.queries import account_by_id
from dragonfly.admission.account_statement import parse_month, statement_of
from dragonfly.admission.statement_lines import HEADINGS, statement_fields, statement_rows
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, show_json, show_line, show_table
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import AccountId
from dragonfly.core.spreadsheets import csv_text
from dragonfly.infra.database import read


def statement(
    account: Annotated[str, typer.Argument(help="The account's id (acc-…)")],
    month: Annotated[str, typer.Argument(help="A month, as 2026-11; UTC")],
    config: ConfigFile = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line per event and total.")] = False,
) -> None:
    """Print an account's statement for a month.

    Opening balance, credit that came and went, usage by day, key, model and provider, closing balance: exact to the
    nano-dollar. Of days older than 90 days one total is left.

    \b
    Examples:
      dragonfly statement acc-… 2026-11
      dragonfly statement acc-… 2026-11 --csv > statement.csv
    """
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    chosen = parse_month(month, now_ns=SystemClock().now_ns())
    with opened(config) as (_, engine), read(engine) as connection:
        if account_by_id(connection, AccountId(account)) is None:
            raise AccountNotFound
        made = statement_of(connection, AccountId(account), chosen)
    if as_json:
        show_json(statement_fields(made))
    elif as_csv:
        sys.stdout.write(csv_text(statement_rows(made)))
    else:
        _, *rows = statement_rows(made)
        show_line(f"Account {made.account_id}, {made.month.text} (UTC)")
        show_table([name.upper() for name in HEADINGS], rows)
