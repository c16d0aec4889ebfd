"""Tickets and what was written in them. No text of a request or an answer: a ticket names request ids instead."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

support_tickets = Table(
    "support_tickets",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id")),
    Column("address", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("request_state", Text),
    Column("request_ids", Text, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    Column("updated_at_ns", BIG, nullable=False),
    Column("closed_at_ns", BIG),
    CheckConstraint("kind IN ('question', 'payment', 'data_export', 'deletion', 'abuse')", name="kind"),
    CheckConstraint("state IN ('open', 'answered', 'closed')", name="state"),
    CheckConstraint("(state = 'closed') = (closed_at_ns IS NOT NULL)", name="closed"),
    CheckConstraint("(kind IN ('data_export', 'deletion')) = (request_state IS NOT NULL)", name="request_state"),
    Index("ix_support_tickets_account_id_id", "account_id", "id"),
    Index("ix_support_tickets_state_id", "state", "id"),
    Index("ix_support_tickets_address_created_at_ns", "address", "created_at_ns"),
    Index("ix_support_tickets_closed_at_ns", "closed_at_ns"),
    sqlite_strict=True,
    info={
        "purpose": "Answer what people ask, and review requests about their data",
        "category": "account",
        "lifetime": "180 days",
        "since": "closed_at_ns",
        "columns": {
            "address": "Where answers go",
            "language": "In which language",
            "kind": "What it is about",
            "state": "Whose turn it is",
            "request_state": "How far a request about data is",
            "request_ids": "Which requests it is about, instead of what was said in them",
            "updated_at_ns": "When somebody last wrote or decided",
            "closed_at_ns": "When it was closed",
        },
    },
)
"""`account_id` is NULL for people without an account; `request_ids` a JSON list."""

support_messages = Table(
    "support_messages",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("ticket_id", Text, ForeignKey("support_tickets.id", ondelete="CASCADE"), nullable=False),
    Column("author", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    CheckConstraint("author IN ('customer', 'operator')", name="author"),
    Index("ix_support_messages_ticket_id_id", "ticket_id", "id"),
    sqlite_strict=True,
    info={
        "purpose": "What was written in a ticket",
        "category": "account",
        "lifetime": "with its ticket",
        "columns": {
            "ticket_id": "Which ticket",
            "author": "Whether the customer or an operator wrote it",
            "note": "The words, without what looks like a key or a card number",
        },
    },
)
