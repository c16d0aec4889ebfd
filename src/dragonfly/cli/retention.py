"""`dragonfly retention`, `backup` and `restore`: data ends when it should, also in copies."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dragonfly.app.setup import data_folder, database_file, is_sqlite, open_database
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, show_json, show_line
from dragonfly.core.clock import SystemClock
from dragonfly.privacy.backups import expire_backups, make_backup, restore_backup, restore_to_server
from dragonfly.privacy.retention import run_retention
from dragonfly.settings import Settings, load_settings

BACKUPS = "backups"

retention_commands = typer.Typer(no_args_is_help=True, help="Delete what has lived its time.")


def backups_of(settings: Settings) -> Path:
    """The default folder of backups."""
    return settings.data_dir / BACKUPS


def _moment(text: str) -> int:
    """ISO 8601 as nanoseconds since the epoch; UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("write a time such as 2027-02-21T12:00") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)


@retention_commands.command("run")
def retention_run(
    at: Annotated[int | None, typer.Option(metavar="TIME", parser=_moment, help="As if it were then")] = None,
    compact: Annotated[bool, typer.Option("--compact", help="Rewrite the files; locks them meanwhile")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Delete every row that has lived its time, and take its bytes out of the files.

    A running gateway does the same every ten minutes. Lifetimes stand in docs/data-map.md. Backups that have expired
    are deleted too. A time in the future deletes what will have expired by then.

    \b
    Examples:
      dragonfly retention run
      dragonfly retention run --at 2027-02-21T12:00 --json
    """
    now_ns = SystemClock().now_ns() if at is None else at
    with opened(config) as (settings, engine):
        run = run_retention(engine, now_ns=now_ns, compact=compact)
        backups = expire_backups(backups_of(settings), days=settings.privacy.backup_days, now_ns=now_ns)
    if as_json:
        show_json({"deleted": run.deleted, "backups": len(backups), "erased_from_files": run.is_compacted})
        return
    rows = ", ".join(f"{count} of {name}" for name, count in sorted(run.deleted.items())) or "no rows"
    show_line(f"Deleted {rows} and {len(backups)} backups.")
    if not run.is_compacted:
        show_line("A reader kept the journal from being cut; the next run tries again.")


def backup(
    folder: Annotated[Path | None, typer.Option(help="Default: backups in data_dir", file_okay=False)] = None,
    config: ConfigFile = None,
) -> None:
    """Write a consistent copy of the database.

    The gateway may go on running. Prints the copy's path: an SQLite file, also of a PostgreSQL database.

    The copy may be kept for privacy.backup_days; rows that would outlive their time in it are left out, and copies in
    the default folder are deleted when their days are over.

    \b
    Example:
      dragonfly backup --folder /mnt/backups
    """
    with opened(config) as (settings, engine):
        days, now_ns = settings.privacy.backup_days, SystemClock().now_ns()
        path = make_backup(engine, folder or backups_of(settings), days=days, now_ns=now_ns)
        expire_backups(folder or backups_of(settings), days=days, now_ns=now_ns)
    show_line(str(path))


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `dragonfly backup` wrote", exists=True, dir_okay=False)],
    config: ConfigFile = None,
) -> None:
    """Put a backup in the place of the database. Stop the gateway first, and move the old SQLite file away, or make
    database_url point to an empty PostgreSQL database.

    Retention runs before anything can be served. Prove the books afterwards: dragonfly ledger verify.

    \b
    Example:
      dragonfly restore data/backups/dragonfly-20261123T120000Z.db
    """
    settings = load_settings(os.environ, config)
    now_ns = SystemClock().now_ns()
    if is_sqlite(settings):
        restore_backup(file, database_file(settings), now_ns=now_ns)
    else:
        engine = open_database(settings)
        try:
            restore_to_server(file, engine, data_folder(settings), now_ns=now_ns)
        finally:
            engine.dispose()
    show_line("Restored. Prove the books with: dragonfly ledger verify")
