"""When retention last ran."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_privacy_runs"
down_revision = "2026_11_23_estimates"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """A new table."""
    op.create_table(
        "privacy_runs",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("ran_at_ns", BIG, nullable=False),
        sa.Column("rows_deleted", sa.Integer, nullable=False),
        sa.Column("usage_before_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("kind", name="pk_privacy_runs"),
        sa.CheckConstraint("kind IN ('retention')", name="ck_privacy_runs_kind"),
        sqlite_strict=True,
    )
