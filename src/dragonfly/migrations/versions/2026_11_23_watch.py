"""Budgets and shown proofs that all workers share."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_watch"
down_revision = "2026_11_23_data_requests"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """New tables."""
    for name, since in (("attempt_budgets", "full_at_ns"), ("shown_proofs", "shown_at_ns")):
        op.create_table(
            name,
            sa.Column("digest", sa.LargeBinary, nullable=False),
            sa.Column(since, BIG, nullable=False),
            sa.PrimaryKeyConstraint("digest", name=f"pk_{name}"),
            sa.CheckConstraint("length(digest) = 32", name=f"ck_{name}_digest"),
            sqlite_strict=True,
            sqlite_with_rowid=False,
        )
        op.create_index(f"ix_{name}_{since}", name, [since])
