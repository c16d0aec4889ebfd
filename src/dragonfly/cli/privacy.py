"""`dragonfly privacy`: what is kept, and the proofs that nothing else is."""

import os
from pathlib import Path
from typing import Annotated

import typer

from dragonfly.app.setup import peppers_of
from dragonfly.cli.failures import REFUSED
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, show_line, warn
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import AccountId
from dragonfly.infra.database import read, write
from dragonfly.privacy.audit.outside import OutsidePlan, audit_from_outside
from dragonfly.privacy.audit.report import REPORT_FILE, Report, as_json, as_text, signed_report
from dragonfly.privacy.audit.run import Plan, audit
from dragonfly.privacy.certificates import signed_certificate
from dragonfly.privacy.datamap import data_map
from dragonfly.privacy.erasure import erase_account, erased_tables
from dragonfly.privacy.export import Export
from dragonfly.privacy.retention import erase_traces
from dragonfly.privacy.signing import public_key_of, signing_key
from dragonfly.settings import Settings, SettingsInvalid, load_settings

privacy_commands = typer.Typer(no_args_is_help=True, help="What is kept, and the proof that nothing else is.")

Key = Annotated[str, typer.Option(envvar="AUDIT_KEY", help="For --url: a key with credit")]
Look = Annotated[
    list[Path] | None, typer.Option("--look", help="For --url: also search this folder; repeat for more")
]

DatabaseUrl = Annotated[
    str, typer.Option(envvar="AUDIT_DATABASE_URL", help="For --url: also search this database and its files")
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
    database_url: DatabaseUrl = "",
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
        report = audit_from_outside(OutsidePlan(url, key, model, tuple(look or ()), database_url))
    else:
        report = audit(Plan(is_reduced=reduced, database_url=postgresql))
    text = _kept(report, load_settings(os.environ, config), is_own=not url)
    show_line(text if as_json_too else as_text(report))
    if not report.is_clean:
        raise typer.Exit(REFUSED)


@privacy_commands.command("verify")
def privacy_verify(
    file: Annotated[Path, typer.Argument(help="A report of `dragonfly privacy audit --json`", dir_okay=False)],
    public_key: Annotated[str, typer.Option(help="Of somebody else's installation; default: this one's")] = "",
    config: ConfigFile = None,
) -> None:
    """Check that a report was signed by an installation and has not been changed.

    An installation shows its last report at /privacy/audit and its public key, as JSON, at /privacy/status. Nothing
    else is needed, least of all a secret.

    \b
    Examples:
      dragonfly privacy verify audit.json
      dragonfly privacy verify audit.json --public-key 5f0c…
    """
    whose = public_key or public_key_of(signing_key(peppers_of(load_settings(os.environ, config))))
    found = signed_report(file.read_text(), whose)
    if found is None:
        owner = "the owner of that key" if public_key else "this installation"
        show_line(f"This report was not signed by {owner}, or it was changed.")
        raise typer.Exit(REFUSED)
    show_line(f"The signature is right. {'Nothing was kept.' if found['clean'] else 'The audit was NOT CLEAN.'}")


@privacy_commands.command("export")
def privacy_export(
    account: Annotated[str, typer.Argument(help="An account's id")],
    file: Annotated[Path, typer.Argument(help="The ZIP to write; must not exist", dir_okay=False)],
    config: ConfigFile = None,
) -> None:
    """Write everything that is kept about an account into a ZIP of JSON and CSV.

    Made from the inventory, without hashes and digests; no cell is a formula. Give it to nobody but the account's
    owner, who proved to be signed in.

    \b
    Example:
      dragonfly privacy export acc-019a… alice.zip
    """
    with opened(config) as (_, engine), read(engine) as connection:
        export = Export(connection, AccountId(account), now_ns=SystemClock().now_ns())
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as failure:
            raise typer.BadParameter(f"cannot be written ({failure.strerror})", param_hint="FILE") from None
        with os.fdopen(descriptor, "wb") as target:
            target.writelines(export.pieces())
    show_line(f"{sum(export.rows.values())} rows of {len(export.rows)} tables are in {file}.")


@privacy_commands.command("erase")
def privacy_erase(
    account: Annotated[str, typer.Argument(help="An account's id")],
    yes: Annotated[bool, typer.Option("--yes", help="Really do it")] = False,
    give_up_balance: Annotated[bool, typer.Option(help="The owner gives up what is left")] = False,
    config: ConfigFile = None,
) -> None:
    """Erase an account for good and print a signed certificate of what is gone, what stays, why and until when.

    Keys and sessions are refused within a second. Refused while a dispute is open, requests are running, or a balance
    is neither paid back nor given up. Nothing can bring the account back.

    \b
    Example:
      dragonfly privacy erase acc-019a… --yes > certificate.json
    """
    if not yes:
        raise typer.BadParameter("add --yes when the owner's request has been reviewed", param_hint="--yes")
    now_ns = SystemClock().now_ns()
    with opened(config) as (settings, engine):
        with write(engine) as connection:
            certificate = erase_account(
                connection, AccountId(account), now_ns=now_ns, gives_up_balance=give_up_balance
            )
        erase_traces(engine, erased_tables())
        key = signing_key(peppers_of(settings))
    show_line(signed_certificate(certificate, key))


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
