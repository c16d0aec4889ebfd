"""`dragonfly payments`: what an operator looks at and decides about money, without the console."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dragonfly.api.desk import Desk
from dragonfly.api.payment_admin_shapes import comparison_shown, dispute_found, margin_shown, topup_found
from dragonfly.api.shapes import day_number
from dragonfly.api.wallet import PaymentsNotSetUp
from dragonfly.app.payments import open_cashier
from dragonfly.cli.customers import Usd
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, JsonValue, show_json, show_line, show_table
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import IdSource
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.infra.logging import EventLog
from dragonfly.payments.jobs import alert_differences
from dragonfly.payments.promo import CODE_LENGTH, CODES_AT_ONCE_MAX, PromoWish, make_codes
from dragonfly.payments.queries import disputes_page, search_topups
from dragonfly.payments.reconciling import reconcile
from dragonfly.payments.report import compare, margins
from dragonfly.payments.rules import DAY_NS
from dragonfly.payments.topups import Cashier

payment_commands = typer.Typer(no_args_is_help=True, help="Payments: find, compare with Stripe, margins, codes.")

First = Annotated[str, typer.Argument(metavar="FIRST", help="A UTC day, YYYY-MM-DD")]
Last = Annotated[str, typer.Argument(metavar="LAST", help="The last day, itself included")]
DAY_S = 86_400
FOUND_MAX = 50


@contextmanager
def _cashier(config: Path | None) -> Iterator[Cashier]:
    """What asks Stripe, closed at the end. PaymentsNotSetUp."""
    with opened(config) as (settings, engine):
        clock, threads, told = SystemClock(), DatabaseThreads(), io.BytesIO()
        try:
            cashier = open_cashier(settings, Desk(engine, threads, clock, IdSource()), EventLog(told, clock))
            if cashier is None:
                raise PaymentsNotSetUp
            yield cashier
        finally:
            threads.close()
            sys.stderr.write(told.getvalue().decode())


@payment_commands.command("find")
def payments_find(
    text: Annotated[str, typer.Argument(metavar="ID", help="Any id of ours or Stripe's; none: the newest")] = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Find payments.

    By the id of a top-up, account, refund, or by Stripe's of a session, payment, charge, refund, dispute or customer.

    \b
    Example:
      dragonfly payments find pi_3Pv…
    """
    with opened(config) as (_, engine), read(engine) as connection:
        found = [topup_found(one) for one in search_topups(connection, text, limit=FOUND_MAX)]
    if as_json:
        show_json([one.model_dump() for one in found])
        return
    rows = [(one.id, one.account, one.state, one.amount, one.total or "", one.created_at) for one in found]
    show_table(("TOP-UP", "ACCOUNT", "STATE", "USD", "CHARGED", "CREATED"), rows)


@payment_commands.command("disputes")
def payments_disputes(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the newest disputes; as JSON with what the bank can be shown."""
    with opened(config) as (_, engine), read(engine) as connection:
        found = [dispute_found(one) for one in disputes_page(connection, limit=FOUND_MAX)]
    if as_json:
        show_json([one.model_dump() for one in found])
        return
    rows = [(one.id, one.topup, one.state, one.amount, one.reason, one.evidence_due_at or "") for one in found]
    show_table(("DISPUTE", "TOP-UP", "STATE", "USD", "REASON", "EVIDENCE UNTIL"), rows)


@payment_commands.command("compare")
def payments_compare(first: First, last: Last, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Compare Stripe's balance with the ledger, by kind and by payment; exit code 1 when payments differ.

    \b
    Example:
      dragonfly payments compare 2026-11-01 2026-11-30
    """
    since_s, until_s = day_number(first) * DAY_S, (day_number(last) + 1) * DAY_S
    with _cashier(config) as cashier:
        found = comparison_shown(compare(cashier, since_s=since_s, until_s=until_s))
    if as_json:
        show_json(found.model_dump())
    else:
        lines = [(one.kind, one.stripe, one.books, one.difference) for one in found.lines]
        show_table(("KIND", "STRIPE", "BOOKS", "DIFFERENCE"), lines)
        for one in found.differences:
            show_line(f"{one.intent_id} of {one.topup}: {one.stripe} USD at Stripe, {one.books} USD in the books")
    if found.differences:
        raise typer.Exit(1)


@payment_commands.command("repair")
def payments_repair(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Ask Stripe for what webhooks missed, now; exit code 1 when payments still differ."""
    with _cashier(config) as cashier:
        done = reconcile(cashier)
        differing = alert_differences(cashier)
    if as_json:
        show_json({"looked_at": done.looked_at, "repaired": done.repaired, "differing": differing})
    else:
        show_line(f"Looked at {done.looked_at}, repaired {done.repaired}; {differing} payments differ.")
    if differing:
        raise typer.Exit(1)


@payment_commands.command("margins")
def payments_margins(first: First, last: Last, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show what each model earned and what it cost upstream; at most the last 90 days.

    \b
    Example:
      dragonfly payments margins 2026-11-01 2026-11-30
    """
    since_ns, until_ns = day_number(first) * DAY_NS, (day_number(last) + 1) * DAY_NS
    with opened(config) as (_, engine), read(engine) as connection:
        found = [margin_shown(one) for one in margins(connection, since_ns=since_ns, until_ns=until_ns)]
    if as_json:
        show_json([one.model_dump() for one in found])
        return
    rows = [(one.model, one.requests, one.revenue, one.upstream, one.absorbed, one.margin) for one in found]
    show_table(("MODEL", "REQUESTS", "REVENUE", "UPSTREAM", "ABSORBED", "MARGIN"), rows)


@payment_commands.command("codes")
def payments_codes(
    count: Annotated[int, typer.Argument(metavar="COUNT", min=1, max=CODES_AT_ONCE_MAX, help="How many codes")],
    amount: Usd,
    uses: Annotated[int, typer.Option(min=1, help="Of each code, over all accounts")] = 1,
    per_account: Annotated[int, typer.Option(min=1, help="Codes of the batch for one account")] = 1,
    valid_days: Annotated[int | None, typer.Option(min=1, max=3_650, help="How long they can be used")] = None,
    credit_days: Annotated[int | None, typer.Option(min=1, max=3_650, help="How long the credit stays")] = None,
    note: Annotated[str, typer.Option(help="What they are for")] = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make codes for promotional credit and print them, this once.

    \b
    Example:
      dragonfly payments codes 100 5 --valid-days 30 --credit-days 90 --note "conference"
    """
    now_ns = SystemClock().now_ns()
    wish = PromoWish(
        count=count,
        amount_nusd=amount,
        uses_max=uses,
        per_account_max=per_account,
        expires_at_ns=None if valid_days is None else now_ns + valid_days * DAY_NS,
        credit_days=credit_days,
        note=note,
    )
    random = os.urandom(CODE_LENGTH * count)
    with opened(config) as (_, engine), write(engine) as connection:
        codes: list[JsonValue] = [
            *make_codes(connection, IdSource(), wish, random=random, created_by=None, now_ns=now_ns)
        ]
    if as_json:
        show_json({"codes": codes})
    else:
        for code in codes:
            show_line(str(code))
