"""The live facts behind /privacy/status. None of them is about anybody."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select

from dragonfly.infra.database import read
from dragonfly.infra.lockdown import Lockdown
from dragonfly.privacy.audit.report import code_digest, read_report, signed_report
from dragonfly.privacy.retention import oldest_usage_ns
from dragonfly.privacy.tables import privacy_runs


@dataclass(frozen=True, slots=True)
class Status:
    """What was last seen and done; None: never."""

    oldest_usage_ns: int | None
    retention_ran_ns: int | None
    audit_at_ns: int | None
    audit_clean: bool | None
    audit_is_of_this_code: bool | None
    """The audit was of exactly the code that serves."""
    missing_walls: tuple[str, ...]
    read_at_ns: int


def read_status(engine: Engine, data_dir: Path, public_key: str, lockdown: Lockdown, *, now_ns: int) -> Status:
    """Looks everything up; a report whose signature is not this installation's counts as none."""
    audit = signed_report(read_report(data_dir), public_key) or {}
    at_ns = audit.get("at_ns")
    with read(engine) as connection:
        ran_ns = connection.execute(select(privacy_runs.c.ran_at_ns)).scalar()
    return Status(
        oldest_usage_ns=oldest_usage_ns(engine),
        retention_ran_ns=ran_ns,
        audit_at_ns=at_ns if isinstance(at_ns, int) else None,
        audit_clean=audit.get("clean") is True if audit else None,
        audit_is_of_this_code=audit.get("code_digest") == code_digest() if audit else None,
        missing_walls=lockdown.missing,
        read_at_ns=now_ns,
    )
