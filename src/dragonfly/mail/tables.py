"""The outbox: one row per mail, from the transaction that causes it until 30 days after it was queued."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

OUTBOX_LIFETIME = "30 days after it was queued"

mail_outbox = Table(
    "mail_outbox",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id")),
    Column("address", Text, nullable=False, info={"purpose": "where the mail goes", "category": "account"}),
    Column("language", Text, nullable=False),
    Column(
        "details",
        Text,
        info={
            "purpose": "what fills the template, such as a link that works once",
            "category": "account",
            "lifetime": "until the mail is sent or given up",
        },
    ),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at_ns", BIG, nullable=False),
    Column("claim", Text),
    Column("claimed_until_ns", BIG),
    Column("failure", Text),
    Column("transport_id", Text, info={"purpose": "the provider's id of the mail, to understand its notices"}),
    Column("created_at_ns", BIG, nullable=False),
    Column("ended_at_ns", BIG),
    CheckConstraint("state IN ('queued', 'sent', 'dead', 'withheld')", name="state"),
    CheckConstraint("(state = 'queued') = (ended_at_ns IS NULL)", name="ended"),
    CheckConstraint("state = 'queued' OR details IS NULL", name="scrubbed"),
    CheckConstraint("(claim IS NULL) = (claimed_until_ns IS NULL)", name="claim"),
    CheckConstraint("attempts >= 0", name="attempts"),
    Index("ix_mail_outbox_state_due_at_ns", "state", "due_at_ns"),
    Index("ix_mail_outbox_created_at_ns", "created_at_ns"),
    Index("ix_mail_outbox_account_id", "account_id"),
    Index("ix_mail_outbox_transport_id", "transport_id"),
    sqlite_strict=True,
    info={
        "purpose": "send mail exactly once, also when a process dies",
        "category": "account",
        "lifetime": OUTBOX_LIFETIME,
    },
)
"""`details` is a JSON object while the mail waits and NULL from the moment it is sent or given up. `claim` names the
attempt that may send it until `claimed_until_ns`."""
