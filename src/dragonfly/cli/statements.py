"""`dragonfly statement`: what an account had, paid and used in a month, for people, programs and spreadsheets."""

import csv
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from dragonfly.accounts.actions import AccountNotFound
from dragonfly.accounts.queries import account_by_id
from dragonfly.admission.account_statement import Statement, parse_month, statement_of
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, JsonValue, show_json, show_line, show_table
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import AccountId
from dragonfly.core.money import usd_text
from dragonfly.infra.database import read
from dragonfly.usage.queries import EPOCH, NS_PER_DAY, DayTotal

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""A spreadsheet takes text that begins so for a formula, and runs it."""
HEADINGS = (
    "date",
    "kind",
    "reference",
    "key_id",
    "model",
    "provider",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "amount_usd",
)


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
        csv.writer(sys.stdout, lineterminator="\r\n").writerows(statement_rows(made))
    else:
        _, *rows = statement_rows(made)
        show_line(f"Account {made.account_id}, {made.month.text} (UTC)")
        show_table([name.upper() for name in HEADINGS], rows)


def statement_fields(made: Statement) -> dict[str, JsonValue]:
    """The statement as JSON; money as decimal strings of dollars."""
    return {
        "account": made.account_id,
        "month": made.month.text,
        "opening_balance_usd": usd_text(made.opening_nusd),
        "events": [
            {
                "at": _moment(event.created_at_ns),
                "kind": event.kind,
                "reference": event.group_id,
                "amount_usd": usd_text(event.amount_nusd),
            }
            for event in made.events
        ],
        "usage": [_usage_fields(total) for total in made.usage],
        "closed_usage_usd": usd_text(made.closed_usage_nusd),
        "usage_usd": usd_text(made.closed_usage_nusd + sum(total.cost_nusd for total in made.usage)),
        "closing_balance_usd": usd_text(made.closing_nusd),
    }


def statement_rows(made: Statement) -> Iterator[tuple[str | int, ...]]:
    """The statement as lines under HEADINGS: what comes is positive, what goes negative; all amounts between the two
    balances add up to their difference. No cell begins a formula."""
    first, last = _date(made.month.first_day), _date(made.month.last_day)
    yield HEADINGS
    yield (first, "opening_balance", "", "", "", "", "", "", "", usd_text(made.opening_nusd))
    for event in made.events:
        day = _date(event.created_at_ns // NS_PER_DAY)
        kind, reference = harmless(event.kind), harmless(event.group_id)
        yield (day, kind, reference, "", "", "", "", "", "", usd_text(event.amount_nusd))
    for total in made.usage:
        yield (
            _date(total.day),
            "usage",
            "",
            harmless(total.key_id),
            harmless(total.model),
            harmless(total.provider),
            total.requests,
            total.prompt_tokens,
            total.completion_tokens,
            usd_text(-total.cost_nusd),
        )
    if made.closed_usage_nusd:
        yield (last, "closed_usage", "", "", "", "", "", "", "", usd_text(-made.closed_usage_nusd))
    yield (last, "closing_balance", "", "", "", "", "", "", "", usd_text(made.closing_nusd))


def harmless(text: str) -> str:
    """The text as a spreadsheet shows it and does not run it: an apostrophe stands before what begins a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) or text.lstrip().startswith(FORMULA_STARTS) else text


def _usage_fields(total: DayTotal) -> dict[str, JsonValue]:
    return {
        "date": _date(total.day),
        "key_id": total.key_id,
        "model": total.model,
        "provider": total.provider,
        "requests": total.requests,
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "cached_tokens": total.cached_tokens,
        "reasoning_tokens": total.reasoning_tokens,
        "cost_usd": usd_text(total.cost_nusd),
    }


def _moment(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 10**9, UTC).isoformat()


def _date(day: int) -> str:
    return (EPOCH + timedelta(days=day)).isoformat()
