"""`dragonfly privacy`: what is kept, and the proofs that nothing else is."""

import os
from pathlib import Path
from typing import Annotated

import typer

from dragonfly.app.setup import peppers_of
from dragonfly.cli.failures import REFUSED
from dragonfly.cli.opening import ConfigFile
from dragonfly.cli.output import AsJson, show_line, warn
from dragonfly.privacy.audit.outside import OutsidePlan, audit_from_outside
from dragonfly.privacy.audit.report import REPORT_FILE, Report, as_json, as_text, signed_report, signing_key
from dragonfly.privacy.audit.run import Plan, audit
from dragonfly.privacy.datamap import data_map
from dragonfly.settings import Settings, SettingsInvalid, load_settings

privacy_commands = typer.Typer(no_args_is_help=True, help="What is kept, and the proof that nothing else is.")

Key = Annotated[str, typer.Option(envvar="AUDIT_KEY", help="For --url: a key with credit")]
Look = Annotated[
    list[Path] | None, typer.Option("--look", help="For --url: also search this folder; repeat for more")
]


@privacy_commands.command("map")
def privacy_map() -> None:
    """Print everything that is kept, said or sent: purpose, category, lifetime, legal basis.

    \b
    Example:
      dragonfly privacy map > docs/data-map.md
    """
    show_line(data_map().rstrip("\n"))


@privacy_commands.command("audit")
def privacy_audit(
    config: ConfigFile = None,
    as_json_too: AsJson = False,
    reduced: Annotated[bool, typer.Option("--reduced", help="A seventh of the matrix: half a minute")] = False,
    postgresql: Annotated[str, typer.Option(help="URL of an empty database to use instead of SQLite")] = "",
    url: Annotated[str, typer.Option(help="Audit this deployment from outside instead")] = "",
    key: Key = "",
    model: Annotated[str, typer.Option(help="For --url: which model to ask; short requests, paid for")] = "",
    look: Look = None,
) -> None:
    """Prove that nothing that is said is kept.

    Starts this version in a folder of its own, with a provider of its own that repeats what it hears, sends canaries
    in every shape with every ending, and searches all that was written, said or left behind. Nothing of your
    installation is touched but its signature: the report is signed with a key made from key_pepper and kept in
    data_dir for /privacy/status. With --url it asks a running deployment instead. Exit code 1 when anything is found.

    \b
    Examples:
      dragonfly privacy audit
      dragonfly privacy audit --reduced --json > audit.json
      dragonfly privacy audit --url https://api.example.com --key sk-df-… --model deepseek/deepseek-flash
    """
    if url:
        report = audit_from_outside(OutsidePlan(url, key, model, tuple(look or ())))
    else:
        report = audit(Plan(is_reduced=reduced, database_url=postgresql))
    text = _kept(report, load_settings(os.environ, config), is_own=not url)
    show_line(text if as_json_too else as_text(report))
    if not report.is_clean:
        raise typer.Exit(REFUSED)


@privacy_commands.command("verify")
def privacy_verify(
    file: Annotated[Path, typer.Argument(help="A report of `dragonfly privacy audit --json`", dir_okay=False)],
    config: ConfigFile = None,
) -> None:
    """Check that a report was signed by this installation and has not been changed.

    \b
    Example:
      dragonfly privacy verify audit.json
    """
    found = signed_report(file.read_text(), signing_key(peppers_of(load_settings(os.environ, config))))
    if found is None:
        show_line("This report was not signed by this installation, or it was changed.")
        raise typer.Exit(REFUSED)
    show_line(f"Signed by this installation. {'Nothing was kept.' if found['clean'] else 'The audit was NOT CLEAN.'}")


def _kept(report: Report, settings: Settings, *, is_own: bool) -> str:
    """The report as JSON, signed where there is an installation; one about this version is also kept there."""
    try:
        signed = as_json(report, signing_key(peppers_of(settings)))
    except SettingsInvalid:
        warn("There is no installation here whose key could sign the report, so it is not signed and not kept.")
        return as_json(report, None)
    if is_own:
        (settings.data_dir / REPORT_FILE).write_text(signed)
    return signed
