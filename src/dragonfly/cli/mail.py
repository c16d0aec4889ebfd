"""`dragonfly mail`: whether mail works, what waits, and who gets none."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from dragonfly.app.mail import open_post_office, seals_of
from dragonfly.app.setup import peppers_of, seal_of
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, show_json, show_line, show_table
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import IdSource
from dragonfly.infra.database import read, write
from dragonfly.mail.actions import allow_address
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.messages import Message
from dragonfly.mail.outbox import MailAddressInvalid
from dragonfly.mail.queries import outbox_page
from dragonfly.mail.rules import is_mail_address, mail_language
from dragonfly.mail.sending import PostOffice

PAGE = 100
STATES = ("queued", "sent", "dead", "withheld")

mail_commands = typer.Typer(no_args_is_help=True, help="Mail: try it, look at the outbox, forgive an address.")

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="One address, such as alice@example.com")]


@mail_commands.command("test")
def mail_test(
    address: Address,
    language: Annotated[str, typer.Option(help="en or zh")] = "en",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Send one test mail with the settings as they are, past the outbox.

    \b
    Example:
      dragonfly mail test alice@example.com
    """
    if not is_mail_address(address):
        raise MailAddressInvalid
    with opened(config) as (settings, _):
        office = open_post_office(settings, peppers_of(settings), seal_of(settings), sys.stdout)
    now_ns = SystemClock().now_ns()
    values = {"time": _moment(now_ns)}
    written = office.press.write(MailKind.TEST, mail_language(language), values, unsubscribe_link=None)
    message = Message(IdSource().new("mail-", now_ns), address, *written, {}, now_ns)
    transport_id = asyncio.run(_send(office, message))
    if as_json:
        show_json({"mail": message.id, "transport": settings.mail.transport, "transport_id": transport_id})
    else:
        show_line(f"Handed over by {settings.mail.transport}.")


async def _send(office: PostOffice, message: Message) -> str | None:
    try:
        return await office.transport.send(message)
    finally:
        await office.transport.close()


@mail_commands.command("outbox")
def mail_outbox(
    state: Annotated[str | None, typer.Option(help=f"Only these: {', '.join(STATES)}")] = None,
    before: Annotated[str | None, typer.Option(help="Older than this id, for the next page")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List mails of the last 30 days, newest first, a hundred a page. What they say is not kept.

    \b
    Examples:
      dragonfly mail outbox --state dead
      dragonfly mail outbox --json
    """
    if state is not None and state not in STATES:
        raise typer.BadParameter(f"choose one of {', '.join(STATES)}", param_hint="--state")
    with opened(config) as (_, engine), read(engine) as connection:
        found = outbox_page(connection, state=state, before=before, limit=PAGE)
    if as_json:
        show_json(
            [
                {
                    "mail": row.id,
                    "kind": row.kind,
                    "account": row.account_id,
                    "address": row.address,
                    "state": row.state,
                    "attempts": row.attempts,
                    "failure": row.failure,
                    "created_at": _moment(row.created_at_ns),
                    "ended_at": None if row.ended_at_ns is None else _moment(row.ended_at_ns),
                }
                for row in found
            ]
        )
        return
    show_table(
        ("MAIL", "KIND", "ADDRESS", "STATE", "ATTEMPTS", "FAILURE", "QUEUED"),
        [
            (row.id, row.kind, row.address, row.state, row.attempts, row.failure, _moment(row.created_at_ns))
            for row in found
        ],
    )


@mail_commands.command("allow")
def mail_allow(address: Address, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Send mail to an address again that had bounced or complained. Ask its owner first.

    \b
    Example:
      dragonfly mail allow alice@example.com
    """
    if not is_mail_address(address):
        raise MailAddressInvalid
    with opened(config) as (settings, engine), write(engine) as connection:
        was_dead = allow_address(connection, seals_of(peppers_of(settings)).address_digest(address))
    if as_json:
        show_json({"address": address, "was_dead": was_dead})
    else:
        show_line("Mail goes there again." if was_dead else "Nothing kept mail from that address.")


def _moment(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 10**9, UTC).isoformat()
