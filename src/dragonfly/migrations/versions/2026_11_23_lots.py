"""Lots of credit, refunds and disputes; each customer's book is divided into paid, promotional and leased credit.

What customers have was given to them, so it becomes one promotional lot each, without an expiry.
"""

import time

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_lots"
down_revision = "2026_11_23_privacy_runs"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
CREDIT_KINDS_ONLY = sa.text("kind NOT IN ('settle', 'lease', 'return', 'draw')")


def upgrade() -> None:
    """Makes the tables, then carries every balance over, in the journal too."""
    _lots()
    _claims("refunds", "state IN ('pending', 'completed', 'cancelled')", "amount_nusd > 0")
    _claims(
        "disputes",
        "state IN ('open', 'won', 'lost')",
        "amount_nusd > 0 AND taken_nusd >= 0 AND taken_nusd <= amount_nusd",
        sa.Column("taken_nusd", BIG, nullable=False),
    )
    op.add_column("leases", sa.Column("extensions", sa.Integer, nullable=False, server_default="0"))
    op.drop_index("ix_entry_groups_account_id_created_at_ns", "entry_groups")
    op.create_index(
        "ix_entry_groups_credit",
        "entry_groups",
        ["account_id", "created_at_ns"],
        sqlite_where=CREDIT_KINDS_ONLY,
        postgresql_where=CREDIT_KINDS_ONLY,
    )
    _carry_over(time.time_ns())


def _lots() -> None:
    op.create_table(
        "lots",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("amount_nusd", BIG, nullable=False),
        sa.Column("remaining_nusd", BIG, nullable=False),
        sa.Column("expires_at_ns", BIG),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lots"),
        sa.ForeignKeyConstraint(["id"], ["entry_groups.id"], name="fk_lots_id"),
        sa.ForeignKeyConstraint(["account_id"], ["wallets.account_id"], name="fk_lots_account_id"),
        sa.CheckConstraint("amount_nusd > 0", name="ck_lots_amount"),
        sa.CheckConstraint("remaining_nusd >= 0 AND remaining_nusd <= amount_nusd", name="ck_lots_remaining"),
        sa.CheckConstraint("source = 'promo' OR (source = 'paid' AND expires_at_ns IS NULL)", name="ck_lots_source"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    is_open = sa.text("remaining_nusd > 0")
    op.create_index("ix_lots_open", "lots", ["account_id"], sqlite_where=is_open, postgresql_where=is_open)
    expires = sa.text("remaining_nusd > 0 AND expires_at_ns IS NOT NULL")
    op.create_index("ix_lots_expiry", "lots", ["expires_at_ns"], sqlite_where=expires, postgresql_where=expires)
    op.create_table(
        "draws",
        sa.Column("holder_id", sa.Text, nullable=False),
        sa.Column("lot_id", sa.Text, nullable=False),
        sa.Column("amount_nusd", BIG, nullable=False),
        sa.PrimaryKeyConstraint("holder_id", "lot_id", name="pk_draws"),
        sa.ForeignKeyConstraint(["lot_id"], ["lots.id"], name="fk_draws_lot_id"),
        sa.CheckConstraint("amount_nusd > 0", name="ck_draws_amount"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _claims(table: str, states: str, amounts: str, *columns: "sa.Column[int]") -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("amount_nusd", BIG, nullable=False),
        *columns,
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("closed_at_ns", BIG),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["account_id"], ["wallets.account_id"], name=f"fk_{table}_account_id"),
        sa.CheckConstraint(amounts, name=f"ck_{table}_amount"),
        sa.CheckConstraint(states, name=f"ck_{table}_state"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(f"ix_{table}_account_id", table, ["account_id"])


def _carry_over(now_ns: int) -> None:
    for kind in ("paid", "promo", "leased"):
        op.execute(
            "INSERT INTO books (id, kind, account_id)"
            f" SELECT '{kind}/' || account_id, '{kind}', account_id FROM wallets"
        )
    op.execute(
        "INSERT INTO entry_groups (id, kind, account_id, created_at_ns)"
        f" SELECT 'carry/' || account_id, 'carry', account_id, {now_ns} FROM wallets WHERE balance_nusd > 0"
    )
    amounts = {
        "customer": "-balance_nusd",
        "promo": "balance_nusd - leased_nusd",
        "leased": "leased_nusd",
    }
    for kind, amount in amounts.items():
        op.execute(
            f"INSERT INTO entries (group_id, book_id, amount_nusd)"
            f" SELECT 'carry/' || account_id, '{kind}/' || account_id, {amount}"
            f" FROM wallets WHERE balance_nusd > 0 AND {amount} <> 0"
        )
    op.execute(
        "INSERT INTO lots (id, account_id, source, amount_nusd, remaining_nusd, reference, created_at_ns)"
        " SELECT 'carry/' || account_id, account_id, 'promo', balance_nusd, balance_nusd - leased_nusd,"
        f" 'carried over', {now_ns} FROM wallets WHERE balance_nusd > 0"
    )
    op.execute(
        "INSERT INTO draws (holder_id, lot_id, amount_nusd)"
        " SELECT id, 'carry/' || account_id, amount_nusd FROM leases WHERE amount_nusd > 0"
    )
