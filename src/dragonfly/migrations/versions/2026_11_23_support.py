"""Tickets of support and what was written in them."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_support"
down_revision = "2026_11_23_lots"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """New tables."""
    texts = ("address", "language", "kind", "state")
    op.create_table(
        "support_tickets",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        sa.Column("request_state", sa.Text),
        sa.Column("request_ids", sa.Text, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("updated_at_ns", BIG, nullable=False),
        sa.Column("closed_at_ns", BIG),
        sa.PrimaryKeyConstraint("id", name="pk_support_tickets"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_support_tickets_account_id"),
        sa.CheckConstraint(
            "kind IN ('question', 'payment', 'data_export', 'deletion', 'abuse')", name="ck_support_tickets_kind"
        ),
        sa.CheckConstraint("state IN ('open', 'answered', 'closed')", name="ck_support_tickets_state"),
        sa.CheckConstraint("(state = 'closed') = (closed_at_ns IS NOT NULL)", name="ck_support_tickets_closed"),
        sa.CheckConstraint(
            "(kind IN ('data_export', 'deletion')) = (request_state IS NOT NULL)",
            name="ck_support_tickets_request_state",
        ),
        sqlite_strict=True,
    )
    op.create_index("ix_support_tickets_account_id_id", "support_tickets", ["account_id", "id"])
    op.create_index("ix_support_tickets_state_id", "support_tickets", ["state", "id"])
    op.create_index("ix_support_tickets_address_created_at_ns", "support_tickets", ["address", "created_at_ns"])
    op.create_index("ix_support_tickets_closed_at_ns", "support_tickets", ["closed_at_ns"])
    op.create_table(
        "support_messages",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("ticket_id", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_support_messages"),
        sa.ForeignKeyConstraint(
            ["ticket_id"], ["support_tickets.id"], name="fk_support_messages_ticket_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("author IN ('customer', 'operator')", name="ck_support_messages_author"),
        sqlite_strict=True,
    )
    op.create_index("ix_support_messages_ticket_id_id", "support_messages", ["ticket_id", "id"])
