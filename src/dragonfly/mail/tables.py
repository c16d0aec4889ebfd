"""The outbox, what accounts want to be written about, and addresses that mail no longer goes to."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

mail_outbox = Table(
    "mail_outbox",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id")),
    Column("address", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column(
        "details",
        Text,
        info={
            "purpose": "What fills the template, such as a link that works once",
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
    Column("transport_id", Text),
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
        "purpose": "Send mail exactly once, also when a process dies",
        "category": "account",
        "lifetime": "30 days",
        "since": "created_at_ns",
        "columns": {
            "kind": "Which mail it is",
            "address": "Where it goes",
            "language": "In which language it is written",
            "idempotency_key": "The event that caused it, so that it is sent once",
            "state": "Whether it waits, was sent, or was given up",
            "attempts": "How often it was tried",
            "due_at_ns": "When it is tried next",
            "claim": "Which attempt may send it",
            "claimed_until_ns": "Until when",
            "failure": "Why the last attempt failed, a word from a closed list",
            "transport_id": "The provider's id of the mail, to understand its notices",
            "ended_at_ns": "When it was sent or given up",
        },
    },
)
"""`details` is a JSON object while the mail waits and NULL from the moment it is sent or given up. `claim` names the
attempt that may send it until `claimed_until_ns`."""

mail_preferences = Table(
    "mail_preferences",
    SCHEMA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("welcome", Integer, nullable=False),
    Column("low_balance", Integer, nullable=False),
    Column("announcements", Integer, nullable=False),
    Column("low_balance_nusd", BIG),
    Column("updated_at_ns", BIG, nullable=False),
    CheckConstraint("welcome IN (0, 1)", name="welcome"),
    CheckConstraint("low_balance IN (0, 1)", name="low_balance"),
    CheckConstraint("announcements IN (0, 1)", name="announcements"),
    CheckConstraint("low_balance_nusd >= 0", name="low_balance_nusd"),
    sqlite_strict=True,
    info={
        "purpose": "About what an account wants mail",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "welcome": "Whether it wants the welcome mails",
            "low_balance": "Whether it wants to be told of a low balance",
            "announcements": "Whether it wants announcements",
            "low_balance_nusd": "Below which balance it is told; empty: the installation's default",
            "updated_at_ns": "When this was last changed",
        },
    },
)
"""An account without a row wants everything. Its language stands with its person."""

mail_dead_addresses = Table(
    "mail_dead_addresses",
    SCHEMA,
    Column("digest", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    CheckConstraint("length(digest) = 64", name="digest"),
    CheckConstraint("reason IN ('bounce', 'complaint', 'suppressed')", name="reason"),
    Index("ix_mail_dead_addresses_created_at_ns", "created_at_ns"),
    sqlite_strict=True,
    info={
        "purpose": "Send no mail to addresses that bounced or complained",
        "category": "account",
        "lifetime": "365 days",
        "since": "created_at_ns",
        "basis": "legitimate interest",
        "columns": {
            "digest": "The address under a secret that is not in the database: it tells no address",
            "reason": "Whether mail bounced or was called spam",
        },
    },
)

mail_notices = Table(
    "mail_notices",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("transport_id", Text),
    Column("created_at_ns", BIG, nullable=False),
    CheckConstraint("kind IN ('bounce', 'complaint', 'suppressed')", name="kind"),
    Index("ix_mail_notices_created_at_ns", "created_at_ns"),
    sqlite_strict=True,
    info={
        "purpose": "Understand each notice of the mail provider once",
        "category": "account",
        "lifetime": "30 days",
        "since": "created_at_ns",
        "columns": {
            "id": "The provider's id of the notice",
            "kind": "What it says",
            "transport_id": "Which mail it is about",
        },
    },
)
