"""The outbox of mail."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_mail_outbox"
down_revision = "2026_11_23_hour_cache_writes"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """A new table."""
    op.create_table(
        "mail_outbox",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("details", sa.Text),
        sa.Column("idempotency_key", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at_ns", BIG, nullable=False),
        sa.Column("claim", sa.Text),
        sa.Column("claimed_until_ns", BIG),
        sa.Column("failure", sa.Text),
        sa.Column("transport_id", sa.Text),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("ended_at_ns", BIG),
        sa.PrimaryKeyConstraint("id", name="pk_mail_outbox"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_mail_outbox_account_id"),
        sa.UniqueConstraint("idempotency_key", name="uq_mail_outbox_idempotency_key"),
        sa.CheckConstraint("state IN ('queued', 'sent', 'dead', 'withheld')", name="ck_mail_outbox_state"),
        sa.CheckConstraint("(state = 'queued') = (ended_at_ns IS NULL)", name="ck_mail_outbox_ended"),
        sa.CheckConstraint("state = 'queued' OR details IS NULL", name="ck_mail_outbox_scrubbed"),
        sa.CheckConstraint("(claim IS NULL) = (claimed_until_ns IS NULL)", name="ck_mail_outbox_claim"),
        sa.CheckConstraint("attempts >= 0", name="ck_mail_outbox_attempts"),
        sqlite_strict=True,
    )
    op.create_index("ix_mail_outbox_state_due_at_ns", "mail_outbox", ["state", "due_at_ns"])
    op.create_index("ix_mail_outbox_created_at_ns", "mail_outbox", ["created_at_ns"])
    op.create_index("ix_mail_outbox_account_id", "mail_outbox", ["account_id"])
    op.create_index("ix_mail_outbox_transport_id", "mail_outbox", ["transport_id"])
