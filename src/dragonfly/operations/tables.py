"""The log of what operators did, and announcements."""

from sqlalchemy import CheckConstraint, Column, Index, Integer, LargeBinary, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

audit_log = Table(
    "audit_log",
    SCHEMA,
    Column("number", BIG, primary_key=True, autoincrement=False),
    Column("actor_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_ns", BIG, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    CheckConstraint("number > 0", name="number"),
    CheckConstraint("length(digest) = 32", name="digest"),
    Index("ix_audit_log_target", "target", "number"),
    info={
        "purpose": "What operators did, and why",
        "category": "account",
        "lifetime": "installation",
        "basis": "legitimate interest",
        "columns": {
            "number": "The place in the log",
            "actor_id": "Which operator did it",
            "action": "What was done",
            "target": "To which account, key or channel, by its id",
            "reason": "Why, in the operator's words",
            "at_ns": "When",
            "digest": "Chains the row to the one before",
        },
    },
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""One row for each action of an operator, never changed. `digest` is SHA-256 over the row and the digest before it,
so that a row that is changed or taken out later breaks the chain. Targets are ids, reasons the operator's words."""

announcements = Table(
    "announcements",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("severity", Text, nullable=False),
    Column("text_en", Text, nullable=False),
    Column("text_zh", Text, nullable=False),
    Column("starts_at_ns", BIG, nullable=False),
    Column("ends_at_ns", BIG),
    Column("created_at_ns", BIG, nullable=False),
    Column("is_withdrawn", Integer, nullable=False),
    CheckConstraint("is_withdrawn IN (0, 1)", name="is_withdrawn"),
    info={
        "purpose": "What operators tell everybody",
        "category": "operation",
        "lifetime": "installation",
        "columns": {
            "id": "Names the announcement",
            "severity": "How loud it is",
            "text_en": "What it says in English",
            "text_zh": "What it says in Chinese",
            "starts_at_ns": "From when it is shown",
            "ends_at_ns": "Until when",
            "created_at_ns": "When it was made",
            "is_withdrawn": "Whether it was taken back",
        },
    },
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""Public words of the operator in both languages."""
