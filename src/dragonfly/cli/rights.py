"""`dragonfly rights`: requests for a copy of one's data and for deletion, reviewed from the command line."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from dragonfly.app.rights import rights_tools
from dragonfly.app.setup import peppers_of
from dragonfly.cli.failures import REFUSED
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, JsonValue, show_fields, show_json, show_line, show_table
from dragonfly.cli.values import COMMAND_LINE, PAGE
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import read, write
from dragonfly.operations.actions import record_action
from dragonfly.operations.rules import AuditAction
from dragonfly.privacy.certificates import is_genuine
from dragonfly.privacy.signing import public_key_of, signing_key
from dragonfly.rights.actions import (
    DataRequestNotFound,
    RightsTools,
    approve,
    cancel,
    give_up_balance,
    note,
    open_request,
    refuse,
)
from dragonfly.rights.queries import DataRequest, request_by_id, requests_page
from dragonfly.rights.rules import Origin, RequestKind, State

WORDS = "in the operator's words"

rights_commands = typer.Typer(no_args_is_help=True, help="Requests for a copy of one's data and for deletion.")

Request = Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id, drq-…")]
Because = Annotated[str, typer.Option("--reason", help="Why; stands in the audit log")]
Work = Callable[[Connection, RightsTools, int], DataRequest]


@rights_commands.command("list")
def rights_list(
    state: Annotated[State | None, typer.Option(help="Only requests in this state")] = None,
    kind: Annotated[RequestKind | None, typer.Option(help="Only requests of this kind")] = None,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only what should have been answered")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List requests, what is due first, at most a thousand.

    \b
    Examples:
      dragonfly rights list --state requested
      dragonfly rights list --overdue --json
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), read(engine) as connection:
        overdue_at_ns = now_ns if overdue else None
        found = requests_page(connection, state=state, kind=kind, overdue_at_ns=overdue_at_ns, limit=PAGE)
    if as_json:
        show_json([_fields(one, now_ns) for one in found])
        return
    rows = [
        (one.id, one.kind.value, one.state.value, one.account_id, _day(one.due_at_ns), _remark(one, now_ns))
        for one in found
    ]
    show_table(("REQUEST", "KIND", "STATE", "ACCOUNT", "DUE", ""), rows)


@rights_commands.command("show")
def rights_show(request: Request, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show one request; of a deletion that was done, also the certificate.

    \b
    Example:
      dragonfly rights show drq-… --json
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), read(engine) as connection:
        found = request_by_id(connection, request)
    if found is None:
        raise DataRequestNotFound
    if as_json:
        show_json(_fields(found, now_ns))
        return
    show_fields(_fields(found, now_ns))


@rights_commands.command("open")
def rights_open(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id, acc-…")],
    kind: Annotated[RequestKind, typer.Option(help="What is asked for")],
    reason: Because,
    give_up: Annotated[bool, typer.Option("--give-up-balance", help="The owner gives up what is left")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Write down what somebody asked for by letter, who proved to be the account's owner.

    \b
    Example:
      dragonfly rights open acc-… --kind deletion --reason "letter of 12 November, passport shown"
    """

    def work(connection: Connection, tools: RightsTools, now_ns: int) -> DataRequest:
        return open_request(
            connection,
            tools,
            account_id=AccountId(account),
            kind=kind,
            origin=Origin.OPERATOR,
            ticket_id=None,
            gives_up_balance=give_up,
            now_ns=now_ns,
        )

    _do(work, AuditAction.DATA_REQUEST_OPEN, reason, config, as_json=as_json)


