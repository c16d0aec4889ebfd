"""Anonymous statistics of closed days."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_statistics"
down_revision = "2026_11_23_payments"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """New tables."""
    op.create_table(
        "statistics",
        sa.Column("day", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("requests", BIG, nullable=False),
        sa.Column("prompt_tokens", BIG),
        sa.Column("completion_tokens", BIG),
        sa.Column("failures", BIG),
        sa.Column("ttft_p50_ms", sa.Integer),
        sa.Column("ttft_p95_ms", sa.Integer),
        sa.PrimaryKeyConstraint("day", "model", "provider", name="pk_statistics"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "statistics_days",
        sa.Column("day", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("counted_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("day", name="pk_statistics_days"),
        sqlite_strict=True,
    )
