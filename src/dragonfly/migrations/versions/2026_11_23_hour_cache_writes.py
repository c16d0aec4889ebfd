"""Usage rows tell how many of the cache writes a provider keeps for an hour: they have a price of their own."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_hour_cache_writes"
down_revision = "2026_11_23_foundation"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """A new column; rows from before had none of these tokens."""
    op.add_column("usage", sa.Column("cache_write_1h_tokens", BIG, nullable=False, server_default="0"))
