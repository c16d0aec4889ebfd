"""`dragonfly operator`: who runs this installation."""

from typing import Annotated

import typer

from dragonfly.accounts.recovery import add_operator
from dragonfly.app.people import tools_of
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, show_json, show_line
from dragonfly.core.clock import SystemClock
from dragonfly.core.credentials import TokenKind
from dragonfly.core.ids import IdSource
from dragonfly.infra.database import write

operator_commands = typer.Typer(no_args_is_help=True, help="People who run this installation.")


@operator_commands.command("add")
def operator_add(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The operator's address")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make an operator's account and print the link that sets it up.

    The link works once, within three days. A second factor is asked for before anything of operators can be used. An
    account that has this address already becomes an operator's; whoever was signed in there is signed out.

    \b
    Example:
      dragonfly operator add alice@example.com
    """
    with opened(config) as (settings, engine):
        tools = tools_of(settings, IdSource())
        with write(engine) as connection:
            account_id, token = add_operator(connection, tools, email, now_ns=SystemClock().now_ns())
    link = tools.link(TokenKind.SETUP, token)
    if as_json:
        show_json({"account": account_id, "link": link})
    else:
        show_line(link)
