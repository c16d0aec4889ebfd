"""When the work of privacy was last done, for /privacy/status and for the proof of the books."""

from sqlalchemy import CheckConstraint, Column, Integer, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

privacy_runs = Table(
    "privacy_runs",
    SCHEMA,
    Column("kind", Text, primary_key=True),
    Column("ran_at_ns", BIG, nullable=False),
    Column("rows_deleted", Integer, nullable=False),
    Column("usage_before_ns", BIG, nullable=False),
    CheckConstraint("kind IN ('retention')", name="kind"),
    sqlite_strict=True,
    info={
        "purpose": "When retention last ran and how far it went",
        "category": "operation",
        "lifetime": "installation",
        "columns": {
            "kind": "Which work",
            "ran_at_ns": "When it was last done",
            "rows_deleted": "How many rows that deleted",
            "usage_before_ns": "Usage rows before this are gone",
        },
    },
)
