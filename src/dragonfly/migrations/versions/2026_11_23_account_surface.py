"""Keys can be switched off, rotated and routed; management keys, routing profiles, the log of operators,
announcements, channels out of service, repeated requests."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_account_surface"
down_revision = "2026_11_23_mail_outbox"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Only adds: older versions go on working."""
    op.add_column("accounts", sa.Column("frozen_at_ns", BIG))
    _routing()
    _keys()
    _operations()
    _repeats()


def _routing() -> None:
    op.create_table(
        "routing_profiles",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("rules", sa.Text, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("updated_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routing_profiles"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_routing_profiles_account_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_routing_profiles_account_id", "routing_profiles", ["account_id", "id"])
    op.create_table(
        "channel_pauses",
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("paused_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("channel_id", name="pk_channel_pauses"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _keys() -> None:
    for column in (
        sa.Column("updated_at_ns", BIG),
        sa.Column("disabled_at_ns", BIG),
        sa.Column("previous_digest", sa.LargeBinary),
        sa.Column("previous_pepper_version", sa.Integer),
        sa.Column("previous_until_ns", BIG),
    ):
        op.add_column("keys", column)
    op.execute(
        "ALTER TABLE keys ADD COLUMN routing_profile_id TEXT"
        " CONSTRAINT fk_keys_routing_profile_id REFERENCES routing_profiles (id)"
    )
    op.create_table(
        "management_keys",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("pepper_version", sa.Integer, nullable=False),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("expires_at_ns", BIG),
        sa.Column("revoked_at_ns", BIG),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("last_used_day", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_management_keys"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_management_keys_account_id"),
        sa.CheckConstraint("length(digest) = 32", name="ck_management_keys_digest"),
        sqlite_strict=True,
    )
    op.create_index("ix_management_keys_account_id", "management_keys", ["account_id", "id"])
    op.create_table(
        "key_codes",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("challenge", sa.Text, nullable=False),
        sa.Column("callback_url", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("expires_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_key_codes"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_key_codes_account_id"),
        sa.CheckConstraint("length(digest) = 32", name="ck_key_codes_digest"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_key_codes_expires_at_ns", "key_codes", ["expires_at_ns"])
    op.create_index("ix_key_codes_account_id", "key_codes", ["account_id"])


def _operations() -> None:
    op.create_table(
        "audit_log",
        sa.Column("number", BIG, nullable=False, autoincrement=False),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at_ns", BIG, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_log"),
        sa.CheckConstraint("number > 0", name="ck_audit_log_number"),
        sa.CheckConstraint("length(digest) = 32", name="ck_audit_log_digest"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_audit_log_target", "audit_log", ["target", "number"])
    op.create_table(
        "announcements",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("text_en", sa.Text, nullable=False),
        sa.Column("text_zh", sa.Text, nullable=False),
        sa.Column("starts_at_ns", BIG, nullable=False),
        sa.Column("ends_at_ns", BIG),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("is_withdrawn", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_announcements"),
        sa.CheckConstraint("is_withdrawn IN (0, 1)", name="ck_announcements_is_withdrawn"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _repeats() -> None:
    op.create_table(
        "repeats",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("request_digest", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("reply", sa.Text),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_repeats"),
        sa.CheckConstraint("length(digest) = 32", name="ck_repeats_digest"),
        sa.CheckConstraint("length(request_digest) = 32", name="ck_repeats_request_digest"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_repeats_account_id", "repeats", ["account_id"])
    op.create_index("ix_repeats_created_at_ns", "repeats", ["created_at_ns"])
