"""`dragonfly ledger`: the proof that the books are right."""

import typer

from dragonfly.admission.proofs import Proof, compared_since_ns, latest_proofs
from dragonfly.admission.verify import Finding, Report, verify
from dragonfly.cli.failures import REFUSED
from dragonfly.cli.opening import ConfigFile, opened
from dragonfly.cli.output import AsJson, JsonValue, show_json, show_line, show_table
from dragonfly.core.clock import SystemClock
from dragonfly.core.money import usd_text
from dragonfly.infra.database import read
from dragonfly.privacy.retention import usage_before_ns
from dragonfly.usage.queries import date_text

ledger_commands = typer.Typer(no_args_is_help=True, help="The ledger: prove that it is right.")


@ledger_commands.command("verify")
def ledger_verify(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Prove the books.

    Every group of entries sums to zero, wallets and leases equal the ledger, every charge has its request. Reads
    whole tables in one snapshot; the gateway may go on running. Exit code 1 when anything does not hold.

    \b
    Example:
      dragonfly ledger verify --json
    """
    now_ns = SystemClock().now_ns()
    with opened(config) as (_, engine), read(engine) as connection:
        since_ns = compared_since_ns(now_ns, usage_before_ns(connection))
        report = verify(connection, usage_since_ns=since_ns)
    if as_json:
        show_json(_report_fields(report))
    else:
        _show_report(report)
    if not report.is_clean:
        raise typer.Exit(REFUSED)


@ledger_commands.command("proofs")
def ledger_proofs(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show what the nightly proofs of the books found.

    A serving gateway proves the books every night after 03:00 UTC. Exit code 1 when the latest proof found something.

    \b
    Example:
      dragonfly ledger proofs
    """
    with opened(config) as (_, engine), read(engine) as connection:
        proofs = latest_proofs(connection)
    if as_json:
        show_json([_proof_fields(one) for one in proofs])
    else:
        show_table(
            ("NIGHT", "STATE", "FINDINGS", "CHECKS"),
            [(date_text(one.day), _state(one), one.findings, ", ".join(one.broken)) for one in proofs],
        )
    if proofs and proofs[0].findings:
        raise typer.Exit(REFUSED)


def _proof_fields(one: Proof) -> dict[str, JsonValue]:
    return {"night": date_text(one.day), "state": _state(one), "findings": one.findings, "broken": list(one.broken)}


def _state(one: Proof) -> str:
    if one.ended_at_ns is None:
        return "running"
    return "broken" if one.findings else "clean"


def _show_report(report: Report) -> None:
    verdict = "The books are right" if report.is_clean else f"{len(report.findings)} things do not hold"
    show_line(
        f"{verdict}: {len(report.checks)} checks over {report.groups} groups, {report.entries} entries,"
        f" {report.wallets} wallets, {report.leases} leases, {report.usage_rows} usage rows."
        f" Balances: {usd_text(report.balances_nusd)} USD."
    )
    if report.findings:
        show_table(
            ("CHECK", "SUBJECT", "EXPECTED USD", "FOUND USD"),
            [
                (one.check, one.subject, usd_text(one.expected_nusd), usd_text(one.found_nusd))
                for one in report.findings
            ],
        )


def _report_fields(report: Report) -> dict[str, JsonValue]:
    return {
        "clean": report.is_clean,
        "checks": list(report.checks),
        "groups": report.groups,
        "entries": report.entries,
        "wallets": report.wallets,
        "leases": report.leases,
        "usage_rows": report.usage_rows,
        "balances_usd": usd_text(report.balances_nusd),
        "findings": [_finding_fields(one) for one in report.findings],
    }


def _finding_fields(finding: Finding) -> dict[str, JsonValue]:
    return {
        "check": finding.check,
        "subject": finding.subject,
        "expected_usd": usd_text(finding.expected_nusd),
        "found_usd": usd_text(finding.found_nusd),
    }
