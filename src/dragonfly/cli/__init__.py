"""The command line. Each command is a thin layer over the actions and queries of the packages below."""

from typing import NoReturn

import typer

from dragonfly.cli.books import ledger_commands
from dragonfly.cli.customers import account_commands, credit_commands, usage
from dragonfly.cli.database import database_commands
from dragonfly.cli.failures import run
from dragonfly.cli.keys import key_commands
from dragonfly.cli.mail import mail_commands
from dragonfly.cli.market import catalog_commands, models
from dragonfly.cli.operators import operator_commands
from dragonfly.cli.payments import payment_commands
from dragonfly.cli.privacy import privacy_commands
from dragonfly.cli.retention import backup, restore, retention_commands
from dragonfly.cli.rights import rights_commands
from dragonfly.cli.serving import demo, migrate, serve, version
from dragonfly.cli.statements import statement

commands = typer.Typer(
    name="dragonfly",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A self-hostable, OpenAI-compatible gateway to language models. Try it: dragonfly demo",
    epilog="Exit codes: 0 done, 1 refused or found something, 2 wrong arguments, 3 wrong settings, "
    "4 database away or to be migrated, 70 a fault in Dragonfly.",
)
for command in (demo, serve, migrate, version, models, usage, statement, backup, restore):
    commands.command()(command)
for name, group in {
    "account": account_commands,
    "key": key_commands,
    "credit": credit_commands,
    "catalog": catalog_commands,
    "database": database_commands,
    "ledger": ledger_commands,
    "mail": mail_commands,
    "operator": operator_commands,
    "payments": payment_commands,
    "privacy": privacy_commands,
    "retention": retention_commands,
    "rights": rights_commands,
}.items():
    commands.add_typer(group, name=name)


def main() -> NoReturn:
    """Entry point of the `dragonfly` program."""
    run(commands)
