"""Requests for a copy of one's data or for deletion."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_data_requests"
down_revision = "2026_11_23_closed_days"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """A new table."""
    moments = ("frozen_before_ns", "reviewed_at_ns", "until_ns", "alerted_at_ns", "ended_at_ns", "wiped_at_ns")
    op.create_table(
        "data_requests",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("kind", "origin", "state")),
        *(
            sa.Column(name, sa.Text)
            for name in ("ticket_id", "reason", "note", "waits_for", "reviewed_by", "certificate")
        ),
        sa.Column("gives_up_balance", sa.Integer, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("due_at_ns", BIG, nullable=False),
        *(sa.Column(name, BIG) for name in moments),
        sa.PrimaryKeyConstraint("id", name="pk_data_requests"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_data_requests_account_id"),
        sa.CheckConstraint("kind IN ('export', 'deletion')", name="ck_data_requests_kind"),
        sa.CheckConstraint("origin IN ('dashboard', 'ticket', 'operator')", name="ck_data_requests_origin"),
        sa.CheckConstraint(
            "state IN ('requested', 'approved', 'done', 'refused', 'cancelled', 'expired')",
            name="ck_data_requests_state",
        ),
        sa.CheckConstraint(
            "(state IN ('requested', 'approved')) = (ended_at_ns IS NULL)", name="ck_data_requests_ended"
        ),
        sa.CheckConstraint("state <> 'approved' OR until_ns IS NOT NULL", name="ck_data_requests_until"),
        sa.CheckConstraint("state <> 'approved' OR account_id IS NOT NULL", name="ck_data_requests_account"),
        sa.CheckConstraint("gives_up_balance IN (0, 1)", name="ck_data_requests_gives_up_balance"),
        sa.CheckConstraint("wiped_at_ns IS NULL OR state = 'done'", name="ck_data_requests_wiped"),
        sqlite_strict=True,
    )
    is_open = sa.text("ended_at_ns IS NULL")
    op.create_index(
        "ix_data_requests_open",
        "data_requests",
        ["account_id", "kind"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_index("ix_data_requests_account_id", "data_requests", ["account_id", "id"])
    op.create_index("ix_data_requests_state", "data_requests", ["state", "until_ns"])
    op.create_index("ix_data_requests_ticket_id", "data_requests", ["ticket_id"])
    op.create_index("ix_data_requests_ended_at_ns", "data_requests", ["ended_at_ns"])
