"""`dragonfly account`, `credit` and `usage`: what an operator does for customers."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from dragonfly.accounts.actions import create_account, freeze_account
from dragonfly.accounts.queries import accounts_page
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, show_fields, show_json, show_line, show_table
from dragonfly.cli.values import COMMAND_LINE, PAGE, Account, SpendOption, moment, require_account, usd
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.money import NanoUsd, usd_text
from dragonfly.infra.database import read, write
from dragonfly.keys.actions import limit_account
from dragonfly.keys.rules import SpendLimits
from dragonfly.ledger.actions import grant_credit
from dragonfly.ledger.queries import EMPTY_WALLET, Wallet, wallet_of
from dragonfly.operations.actions import record_action
from dragonfly.operations.rules import AuditAction
from dragonfly.usage.queries import DayTotal, day_of, day_totals

account_commands = typer.Typer(no_args_is_help=True, help="Accounts: who holds a balance and owns keys.")
credit_commands = typer.Typer(no_args_is_help=True, help="Credit: give an account money to spend.")


Usd = Annotated[NanoUsd, typer.Argument(metavar="USD", parser=usd, help="Dollars, e.g. 5 or 0.25")]


@account_commands.command("limit")
def account_limit(
    account: Account,
    daily: SpendOption = None,
    weekly: SpendOption = None,
    monthly: SpendOption = None,
    config: ConfigFile = None,
) -> None:
    """Set what all keys of an account together may spend. What is left out becomes unlimited.

    \b
    Example:
      dragonfly account limit acc-… --daily 20 --monthly 300
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), write(engine) as connection:
        limit_account(connection, AccountId(account), SpendLimits(daily, weekly, monthly), now_ns=now_ns)
    show_line("Set. Every running gateway acts on it within a second.")


@account_commands.command("create")
def account_create(
    name: Annotated[str, typer.Argument(help="A name for people")],
    email: Annotated[str | None, typer.Option(help="The owner's address")] = None,
    is_verified: Annotated[
        bool, typer.Option("--verified/--unverified", help="Unverified accounts cannot use their keys.")
    ] = True,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Create an account and print its id.

    \b
    Example:
      dragonfly account create "Alice" --email alice@example.com
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), write(engine) as connection:
        account_id = create_account(
            connection,
            IdSource(),
            name=name,
            email=email,
            verified_at_ns=now_ns if is_verified else None,
            now_ns=now_ns,
        )
    if as_json:
        show_json({"account": account_id, "name": name, "verified": is_verified})
    else:
        show_line(account_id)


@account_commands.command("list")
def account_list(
    after: Annotated[str, typer.Option(help="Start after this id, for the next page")] = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List accounts with their balances, oldest first, a thousand a page.

    \b
    Example:
      dragonfly account list --json
    """
    with opened(config) as (_, engine), read(engine) as connection:
        found = [
            (account, wallet_of(connection, account.id) or EMPTY_WALLET)
            for account in accounts_page(connection, after=after, limit=PAGE)
        ]
    if as_json:
        show_json(
            [
                {
                    "account": account.id,
                    "name": account.name,
                    "verified": account.verified_at_ns is not None,
                    "created_at": moment(account.created_at_ns),
                    **_wallet_fields(wallet),
                }
                for account, wallet in found
            ]
        )
        return
    show_table(
        ("ACCOUNT", "NAME", "BALANCE USD", "CREATED"),
        [(one.id, one.name, usd_text(wallet.balance_nusd), moment(one.created_at_ns)) for one, wallet in found],
    )


@account_commands.command("freeze")
def account_freeze(
    account: Account,
    reason: Annotated[str, typer.Option(help="Why; stands in the audit log")],
    config: ConfigFile = None,
) -> None:
    """Stop an account: its keys are refused within a second, everywhere.

    \b
    Example:
      dragonfly account freeze acc-… --reason "stolen card"
    """
    _set_frozen(account, reason, config, is_frozen=True)


@account_commands.command("unfreeze")
def account_unfreeze(
    account: Account,
    reason: Annotated[str, typer.Option(help="Why; stands in the audit log")],
    config: ConfigFile = None,
) -> None:
    """Let a frozen account work again.

    \b
    Example:
      dragonfly account unfreeze acc-… --reason "card was not stolen"
    """
    _set_frozen(account, reason, config, is_frozen=False)


def _set_frozen(account: str, reason: str, config: ConfigFile, *, is_frozen: bool) -> None:
    now_ns = SystemClock().now_ns()
    action = AuditAction.ACCOUNT_FREEZE if is_frozen else AuditAction.ACCOUNT_UNFREEZE
    with opened(config) as (_, engine), write(engine) as connection:
        record_action(connection, COMMAND_LINE, action, target=account[:100], reason=reason, now_ns=now_ns)
        freeze_account(connection, AccountId(account), is_frozen=is_frozen, now_ns=now_ns)


@credit_commands.command("grant")
def credit_grant(
    account: Account,
    amount: Usd,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key grants once, however often the command runs")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the books")] = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Give an account credit and print its balance.

    \b
    Examples:
      dragonfly credit grant acc-… 5
      dragonfly credit grant acc-… 0.25 --reason "goodwill" --idempotency-key ticket-114
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), write(engine) as connection:
        wallet = grant_credit(
            connection,
            AccountId(account),
            amount_nusd=amount,
            idempotency_key=idempotency_key or IdSource().new("grant-", now_ns),
            now_ns=now_ns,
            reason=reason,
        )
    if as_json:
        show_json({"account": account, "granted_usd": usd_text(amount), **_wallet_fields(wallet)})
    else:
        show_line(f"Granted {usd_text(amount)} USD. Balance: {usd_text(wallet.balance_nusd)} USD.")


def usage(
    account: Account,
    days: Annotated[int, typer.Option(min=1, max=90, help="How many days, today included")] = 30,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show an account's balance and its usage.

    One line per day, key, model and provider; times are UTC.

    \b
    Example:
      dragonfly usage acc-… --days 7
    """
    today = day_of(SystemClock().now_ns())
    with opened(config) as (_, engine), read(engine) as connection:
        require_account(connection, account)
        wallet = wallet_of(connection, AccountId(account)) or EMPTY_WALLET
        totals = day_totals(
            connection, AccountId(account), first_day=today - days + 1, last_day=today, limit=10 * PAGE
        )
    if as_json:
        show_json({"account": account, **_wallet_fields(wallet), "usage": [_total_fields(one) for one in totals]})
        return
    show_fields({"Balance USD": usd_text(wallet.balance_nusd), "Charged USD": usd_text(wallet.charged_nusd)})
    show_table(
        ("DAY", "MODEL", "PROVIDER", "KEY", "REQUESTS", "PROMPT", "COMPLETION", "COST USD"),
        [
            (
                _date(one.day),
                one.model,
                one.provider,
                one.key_id,
                one.requests,
                one.prompt_tokens,
                one.completion_tokens,
                usd_text(one.cost_nusd),
            )
            for one in totals
        ],
    )


def _wallet_fields(wallet: Wallet) -> dict[str, str]:
    return {
        "balance_usd": usd_text(wallet.balance_nusd),
        "available_usd": usd_text(wallet.available_nusd),
        "charged_usd": usd_text(wallet.charged_nusd),
    }


def _total_fields(total: DayTotal) -> dict[str, str | int]:
    return {
        "day": _date(total.day),
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


def _date(day: int) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(days=day)).date().isoformat()
