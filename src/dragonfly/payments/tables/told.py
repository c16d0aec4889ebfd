"""What Stripe told, and what was refused before there was something to keep."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, text

from dragonfly.infra.database import BIG, SCHEMA

external_events = Table(
    "external_events",
    SCHEMA,
    Column("source", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("account_id", Text, ForeignKey("accounts.id")),
    Column("tries", Integer, nullable=False),
    Column("due_at_ns", BIG, nullable=False),
    Column("happened_at_ns", BIG, nullable=False),
    Column("received_at_ns", BIG, nullable=False),
    Column("handled_at_ns", BIG),
    CheckConstraint("state IN ('new', 'done', 'refused', 'dead')", name="state"),
    Index(
        "ix_external_events_due",
        "due_at_ns",
        sqlite_where=text("state = 'new'"),
        postgresql_where=text("state = 'new'"),
    ),
    Index("ix_external_events_received_at_ns", "received_at_ns"),
    Index("ix_external_events_account_id", "account_id", "type"),
    sqlite_strict=True,
    info={
        "purpose": "What Stripe told about payments, reduced to the needed fields, so that each is applied once",
        "category": "payment",
        "lifetime": "180 days",
        "since": "received_at_ns",
        "columns": {
            "source": "Who told it",
            "event_id": "Stripe's id of the event",
            "type": "What happened",
            "object_id": "Stripe's id of what it is about",
            "details": "Ids, amount, currency and state of it; no names, addresses or cards",
            "state": "Whether it waits, was applied, refused or given up",
            "reason": "Why it was refused or given up",
            "account_id": "Whose payment it is",
            "tries": "How often it was tried",
            "due_at_ns": "When it is tried next",
            "happened_at_ns": "When it happened",
            "received_at_ns": "When it came",
            "handled_at_ns": "When it was applied, refused or given up",
        },
    },
)

payment_refusals = Table(
    "payment_refusals",
    SCHEMA,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("reason", Text, primary_key=True),
    Column("count", BIG, nullable=False),
    sqlite_strict=True,
    info={
        "purpose": "How many webhooks were refused, per day and reason",
        "category": "operation",
        "lifetime": "installation",
        "columns": {"day": "Which day", "reason": "Why", "count": "How many"},
    },
)
