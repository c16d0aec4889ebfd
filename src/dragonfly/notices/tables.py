"""How far each welcome is, and for which balance an account was told that it is low."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

welcomes = Table(
    "welcomes",
    SCHEMA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("steps", Integer, nullable=False),
    Column("started_at_ns", BIG, nullable=False),
    Column("due_at_ns", BIG, nullable=False),
    Column("ended_at_ns", BIG),
    CheckConstraint("steps >= 0", name="steps"),
    Index("ix_welcomes_due_at_ns", "due_at_ns"),
    sqlite_strict=True,
    info={
        "purpose": "Send the welcome mails in their order and stop them in time",
        "category": "account",
        "lifetime": "90 days",
        "since": "started_at_ns",
        "columns": {
            "account_id": "Whose welcome",
            "steps": "How many of its mails were queued",
            "started_at_ns": "When the address was proven",
            "due_at_ns": "When the next one is due",
            "ended_at_ns": "When it was over",
        },
    },
)

low_balance_notices = Table(
    "low_balance_notices",
    SCHEMA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("balance_nusd", BIG, nullable=False),
    Column("credited_nusd", BIG, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    sqlite_strict=True,
    info={
        "purpose": "Tell an account of a low balance once per crossing",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "balance_nusd": "The balance when it was last told",
            "credited_nusd": "All credit until then, to see later top-ups",
            "created_at_ns": "When it was last told",
        },
    },
)