@rights_commands.command("approve")
def rights_approve(
    request: Request,
    reason: Because,
    account: Annotated[str | None, typer.Option(help="For a stranger's request: whose data it is about")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Say yes: a copy can be fetched by its owner; a deletion stops keys and sessions and waits for its day.

    \b
    Example:
      dragonfly rights approve drq-… --reason "signed in, asked twice"
    """

    def work(connection: Connection, tools: RightsTools, now_ns: int) -> DataRequest:
        named = None if account is None else AccountId(account)
        return approve(connection, tools, request, reviewed_by=COMMAND_LINE, account_id=named, now_ns=now_ns)

    _do(work, AuditAction.DATA_REQUEST_APPROVE, reason, config, request, as_json=as_json)


@rights_commands.command("refuse")
def rights_refuse(
    request: Request,
    reason: Annotated[str, typer.Option(help="The person reads it")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Say no; the person is told the reason by mail.

    \b
    Example:
      dragonfly rights refuse drq-… --reason "You did not confirm that the account is yours."
    """

    def work(connection: Connection, tools: RightsTools, now_ns: int) -> DataRequest:
        return refuse(connection, tools, request, reason=reason, reviewed_by=COMMAND_LINE, now_ns=now_ns)

    _do(work, AuditAction.DATA_REQUEST_REFUSE, WORDS, config, request, as_json=as_json)


@rights_commands.command("cancel")
def rights_cancel(request: Request, reason: Because, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Take a request back for somebody; after an approved deletion the keys work again.

    \b
    Example:
      dragonfly rights cancel drq-… --reason "owner changed her mind, by telephone"
    """

    def work(connection: Connection, tools: RightsTools, now_ns: int) -> DataRequest:
        return cancel(connection, tools, request, now_ns=now_ns)

    _do(work, AuditAction.DATA_REQUEST_CANCEL, reason, config, request, as_json=as_json)


@rights_commands.command("forfeit")
def rights_forfeit(request: Request, reason: Because, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Note that the owner gives up the balance, for which a deletion waits.

    \b
    Example:
      dragonfly rights forfeit drq-… --reason "answer in ticket tkt-…"
    """

    def work(connection: Connection, tools: RightsTools, now_ns: int) -> DataRequest:
        return give_up_balance(connection, request)

    _do(work, AuditAction.DATA_REQUEST_FORFEIT, reason, config, request, as_json=as_json)


@rights_commands.command("note")
def rights_note(
    request: Request,
    text: Annotated[str, typer.Argument(help="What other operators should know")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Note something for other operators; it replaces what was noted before.

    \b
    Example:
      dragonfly rights note drq-… "waits for a copy of the invoice"
    """

    def work(connection: Connection, tools: RightsTools, now_ns: int) -> DataRequest:
        return note(connection, request, text)

    _do(work, AuditAction.DATA_REQUEST_NOTE, WORDS, config, request, as_json=as_json)


@rights_commands.command("verify")
def rights_verify(
    file: Annotated[Path, typer.Argument(help="A certificate of a deletion", dir_okay=False, exists=True)],
    config: ConfigFile = None,
) -> None:
    """Check that a certificate was signed by this installation and has not been changed.

    \b
    Example:
      dragonfly rights verify certificate.json
    """
    with opened(config) as (settings, _):
        own = public_key_of(signing_key(peppers_of(settings)))
    if not is_genuine(file.read_text(), own):
        show_line("This certificate was not signed by this installation, or it was changed.")
        raise typer.Exit(REFUSED)
    show_line("The signature is right.")


def _do(
    work: Work, action: AuditAction, reason: str, config: ConfigFile, request: str = "", *, as_json: bool
) -> None:
    """One step with its row in the audit log; a step that changed nothing leaves none."""
    now_ns = SystemClock().now_ns()
    with opened(config) as (settings, engine):
        tools = rights_tools(settings, peppers_of(settings), IdSource())
        with write(engine) as connection:
            before = request_by_id(connection, request)
            after = work(connection, tools, now_ns)
            if after != before:
                record_action(connection, COMMAND_LINE, action, target=after.id, reason=reason, now_ns=now_ns)
    if as_json:
        show_json(_fields(after, now_ns))
    else:
        show_line(f"{after.id}: {after.state.value}{_dated(after)}")


def _dated(request: DataRequest) -> str:
    if request.state is not State.APPROVED or request.until_ns is None:
        return ""
    what = "can be fetched until" if request.kind is RequestKind.EXPORT else "erased on"
    return f", {what} {_day(request.until_ns)}"


def _remark(request: DataRequest, now_ns: int) -> str:
    if request.waits_for is not None:
        return f"waits for {request.waits_for.value}"
    return "OVERDUE" if request.is_overdue(now_ns) else ""


def _fields(request: DataRequest, now_ns: int) -> dict[str, JsonValue]:
    moments = {
        name.removesuffix("_ns"): None if at_ns is None else _moment(at_ns)
        for name, at_ns in (
            ("created_at_ns", request.created_at_ns),
            ("due_at_ns", request.due_at_ns),
            ("reviewed_at_ns", request.reviewed_at_ns),
            ("until_ns", request.until_ns),
            ("ended_at_ns", request.ended_at_ns),
        )
    }
    return {
        "id": request.id,
        "kind": request.kind.value,
        "state": request.state.value,
        "origin": request.origin.value,
        "account": request.account_id,
        "ticket": request.ticket_id,
        "overdue": request.is_overdue(now_ns),
        "gives_up_balance": request.gives_up_balance,
        "waits_for": None if request.waits_for is None else request.waits_for.value,
        "reason": request.reason,
        "note": request.note,
        "reviewed_by": request.reviewed_by,
        **moments,
        "certificate": request.certificate,
    }


def _moment(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="seconds")


def _day(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d")
