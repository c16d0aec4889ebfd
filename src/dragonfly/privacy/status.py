"""The live facts behind /privacy/status. None of them is about anybody."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select

from dragonfly.infra.database import read
from dragonfly.infra.lockdown import Lockdown
from dragonfly.privacy.audit.report import REPORT_FILE, code_digest, signed_report
from dragonfly.privacy.retention import oldest_usage_ns
from dragonfly.privacy.tables import privacy_runs

REPORT_BYTES_MAX = 1024 * 1024


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


def read_status(engine: Engine, data_dir: Path, report_key: bytes, lockdown: Lockdown, *, now_ns: int) -> Status:
    """Looks everything up; a report whose signature is not this installation's counts as none."""
    audit = _last_audit(data_dir, report_key)
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


def _last_audit(data_dir: Path, report_key: bytes) -> dict[str, object]:
    try:
        with (data_dir / REPORT_FILE).open("rb") as file:
            text = file.read(REPORT_BYTES_MAX).decode()
    except (OSError, UnicodeDecodeError):
        return {}
    return dict(signed_report(text, report_key) or {})
