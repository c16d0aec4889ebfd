"""Bytes per token of each channel, for answers whose count does not come."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_estimates"
down_revision = "2026_11_23_people"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """A new table."""
    op.create_table(
        "estimates",
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("prompt_bytes_milli", BIG, nullable=False),
        sa.Column("prompt_tokens_milli", BIG, nullable=False),
        sa.Column("output_bytes_milli", BIG, nullable=False),
        sa.Column("output_tokens_milli", BIG, nullable=False),
        sa.Column("seen", BIG, nullable=False),
        sa.Column("updated_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("channel_id", name="pk_estimates"),
        sa.CheckConstraint("prompt_bytes_milli >= 0 AND prompt_tokens_milli >= 0", name="ck_estimates_prompt"),
        sa.CheckConstraint("output_bytes_milli >= 0 AND output_tokens_milli >= 0", name="ck_estimates_output"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
