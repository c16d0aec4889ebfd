"""People: how they sign in, what they accepted, their sessions, and what their sign-ups looked like."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_people"
down_revision = "2026_11_23_mail_preferences"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """New tables."""
    _who_signs_in()
    _sessions()
    _second_factors_and_links()
    _what_sign_ups_look_like()


def _who_signs_in() -> None:
    """Who signs in, what they accepted, and their accounts elsewhere."""
    op.create_table(
        "people",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("address_folded", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text),
        sa.Column("password_set_at_ns", BIG),
        sa.Column("browser_key", sa.Text),
        sa.PrimaryKeyConstraint("account_id", name="pk_people"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_people_account_id"),
        sa.UniqueConstraint("address_folded", name="uq_people_address_folded"),
        sa.CheckConstraint("role IN ('customer', 'operator')", name="ck_people_role"),
        sqlite_strict=True,
    )
    op.create_table(
        "consents",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("terms_version", sa.Text, nullable=False),
        sa.Column("policy_version", sa.Text, nullable=False),
        sa.Column("is_adult", sa.Integer, nullable=False),
        sa.Column("accepted_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "terms_version", "policy_version", name="pk_consents"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_consents_account_id"),
        sa.CheckConstraint("is_adult = 1", name="ck_consents_adult"),
        sqlite_strict=True,
    )
    op.create_table(
        "identities",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("provider", "subject", name="pk_identities"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_identities_account_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_identities_account_id", "identities", ["account_id"])


def _sessions() -> None:
    """Browsers that are signed in."""
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("browser_key", sa.Text, nullable=False),
        sa.Column("has_second_factor", sa.Integer, nullable=False),
        sa.Column("access_digest", sa.LargeBinary, nullable=False),
        sa.Column("access_expires_at_ns", BIG, nullable=False),
        sa.Column("refresh_digest", sa.LargeBinary, nullable=False),
        sa.Column("previous_access_digest", sa.LargeBinary),
        sa.Column("previous_refresh_digest", sa.LargeBinary),
        sa.Column("refreshed_at_ns", BIG, nullable=False),
        sa.Column("proven_at_ns", BIG, nullable=False),
        sa.Column("expires_at_ns", BIG, nullable=False),
        sa.Column("ends_at_ns", BIG, nullable=False),
        sa.Column("end_reason", sa.Text),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("ip", sa.Text, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_sessions_account_id"),
        sa.UniqueConstraint("access_digest", name="uq_sessions_access_digest"),
        sa.CheckConstraint("has_second_factor IN (0, 1)", name="ck_sessions_second_factor"),
        sa.CheckConstraint("length(access_digest) = 32 AND length(refresh_digest) = 32", name="ck_sessions_digests"),
        sqlite_strict=True,
    )
    op.create_index("ix_sessions_account_id", "sessions", ["account_id", "created_at_ns"])
    op.create_index("ix_sessions_ends_at_ns", "sessions", ["ends_at_ns"])
    op.create_index("ix_sessions_previous_access_digest", "sessions", ["previous_access_digest"])


def _second_factors_and_links() -> None:
    """Second factors, recovery codes, links that work once."""
    op.create_table(
        "second_factors",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("seal_version", sa.Integer, nullable=False),
        sa.Column("last_step", BIG, nullable=False),
        sa.Column("confirmed_at_ns", BIG),
        sa.PrimaryKeyConstraint("account_id", name="pk_second_factors"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_second_factors_account_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "recovery_codes",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("used_at_ns", BIG),
        sa.PrimaryKeyConstraint("digest", name="pk_recovery_codes"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_recovery_codes_account_id"),
        sa.CheckConstraint("length(digest) = 32", name="ck_recovery_codes_digest"),
        sqlite_strict=True,
    )
    op.create_index("ix_recovery_codes_account_id", "recovery_codes", ["account_id"])
    op.create_table(
        "one_time_links",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text),
        sa.Column("browser_key", sa.Text),
        sa.Column("address", sa.Text),
        sa.Column("details", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("expires_at_ns", BIG, nullable=False),
        sa.Column("used_at_ns", BIG),
        sa.PrimaryKeyConstraint("digest", name="pk_one_time_links"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_one_time_links_account_id"),
        sa.CheckConstraint("length(digest) = 32", name="ck_one_time_links_digest"),
        sqlite_strict=True,
    )
    op.create_index("ix_one_time_links_account_id", "one_time_links", ["account_id", "kind"])
    op.create_index("ix_one_time_links_expires_at_ns", "one_time_links", ["expires_at_ns"])


def _what_sign_ups_look_like() -> None:
    """Trial credit and risk."""
    op.create_table(
        "sign_ups",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("network_digest", sa.LargeBinary, nullable=False),
        sa.Column("risk_score", sa.Integer, nullable=False),
        sa.Column("risk_reasons", sa.Text, nullable=False),
        sa.Column("trial_nusd", BIG, nullable=False),
        sa.Column("trial_at_ns", BIG),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_sign_ups"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_sign_ups_account_id"),
        sa.CheckConstraint("risk_score BETWEEN 0 AND 100", name="ck_sign_ups_risk_score"),
        sqlite_strict=True,
    )
    op.create_index("ix_sign_ups_network_digest", "sign_ups", ["network_digest", "created_at_ns"])
    op.create_index("ix_sign_ups_trial_at_ns", "sign_ups", ["trial_at_ns"])
    op.create_table(
        "trial_persons",
        sa.Column("person_digest", sa.LargeBinary, nullable=False),
        sa.Column("granted_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("person_digest", name="pk_trial_persons"),
        sa.CheckConstraint("length(person_digest) = 32", name="ck_trial_persons_digest"),
        sqlite_strict=True,
    )
