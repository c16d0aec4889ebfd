"""Requests about data: who asked for what, what was decided, and the proof that it was done. Never any content."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, text

from dragonfly.infra.database import BIG, SCHEMA

_OPEN = "ended_at_ns IS NULL"

data_requests = Table(
    "data_requests",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id")),
    Column("kind", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("ticket_id", Text),
    Column("state", Text, nullable=False),
    Column("gives_up_balance", Integer, nullable=False),
    Column("reason", Text),
    Column("note", Text),
    Column("waits_for", Text),
    Column("reviewed_by", Text),
    Column("frozen_before_ns", BIG),
    Column("created_at_ns", BIG, nullable=False),
    Column("due_at_ns", BIG, nullable=False),
    Column("reviewed_at_ns", BIG),
    Column("until_ns", BIG),
    Column("alerted_at_ns", BIG),
    Column("ended_at_ns", BIG),
    Column("wiped_at_ns", BIG),
    Column("certificate", Text),
    CheckConstraint("kind IN ('export', 'deletion')", name="kind"),
    CheckConstraint("origin IN ('dashboard', 'ticket', 'operator')", name="origin"),
    CheckConstraint("state IN ('requested', 'approved', 'done', 'refused', 'cancelled', 'expired')", name="state"),
    CheckConstraint("(state IN ('requested', 'approved')) = (ended_at_ns IS NULL)", name="ended"),
    CheckConstraint("state <> 'approved' OR until_ns IS NOT NULL", name="until"),
    CheckConstraint("state <> 'approved' OR account_id IS NOT NULL", name="account"),
    CheckConstraint("gives_up_balance IN (0, 1)", name="gives_up_balance"),
    CheckConstraint("wiped_at_ns IS NULL OR state = 'done'", name="wiped"),
    Index(
        "ix_data_requests_open",
        "account_id",
        "kind",
        unique=True,
        sqlite_where=text(_OPEN),
        postgresql_where=text(_OPEN),
    ),
    Index("ix_data_requests_account_id", "account_id", "id"),
    Index("ix_data_requests_state", "state", "until_ns"),
    Index("ix_data_requests_ticket_id", "ticket_id"),
    Index("ix_data_requests_ended_at_ns", "ended_at_ns"),
    sqlite_strict=True,
    info={
        "purpose": "Requests for a copy of one's data or for deletion: review, due date, outcome",
        "category": "account",
        "lifetime": "1095 days after it ended",
        "since": "ended_at_ns",
        "basis": "legal obligation",
        "stays": "proves that the request was answered in time; it names a random id that leads to nobody",
        "columns": {
            "account_id": "Whose data; a random id that erasure leaves without a person",
            "kind": "A copy, or deletion",
            "origin": "Where it was asked for",
            "ticket_id": "The ticket of support that asked for it",
            "state": "How far it is",
            "gives_up_balance": "Whether the person gives up what is left of the balance",
            "reason": "Why it was refused, in the operator's words; emptied by erasure",
            "note": "What operators note for each other; emptied by erasure",
            "waits_for": "What must be settled first, a word from a closed list",
            "reviewed_by": "Which operator decided; self_service when none had to",
            "frozen_before_ns": "Since when an operator had stopped the account before, so that a cancellation leaves"
            " it so",
            "due_at_ns": "When it must be answered",
            "reviewed_at_ns": "When it was decided",
            "until_ns": "Until when a copy can be fetched, or a deletion be cancelled",
            "alerted_at_ns": "When operators were last told that it is late",
            "ended_at_ns": "When it ended",
            "wiped_at_ns": "When the bytes of what was deleted were overwritten",
            "certificate": "What was erased and what stays, why and until when: names of tables and counts",
        },
    },
)
"""One open request of each kind for an account. `account_id` is NULL while a stranger's ticket is not yet known to be
anybody's; an operator names the account when they approve."""
