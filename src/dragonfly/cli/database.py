"""`dragonfly database`: moving an installation to another database."""

import os
from typing import Annotated

import typer
from sqlalchemy import Engine
from sqlalchemy.exc import ArgumentError

from dragonfly.admission.proofs import compared_since_ns
from dragonfly.cli.opening import ConfigFile
from dragonfly.cli.output import AsJson, show_json, show_line, show_table
from dragonfly.core.clock import SystemClock
from dragonfly.infra.database import open_engine
from dragonfly.migrations.copying import Copied, CopyRefused, copy_database
from dragonfly.privacy.inventory import all_tables
from dragonfly.settings import load_settings

database_commands = typer.Typer(no_args_is_help=True, help="The database: move to another one.")

Source = Annotated[str, typer.Argument(metavar="FROM", help="sqlite:///path/to/dragonfly.db")]
Target = Annotated[str, typer.Argument(metavar="TO", help="postgresql://user@host/database, empty")]


@database_commands.command("copy")
def database_copy(source: Source, target: Target, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Copy an SQLite installation to PostgreSQL.

    Stop the gateway first; while one is running, nothing is copied. Every row is compared by digests and the books
    are proven before anything counts: the target is complete afterwards, or still empty. The source stays as it is.
    Put the password into ~/.pgpass or PGPASSWORD, where no list of processes shows it.

    \b
    Example:
      dragonfly database copy sqlite:///data/dragonfly.db postgresql://dragonfly@db.example.com/dragonfly
    """
    settings = load_settings(os.environ, config)
    since_ns = compared_since_ns(SystemClock().now_ns(), 0)
    giving, taking = _open("FROM", source), _open("TO", target)
    try:
        copied = copy_database(
            giving,
            taking,
            all_tables(),
            silence_s=settings.admission.heartbeat_dead_s,
            usage_since_ns=since_ns,
        )
    finally:
        giving.dispose()
        taking.dispose()
    _show(copied, as_json=as_json)


def _open(name: str, url: str) -> Engine:
    try:
        engine = open_engine(url, create=False)
    except (ValueError, ArgumentError):
        raise CopyRefused(f"{name} needs sqlite:///path/to/file.db or postgresql://user@host/database.") from None
    except OSError:
        raise CopyRefused(f"{name} is a file that does not exist.") from None
    return engine


def _show(copied: Copied, *, as_json: bool) -> None:
    if as_json:
        show_json({"tables": [table._asdict() for table in copied.tables], "books_are_right": True})
        return
    show_table(("TABLE", "ROWS", "DIGEST"), [(one.name, one.rows, one.digest[:16]) for one in copied.tables])
    show_line(
        f"Every row is there, and the books are right: {len(copied.report.checks)} checks. Set database_url to the"
        " new database, keep key_pepper or the file key-pepper, and do not serve from the old file any more."
    )
