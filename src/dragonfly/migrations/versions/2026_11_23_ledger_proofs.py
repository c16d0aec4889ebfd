"""What the nightly proofs of the books found, and the totals of closed months."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_ledger_proofs"
down_revision = "2026_11_23_notices"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Two tables; days that were closed before there were months are carried over as the month 0."""
    op.create_table(
        "ledger_proofs",
        sa.Column("day", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("started_at_ns", BIG, nullable=False),
        sa.Column("ended_at_ns", BIG),
        sa.Column("findings", sa.Integer, nullable=False),
        sa.Column("broken", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("day", name="pk_ledger_proofs"),
        sa.CheckConstraint("findings >= 0", name="ck_ledger_proofs_findings"),
        sqlite_strict=True,
    )
    op.create_table(
        "usage_months",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("month", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("requests", BIG, nullable=False),
        sa.Column("cost_nusd", BIG, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "month", name="pk_usage_months"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO usage_months (account_id, month, requests, cost_nusd)"
        " SELECT account_id, 0, sum(requests), sum(cost_nusd) FROM usage_days WHERE day = 0 GROUP BY account_id"
    )
