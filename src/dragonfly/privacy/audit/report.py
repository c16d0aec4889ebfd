"""What an audit found: as text, as JSON, and signed."""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import dragonfly
from dragonfly.privacy.signing import is_signed, public_key_of, sign

FORMAT = 1
REPORT_FILE = "privacy-audit.json"
"""In the data directory: the last audit of this installation's version."""
REPORT_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one audit. Nothing in it holds a canary."""

    version: str
    code_digest: str
    """SHA-256 over every file of the package: which code was audited."""
    at_ns: int
    took_s: float
    database: str
    """"sqlite", "postgresql", or "unknown" from outside."""
    is_reduced: bool
    cases: int
    shapes: int
    endings: int
    statuses: Mapping[str, int]
    places: int
    bytes_seen: int
    areas: Mapping[str, tuple[int, int]]
    """What was searched, by name: (pieces, bytes)."""
    hits: tuple[str, ...]
    hits_beyond: int
    decoys: int
    decoys_missed: tuple[str, ...]
    not_seen: tuple[str, ...]
    """Places that could not be read; the audit says nothing about them."""
    lockdown: str
    format: int = field(default=FORMAT)

    @property
    def is_clean(self) -> bool:
        """Nothing was found, and the search finds what is there."""
        return not (self.hits or self.hits_beyond or self.decoys_missed) and self.cases > 0


@functools.cache
def code_digest() -> str:
    """SHA-256 over names and contents of the package's files, as they were when it was first asked for."""
    digest = hashlib.sha256()
    root = Path(dragonfly.__file__).parent
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def as_text(report: Report) -> str:
    """For people."""
    verdict = "Nothing was kept" if report.is_clean else "NOT CLEAN"
    at = datetime.fromtimestamp(report.at_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
    extent = "reduced matrix" if report.is_reduced else "whole matrix"
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(report.statuses.items()))
    lines = [
        f"{verdict}. Dragonfly {report.version}, {report.database}, {at}, {report.took_s:.0f} s, {extent}.",
        f"Asked: {report.cases} cases of {report.shapes} shapes with {report.endings} endings. Answers: {statuses}.",
        f"Searched: {report.places} files and other places, {report.bytes_seen / 1e6:.1f} MB.",
        f"Decoys found: {report.decoys - len(report.decoys_missed)} of {report.decoys}.",
        f"Lock-down: {report.lockdown}.",
        f"Code: sha256 {report.code_digest}.",
    ]
    lines += [f"  {name}: {size / 1e3:.0f} kB in {pieces}" for name, (pieces, size) in sorted(report.areas.items())]
    lines += [f"FOUND: {hit}" for hit in report.hits]
    lines += [f"FOUND: {report.hits_beyond} more"] if report.hits_beyond else []
    lines += [f"MISSED DECOY: {name}" for name in report.decoys_missed]
    lines += [f"Not seen: {place}" for place in report.not_seen]
    return "\n".join(lines)


def as_json(report: Report, key: bytes | None) -> str:
    """For programs: the report, and with `key` its signature and the public key that it can be checked with."""
    fields = {**asdict(report), "clean": report.is_clean}
    signature, public_key = (sign(fields, key), public_key_of(key)) if key else ("", "")
    signed = {"report": fields, "signature": signature, "public_key": public_key}
    return json.dumps(signed, indent=2, sort_keys=True)


def signed_report(text: str, public_key: str) -> Mapping[str, object] | None:
    """The fields of a report that the owner of `public_key` signed; None when it was not, or is damaged."""
    try:
        signed = json.loads(text)
        fields, signature = signed["report"], signed["signature"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(fields, dict) or not isinstance(signature, str):
        return None
    return fields if is_signed(fields, signature, public_key) else None


def read_report(data_dir: Path) -> str:
    """The last audit's report as it was kept; "" when there is none."""
    try:
        with (data_dir / REPORT_FILE).open("rb") as file:
            return file.read(REPORT_BYTES_MAX).decode()
    except (OSError, UnicodeDecodeError):
        return ""
