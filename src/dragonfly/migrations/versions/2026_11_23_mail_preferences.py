"""What accounts want mail about, addresses that mail no longer goes to, and the provider's notices about them."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_mail_preferences"
down_revision = "2026_11_23_account_surface"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """New tables."""
    choices = ("welcome", "low_balance", "announcements")
    op.create_table(
        "mail_preferences",
        sa.Column("account_id", sa.Text, nullable=False),
        *(sa.Column(choice, sa.Integer, nullable=False) for choice in choices),
        sa.Column("low_balance_nusd", BIG),
        sa.Column("updated_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_mail_preferences"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_mail_preferences_account_id"),
        *(sa.CheckConstraint(f"{choice} IN (0, 1)", name=f"ck_mail_preferences_{choice}") for choice in choices),
        sa.CheckConstraint("low_balance_nusd >= 0", name="ck_mail_preferences_low_balance_nusd"),
        sqlite_strict=True,
    )
    op.create_table(
        "mail_dead_addresses",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_mail_dead_addresses"),
        sa.CheckConstraint("length(digest) = 64", name="ck_mail_dead_addresses_digest"),
        sa.CheckConstraint("reason IN ('bounce', 'complaint', 'suppressed')", name="ck_mail_dead_addresses_reason"),
        sqlite_strict=True,
    )
    op.create_index("ix_mail_dead_addresses_created_at_ns", "mail_dead_addresses", ["created_at_ns"])
    op.create_table(
        "mail_notices",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("transport_id", sa.Text),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mail_notices"),
        sa.CheckConstraint("kind IN ('bounce', 'complaint', 'suppressed')", name="ck_mail_notices_kind"),
        sqlite_strict=True,
    )
    op.create_index("ix_mail_notices_created_at_ns", "mail_notices", ["created_at_ns"])
