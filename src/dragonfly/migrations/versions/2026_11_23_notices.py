"""How far each welcome is, and for which balance an account was told that it is low."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_notices"
down_revision = "2026_11_23_support"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """New tables."""
    op.create_table(
        "welcomes",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("started_at_ns", BIG, nullable=False),
        sa.Column("due_at_ns", BIG, nullable=False),
        sa.Column("ended_at_ns", BIG),
        sa.PrimaryKeyConstraint("account_id", name="pk_welcomes"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_welcomes_account_id"),
        sa.CheckConstraint("steps >= 0", name="ck_welcomes_steps"),
        sqlite_strict=True,
    )
    op.create_index("ix_welcomes_due_at_ns", "welcomes", ["due_at_ns"])
    op.create_table(
        "low_balance_notices",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("balance_nusd", BIG, nullable=False),
        sa.Column("credited_nusd", BIG, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_low_balance_notices"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_low_balance_notices_account_id"),
        sqlite_strict=True,
    )
