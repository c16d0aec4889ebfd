"""The nightly proof of the books: who makes it, and what it found. One a night, however many processes serve."""

import hashlib
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from dragonfly.admission.tables import ledger_proofs
from dragonfly.admission.verify import Report
from dragonfly.core.ids import IdSource
from dragonfly.infra.database import insert_missing
from dragonfly.mail.alerts import Operator, queue_alert
from dragonfly.usage.queries import NS_PER_DAY

NS_PER_HOUR = 3_600 * 10**9
PROOF_HOUR = 3
"""UTC; retention has gone by then, and few people work."""
GIVEN_UP_NS = 4 * NS_PER_HOUR
"""A proof that has not ended by then died with its process."""
COMPARED_DAYS = 89
"""Usage rows live 90 days; groups of the last day of their life may have lost some already."""
PROOFS_PAGE_MAX = 400


class Proof(NamedTuple):
    """One night's proof. `broken` names the checks that found something."""

    day: int
    started_at_ns: int
    ended_at_ns: int | None
    findings: int
    broken: tuple[str, ...]


def compared_since_ns(now_ns: int, usage_before_ns: int) -> int:
    """From when on groups have all their usage rows; `usage_before_ns` is how far retention went."""
    return max(now_ns - COMPARED_DAYS * NS_PER_DAY, usage_before_ns + NS_PER_DAY)


def claim_proof(connection: Connection, *, now_ns: int) -> bool:
    """Whether the caller shall make today's proof."""
    day = now_ns // NS_PER_DAY
    if now_ns % NS_PER_DAY < PROOF_HOUR * NS_PER_HOUR:
        return False
    row = {"day": day, "started_at_ns": now_ns, "ended_at_ns": None, "findings": 0, "broken": ""}
    if insert_missing(connection, ledger_proofs, row):
        return True
    is_given_up = ledger_proofs.c.ended_at_ns.is_(None) & (ledger_proofs.c.started_at_ns < now_ns - GIVEN_UP_NS)
    again = update(ledger_proofs).where(ledger_proofs.c.day == day, is_given_up)
    return connection.execute(again.values(started_at_ns=now_ns)).rowcount == 1


def note_proof(connection: Connection, report: Report, *, day: int, now_ns: int) -> None:
    """Keeps what the proof of that day found."""
    ended = update(ledger_proofs).where(ledger_proofs.c.day == day)
    values = {"ended_at_ns": now_ns, "findings": len(report.findings), "broken": ",".join(report.broken)}
    connection.execute(ended.values(values))


def tell_operator(connection: Connection, ids: IdSource, report: Report, address: str, *, now_ns: int) -> None:
    """A mail about what does not hold. The same findings night after night are one mail; one more is another.

    Without ids and amounts: providers of mail keep bodies.
    """
    subjects = sorted({f"{finding.check} {finding.subject}" for finding in report.findings})
    detail = (
        f"{len(report.findings)} things in the books do not hold: {', '.join(report.broken)}.\n"
        "Run `dragonfly ledger verify` to see which. The gateway goes on serving."
    )
    key = f"ledger/{hashlib.sha256(chr(10).join(subjects).encode()).hexdigest()}"
    queue_alert(connection, ids, Operator(address), event="ledger_broken", detail=detail, key=key, now_ns=now_ns)


def latest_proofs(connection: Connection, *, limit: int = 30) -> list[Proof]:
    """The latest nights, newest first."""
    wanted = select(*(ledger_proofs.c[name] for name in Proof._fields)).order_by(ledger_proofs.c.day.desc())
    rows = connection.execute(wanted.limit(min(limit, PROOFS_PAGE_MAX)))
    return [
        Proof(row.day, row.started_at_ns, row.ended_at_ns, row.findings, tuple(filter(None, row.broken.split(","))))
        for row in rows
    ]
