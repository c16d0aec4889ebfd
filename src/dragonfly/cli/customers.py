"""`dragonfly account`, `key`, `credit` and `usage`: what an operator does for customers."""

from datetime import UTC, datetime, timedelta
from decimal import InvalidOperation
from typing import Annotated

import typer
from sqlalchemy import Connection

from dragonfly.accounts.actions import AccountNotFound, create_account, freeze_account
from dragonfly.accounts.queries import account_by_id, accounts_page
from dragonfly.app.setup import peppers_of
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, show_fields, show_json, show_line, show_table
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import AccountId, IdSource, KeyId
from dragonfly.core.money import NanoUsd, from_usd, usd_text
from dragonfly.infra.database import read, write
from dragonfly.keys.actions import KeyNotFound, issue_key, limit_account, resume_key, revoke_key
from dragonfly.keys.queries import StoredKey, keys_of_account, owner_of_key
from dragonfly.keys.rules import KeyLimits, SpendLimits
from dragonfly.ledger.actions import grant_credit
from dragonfly.ledger.queries import EMPTY_WALLET, Wallet, wallet_of
from dragonfly.operations.actions import record_action
from dragonfly.operations.rules import AuditAction
from dragonfly.usage.queries import DayTotal, day_of, day_totals

PAGE = 1_000
COMMAND_LINE = AccountId("command line")
"""Who acted, in the audit log, when it was whoever can run commands on the machine."""
EXPIRY_DAYS_MAX = 3_650

account_commands = typer.Typer(no_args_is_help=True, help="Accounts: who holds a balance and owns keys.")
key_commands = typer.Typer(no_args_is_help=True, help="API keys: issue, list, revoke.")
credit_commands = typer.Typer(no_args_is_help=True, help="Credit: give an account money to spend.")

Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id, acc-…")]


def _usd(text: str) -> NanoUsd:
    try:
        return from_usd(text)
    except (ValueError, InvalidOperation):
        raise typer.BadParameter("write dollars as a decimal, such as 5 or 0.25") from None


Usd = Annotated[NanoUsd, typer.Argument(metavar="USD", parser=_usd, help="Dollars, e.g. 5 or 0.25")]


