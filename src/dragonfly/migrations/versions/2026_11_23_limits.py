"""More limits of keys, limits of accounts, pauses, and what several workers share of a limit."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_limits"
down_revision = "2026_11_23_ledger_proofs"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MONEY = ("spend_daily_nusd", "spend_weekly_nusd", "spend_monthly_nusd")


def upgrade() -> None:
    """New columns without values, and new tables."""
    op.add_column("keys", sa.Column("tokens_per_minute", sa.Integer))
    op.add_column("keys", sa.Column("networks", sa.Text))
    for name in (*MONEY, "paused_at_ns", "resumed_at_ns"):
        op.add_column("keys", sa.Column(name, BIG))
    op.create_table(
        "account_limits",
        sa.Column("account_id", sa.Text, nullable=False),
        *(sa.Column(name, BIG) for name in MONEY),
        sa.Column("updated_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_account_limits"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_account_limits_account_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "shared_rates",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("full_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "kind", name="pk_shared_rates"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_shared_rates_key_id"),
        sa.CheckConstraint("kind IN ('requests', 'tokens')", name="ck_shared_rates_kind"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "shared_places",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("worker_id", sa.Text, nullable=False),
        sa.Column("places", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "worker_id", name="pk_shared_places"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_shared_places_key_id"),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name="fk_shared_places_worker_id"),
        sa.CheckConstraint("places >= 0", name="ck_shared_places_places"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_shared_places_worker_id", "shared_places", ["worker_id"])
