"""Limits of spending that accounts set for themselves, beside those of the operator."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_own_limits"
down_revision = "2026_11_23_sign_up_times"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """New columns without values."""
    for name in ("own_spend_daily_nusd", "own_spend_weekly_nusd", "own_spend_monthly_nusd"):
        op.add_column("account_limits", sa.Column(name, BIG))