SpendOption = Annotated[
    NanoUsd | None, typer.Option(metavar="USD", parser=_usd, help="Most in a day, week or month of UTC")
]


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
                    "created_at": _moment(account.created_at_ns),
                    **_wallet_fields(wallet),
                }
                for account, wallet in found
            ]
        )
        return
    show_table(
        ("ACCOUNT", "NAME", "BALANCE USD", "CREATED"),
        [(one.id, one.name, usd_text(wallet.balance_nusd), _moment(one.created_at_ns)) for one, wallet in found],
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


@key_commands.command("create")
def key_create(
    account: Account,
    name: Annotated[str, typer.Option(help="A name for people")] = "default",
    limit: Annotated[
        NanoUsd | None, typer.Option(metavar="USD", parser=_usd, help="Most this key may ever spend")
    ] = None,
    models: Annotated[list[str] | None, typer.Option("--model", help="Only this model; repeat for more")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="0: no limit; default: from the settings")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="0: no limit; default: from the settings")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Open requests; 0: no limit")] = None,
    daily: SpendOption = None,
    weekly: SpendOption = None,
    monthly: SpendOption = None,
    networks: Annotated[list[str] | None, typer.Option("--network", help="Only from here (CIDR); repeat")] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=EXPIRY_DAYS_MAX)] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key and print it. It is shown this once and stored only as a keyed digest.

    \b
    Examples:
      dragonfly key create acc-… --name laptop
      dragonfly key create acc-… --limit 2.50 --model deepseek/deepseek-flash --expires-in-days 30
      dragonfly key create acc-… --daily 5 --monthly 50 --tokens-per-minute 100000 --network 192.0.2.0/24
    """
    now_ns = SystemClock().now_ns()
    expires_at_ns = now_ns + expires_in_days * 86_400 * 10**9 if expires_in_days else None
    limits = KeyLimits(
        requests_per_minute=requests_per_minute,
        spend_limit_nusd=limit,
        models=frozenset(models) if models else None,
        expires_at_ns=expires_at_ns,
        concurrency_max=concurrency,
        tokens_per_minute=tokens_per_minute,
        spend_daily_nusd=daily,
        spend_weekly_nusd=weekly,
        spend_monthly_nusd=monthly,
        networks=tuple(networks) if networks else None,
    )
    with opened(config) as (settings, engine):
        peppers = peppers_of(settings)
        with write(engine) as connection:
            issued = issue_key(
                connection, peppers, account_id=AccountId(account), name=name, limits=limits, now_ns=now_ns
            )
    if as_json:
        show_json({"key": issued.secret.reveal(), "key_id": issued.key_id, "hint": issued.hint, "account": account})
    else:
        show_line(issued.secret.reveal())


@key_commands.command("list")
def key_list(account: Account, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List an account's keys: ids, hints and limits. Nobody can show a key again.

    \b
    Example:
      dragonfly key list acc-…
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), read(engine) as connection:
        _require_account(connection, account)
        found = keys_of_account(connection, AccountId(account), limit=PAGE)
    if as_json:
        show_json([_key_fields(key, now_ns) for key in found])
        return
    show_table(
        ("KEY", "HINT", "NAME", "STATE", "SPENT USD"),
        [(key.id, key.hint, key.name, _state(key, now_ns), usd_text(key.spent_nusd)) for key in found],
    )


@key_commands.command("resume")
def key_resume(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id: the ten characters after sk-df-")],
    config: ConfigFile = None,
) -> None:
    """Let a key go on that was paused because it suddenly spent far more than usual.

    \b
    Example:
      dragonfly key resume 4Hb2kPq9Zx
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), write(engine) as connection:
        owner = owner_of_key(connection, KeyId(key))
        if owner is None:
            raise KeyNotFound
        resume_key(connection, KeyId(key), account_id=owner, now_ns=now_ns)
    show_line("Resumed. It is left alone for 24 hours.")


@key_commands.command("revoke")
def key_revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id: the ten characters after sk-df-")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key for good. Every running gateway refuses it within a second.

    \b
    Example:
      dragonfly key revoke 4Hb2kPq9Zx
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), write(engine) as connection:
        owner = owner_of_key(connection, KeyId(key))
        if owner is None:
            raise KeyNotFound
        revoke_key(connection, KeyId(key), account_id=owner, now_ns=now_ns)
    if as_json:
        show_json({"key_id": key, "account": owner, "revoked": True})
    else:
        show_line(f"Revoked. The key belonged to {owner}.")


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
        _require_account(connection, account)
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


def _require_account(connection: Connection, account: str) -> None:
    if account_by_id(connection, AccountId(account)) is None:
        raise AccountNotFound


def _wallet_fields(wallet: Wallet) -> dict[str, str]:
    return {
        "balance_usd": usd_text(wallet.balance_nusd),
        "available_usd": usd_text(wallet.available_nusd),
        "charged_usd": usd_text(wallet.charged_nusd),
    }


def _key_fields(key: StoredKey, now_ns: int) -> dict[str, str | int | list[str] | None]:
    limits = key.limits
    return {
        "key_id": key.id,
        "hint": key.hint,
        "name": key.name,
        "state": _state(key, now_ns),
        "spent_usd": usd_text(key.spent_nusd),
        "limit_usd": None if limits.spend_limit_nusd is None else usd_text(limits.spend_limit_nusd),
        "requests_per_minute": limits.requests_per_minute,
        "models": None if limits.models is None else sorted(limits.models),
        "expires_at": None if limits.expires_at_ns is None else _moment(limits.expires_at_ns),
        "created_at": _moment(key.created_at_ns),
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


def _state(key: StoredKey, now_ns: int) -> str:
    if key.revoked_at_ns is not None:
        return "revoked"
    expires_at_ns = key.limits.expires_at_ns
    return "expired" if expires_at_ns is not None and expires_at_ns <= now_ns else "active"


def _moment(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 10**9, UTC).isoformat()


def _date(day: int) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(days=day)).date().isoformat()
