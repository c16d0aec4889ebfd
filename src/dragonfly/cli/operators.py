"""`dragonfly operator`: who runs this installation, and what they did."""

from typing import Annotated

import typer

from dragonfly.accounts.people import operators, person_by_address, unmake_operator
from dragonfly.accounts.recovery import add_operator
from dragonfly.accounts.second_factors import has_second_factor
from dragonfly.app.people import tools_of
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, show_json, show_line, show_table
from dragonfly.cli.values import COMMAND_LINE, moment
from dragonfly.core.clock import SystemClock
from dragonfly.core.credentials import TokenKind
from dragonfly.core.ids import IdSource
from dragonfly.infra.database import read, write
from dragonfly.operations.actions import record_action
from dragonfly.operations.queries import audit_page, first_broken_row
from dragonfly.operations.rules import AuditAction

LOG_PAGE = 100
ON_THE_MACHINE = "done on the machine itself"
"""The reason in the log when nobody gave one."""

operator_commands = typer.Typer(no_args_is_help=True, help="People who run this installation, and what they did.")

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The operator's address")]
Reason = Annotated[str, typer.Option(help="Why; stands in the audit log")]


@operator_commands.command("add")
def operator_add(
    email: Email, reason: Reason = ON_THE_MACHINE, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Make an operator's account and print the link that sets it up.

    The link works once, within three days. A second factor is asked for before anything of operators can be used. An
    account that has this address already becomes an operator's; whoever was signed in there is signed out.

    \b
    Example:
      dragonfly operator add alice@example.com
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (settings, engine):
        tools = tools_of(settings, IdSource())
        with write(engine) as connection:
            account_id, token = add_operator(connection, tools, email, now_ns=now_ns)
            action = AuditAction.OPERATOR_ADD
            record_action(connection, COMMAND_LINE, action, target=account_id, reason=reason, now_ns=now_ns)
    link = tools.link(TokenKind.SETUP, token)
    if as_json:
        show_json({"account": account_id, "link": link})
    else:
        show_line(link)


@operator_commands.command("remove")
def operator_remove(email: Email, reason: Reason = ON_THE_MACHINE, config: ConfigFile = None) -> None:
    """Make an operator a customer again. Their sessions end at once, everywhere.

    \b
    Example:
      dragonfly operator remove alice@example.com --reason "left the team"
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), write(engine) as connection:
        person = person_by_address(connection, email)
        if person is None or person.role != "operator":
            raise typer.BadParameter("no operator has this address; dragonfly operator list shows them")
        action = AuditAction.OPERATOR_REMOVE
        record_action(connection, COMMAND_LINE, action, target=person.account_id, reason=reason, now_ns=now_ns)
        unmake_operator(connection, person.account_id, now_ns=now_ns)
    show_line("Removed. Every session of theirs has ended.")


@operator_commands.command("list")
def operator_list(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List operators, and whether they have set up their second factor.

    \b
    Example:
      dragonfly operator list
    """
    with opened(config) as (_, engine), read(engine) as connection:
        found = [(one, has_second_factor(connection, one.account_id)) for one in operators(connection)]
    if as_json:
        show_json([{"account": one.account_id, "email": one.address, "second_factor": has} for one, has in found])
        return
    show_table(
        ("ACCOUNT", "EMAIL", "SECOND FACTOR"),
        [(one.account_id, one.address, "yes" if has else "not yet") for one, has in found],
    )


@operator_commands.command("log")
def operator_log(
    target: Annotated[str | None, typer.Option(help="Only what was done to this account, key or channel")] = None,
    before: Annotated[int | None, typer.Option(help="Older than this number, for the next page")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what operators did, newest first, a hundred a page.

    \b
    Examples:
      dragonfly operator log
      dragonfly operator log --target acc-… --json
    """
    with opened(config) as (_, engine), read(engine) as connection:
        found = audit_page(connection, before=before, target=target, limit=LOG_PAGE)
    if as_json:
        show_json(
            [
                {
                    "number": row.number,
                    "at": moment(row.at_ns),
                    "actor": row.actor_id,
                    "action": row.action,
                    "target": row.target,
                    "reason": row.reason,
                }
                for row in found
            ]
        )
        return
    show_table(
        ("NUMBER", "AT", "WHO", "WHAT", "TO", "WHY"),
        [(row.number, moment(row.at_ns), row.actor_id, row.action, row.target, row.reason) for row in found],
    )


@operator_commands.command("verify")
def operator_verify(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Prove that the log is whole: each row follows from the one before. Exit code 1 when one does not.

    \b
    Example:
      dragonfly operator verify
    """
    with opened(config) as (_, engine), read(engine) as connection:
        broken = first_broken_row(connection)
    if as_json:
        show_json({"is_whole": broken is None, "first_broken": broken})
    else:
        show_line("The log is whole." if broken is None else f"Row {broken} was changed, or is missing.")
    if broken is not None:
        raise typer.Exit(1)
