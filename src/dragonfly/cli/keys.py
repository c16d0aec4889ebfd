"""`dragonfly key`: what an operator does with API keys."""

from typing import Annotated

import typer
from sqlalchemy import Connection

from dragonfly.app.setup import peppers_of
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, show_json, show_line, show_table
from dragonfly.cli.values import PAGE, Account, SpendOption, moment, require_account, usd
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import AccountId, IdSource, KeyId
from dragonfly.core.money import NanoUsd, usd_text
from dragonfly.infra.database import read, write
from dragonfly.keys.actions import KeyNotFound, issue_key, resume_key, revoke_key
from dragonfly.keys.queries import StoredKey, key_of_account, keys_of_account, owner_of_key
from dragonfly.keys.rules import KeyLimits
from dragonfly.notices.key_letters import KeyChange, tell_key_changed

EXPIRY_DAYS_MAX = 3_650

key_commands = typer.Typer(no_args_is_help=True, help="API keys: issue, list, revoke.")

Key = Annotated[str, typer.Argument(metavar="KEY", help="The key's id: the ten characters after sk-df-")]


@key_commands.command("create")
def key_create(
    account: Account,
    name: Annotated[str, typer.Option(help="A name for people")] = "default",
    limit: Annotated[
        NanoUsd | None, typer.Option(metavar="USD", parser=usd, help="Most this key may ever spend")
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
        require_account(connection, account)
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
    key: Key,
    config: ConfigFile = None,
) -> None:
    """Let a key go on that was paused because it suddenly spent far more than usual.

    \b
    Example:
      dragonfly key resume 4Hb2kPq9Zx
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), write(engine) as connection:
        owner = _owner(connection, key)
        resume_key(connection, KeyId(key), account_id=owner, now_ns=now_ns)
    show_line("Resumed. It is left alone for 24 hours.")


@key_commands.command("revoke")
def key_revoke(
    key: Key,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key for good. Every running gateway refuses it within a second; its owner gets a mail.

    \b
    Example:
      dragonfly key revoke 4Hb2kPq9Zx
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), write(engine) as connection:
        owner = _owner(connection, key)
        revoke_key(connection, KeyId(key), account_id=owner, now_ns=now_ns)
        stored = key_of_account(connection, KeyId(key), account_id=owner)
        assert stored is not None, "it was just revoked"
        tell_key_changed(connection, IdSource(), stored, KeyChange.REVOKED, now_ns=now_ns)
    if as_json:
        show_json({"key_id": key, "account": owner, "revoked": True})
    else:
        show_line(f"Revoked. The key belonged to {owner}.")


def _owner(connection: Connection, key: str) -> AccountId:
    owner = owner_of_key(connection, KeyId(key))
    if owner is None:
        raise KeyNotFound
    return owner


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
        "expires_at": None if limits.expires_at_ns is None else moment(limits.expires_at_ns),
        "created_at": moment(key.created_at_ns),
    }


def _state(key: StoredKey, now_ns: int) -> str:
    if key.revoked_at_ns is not None:
        return "revoked"
    expires_at_ns = key.limits.expires_at_ns
    return "expired" if expires_at_ns is not None and expires_at_ns <= now_ns else "active"
