"""Payments: top-ups, events of Stripe's, refunds, disputes, automatic top-ups, promotional codes."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_payments"
down_revision = "2026_11_23_limits"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """New tables."""
    _create_payment_refusals()
    _create_auto_recharges()
    _create_billing_details()
    _create_external_events()
    _create_payment_customers()
    _create_payment_freezes()
    _create_promo_codes()
    _create_topups()
    _create_fraud_warnings()
    _create_payment_disputes()
    _create_payment_refunds()
    _create_promo_redemptions()


def _create_payment_refusals() -> None:
    op.create_table(
        "payment_refusals",
        sa.Column("day", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("count", BIG, nullable=False),
        sa.PrimaryKeyConstraint("day", "reason", name="pk_payment_refusals"),
        sqlite_strict=True,
    )


def _create_auto_recharges() -> None:
    op.create_table(
        "auto_recharges",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("pause_reason", sa.Text),
        sa.Column("threshold_nusd", BIG, nullable=False),
        sa.Column("amount_cents", BIG, nullable=False),
        sa.Column("monthly_cap_cents", BIG, nullable=False),
        sa.Column("method_id", sa.Text),
        sa.Column("card_label", sa.Text),
        sa.Column("soft_declines", sa.Integer, nullable=False),
        sa.Column("attempted_at_ns", BIG),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("updated_at_ns", BIG, nullable=False),
        sa.CheckConstraint("state <> 'on' OR method_id IS NOT NULL", name="ck_auto_recharges_method"),
        sa.CheckConstraint("state IN ('off', 'on', 'paused')", name="ck_auto_recharges_state"),
        sa.CheckConstraint(
            "threshold_nusd > 0 AND amount_cents > 0 AND monthly_cap_cents >= amount_cents",
            name="ck_auto_recharges_amounts",
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_auto_recharges_account_id"),
        sa.PrimaryKeyConstraint("account_id", name="pk_auto_recharges"),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_auto_recharges_on",
        "auto_recharges",
        ["account_id"],
        sqlite_where=sa.text("state = 'on'"),
        postgresql_where=sa.text("state = 'on'"),
    )


def _create_billing_details() -> None:
    op.create_table(
        "billing_details",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("company", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("country", sa.Text, nullable=False),
        sa.Column("tax_id", sa.Text, nullable=False),
        sa.Column("updated_at_ns", BIG, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_billing_details_account_id"),
        sa.PrimaryKeyConstraint("account_id", name="pk_billing_details"),
        sqlite_strict=True,
    )


def _create_external_events() -> None:
    op.create_table(
        "external_events",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("object_id", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("account_id", sa.Text),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("due_at_ns", BIG, nullable=False),
        sa.Column("happened_at_ns", BIG, nullable=False),
        sa.Column("received_at_ns", BIG, nullable=False),
        sa.Column("handled_at_ns", BIG),
        sa.CheckConstraint("state IN ('new', 'done', 'refused', 'dead')", name="ck_external_events_state"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_external_events_account_id"),
        sa.PrimaryKeyConstraint("source", "event_id", name="pk_external_events"),
        sqlite_strict=True,
    )
    op.create_index("ix_external_events_account_id", "external_events", ["account_id", "type"])
    op.create_index(
        "ix_external_events_due",
        "external_events",
        ["due_at_ns"],
        sqlite_where=sa.text("state = 'new'"),
        postgresql_where=sa.text("state = 'new'"),
    )
    op.create_index("ix_external_events_received_at_ns", "external_events", ["received_at_ns"])


def _create_payment_customers() -> None:
    op.create_table(
        "payment_customers",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("stripe_customer_id", sa.Text, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_payment_customers_account_id"),
        sa.PrimaryKeyConstraint("account_id", name="pk_payment_customers"),
        sa.UniqueConstraint("stripe_customer_id", name="uq_payment_customers_stripe_customer_id"),
        sqlite_strict=True,
    )


def _create_payment_freezes() -> None:
    op.create_table(
        "payment_freezes",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("since_ns", BIG, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_payment_freezes_account_id"),
        sa.PrimaryKeyConstraint("account_id", "cause", name="pk_payment_freezes"),
        sqlite_strict=True,
    )


def _create_promo_codes() -> None:
    op.create_table(
        "promo_codes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("amount_nusd", BIG, nullable=False),
        sa.Column("uses_max", sa.Integer, nullable=False),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("per_account_max", sa.Integer, nullable=False),
        sa.Column("expires_at_ns", BIG),
        sa.Column("credit_days", sa.Integer),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("revoked_at_ns", BIG),
        sa.Column("created_by", sa.Text),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.CheckConstraint(
            "amount_nusd > 0 AND uses >= 0 AND uses <= uses_max AND per_account_max > 0", name="ck_promo_codes_bounds"
        ),
        sa.ForeignKeyConstraint(["created_by"], ["accounts.id"], name="fk_promo_codes_created_by"),
        sa.PrimaryKeyConstraint("id", name="pk_promo_codes"),
        sa.UniqueConstraint("digest", name="uq_promo_codes_digest"),
        sqlite_strict=True,
    )
    op.create_index("ix_promo_codes_batch_id", "promo_codes", ["batch_id"])


def _create_topups() -> None:
    op.create_table(
        "topups",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("client_key", sa.Text),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("amount_cents", BIG, nullable=False),
        sa.Column("tax_cents", BIG, nullable=False),
        sa.Column("total_cents", BIG),
        sa.Column("credit_nusd", BIG),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("session_url", sa.Text),
        sa.Column("intent_id", sa.Text),
        sa.Column("charge_id", sa.Text),
        sa.Column("receipt_url", sa.Text),
        sa.Column("method", sa.Text),
        sa.Column("country", sa.Text),
        sa.Column("failure", sa.Text),
        sa.Column("address_digest", sa.Text),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("expires_at_ns", BIG),
        sa.Column("paid_at_ns", BIG),
        sa.Column("checked_at_ns", BIG, nullable=False),
        sa.CheckConstraint("kind IN ('checkout', 'recharge')", name="ck_topups_kind"),
        sa.CheckConstraint("state <> 'paid' OR credit_nusd > 0", name="ck_topups_credit"),
        sa.CheckConstraint(
            "state IN ('created', 'open', 'processing', 'paid', 'failed', 'expired', 'mismatch')",
            name="ck_topups_state",
        ),
        sa.CheckConstraint("amount_cents > 0 AND tax_cents >= 0", name="ck_topups_amount"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_topups_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_topups"),
        sa.UniqueConstraint("account_id", "client_key", name="uq_topups_account_id_client_key"),
        sa.UniqueConstraint("intent_id", name="uq_topups_intent_id"),
        sa.UniqueConstraint("session_id", name="uq_topups_session_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_topups_account_id_created_at_ns", "topups", ["account_id", "created_at_ns"])
    op.create_index("ix_topups_created_at_ns", "topups", ["created_at_ns"])


def _create_fraud_warnings() -> None:
    op.create_table(
        "fraud_warnings",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("topup_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("response", sa.Text, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.CheckConstraint("response IN ('refund', 'review', 'none')", name="ck_fraud_warnings_response"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_fraud_warnings_account_id"),
        sa.ForeignKeyConstraint(["topup_id"], ["topups.id"], name="fk_fraud_warnings_topup_id"),
        sa.PrimaryKeyConstraint("id", name="pk_fraud_warnings"),
        sqlite_strict=True,
    )
    op.create_index("ix_fraud_warnings_account_id", "fraud_warnings", ["account_id"])


def _create_payment_disputes() -> None:
    op.create_table(
        "payment_disputes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("topup_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("amount_cents", BIG, nullable=False),
        sa.Column("credit_nusd", BIG, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("due_at_ns", BIG),
        sa.Column("opened_at_ns", BIG, nullable=False),
        sa.Column("closed_at_ns", BIG),
        sa.CheckConstraint("state IN ('inquiry', 'open', 'won', 'lost', 'closed')", name="ck_payment_disputes_state"),
        sa.CheckConstraint("amount_cents > 0 AND credit_nusd >= 0", name="ck_payment_disputes_amount"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_payment_disputes_account_id"),
        sa.ForeignKeyConstraint(["topup_id"], ["topups.id"], name="fk_payment_disputes_topup_id"),
        sa.PrimaryKeyConstraint("id", name="pk_payment_disputes"),
        sqlite_strict=True,
    )
    op.create_index("ix_payment_disputes_account_id", "payment_disputes", ["account_id"])
    op.create_index("ix_payment_disputes_opened_at_ns", "payment_disputes", ["opened_at_ns"])
    op.create_index("ix_payment_disputes_topup_id", "payment_disputes", ["topup_id"])


def _create_payment_refunds() -> None:
    op.create_table(
        "payment_refunds",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("topup_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("amount_cents", BIG, nullable=False),
        sa.Column("credit_nusd", BIG, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("stripe_refund_id", sa.Text),
        sa.Column("failure", sa.Text),
        sa.Column("decided_by", sa.Text),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.Column("decided_at_ns", BIG),
        sa.Column("ended_at_ns", BIG),
        sa.Column("tried_at_ns", BIG, nullable=False),
        sa.CheckConstraint("source IN ('request', 'dashboard', 'warning')", name="ck_payment_refunds_source"),
        sa.CheckConstraint(
            "state IN ('requested', 'declined', 'approved', 'pending', 'succeeded', 'failed', 'refused')",
            name="ck_payment_refunds_state",
        ),
        sa.CheckConstraint("amount_cents > 0 AND credit_nusd >= 0", name="ck_payment_refunds_amount"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_payment_refunds_account_id"),
        sa.ForeignKeyConstraint(["decided_by"], ["accounts.id"], name="fk_payment_refunds_decided_by"),
        sa.ForeignKeyConstraint(["topup_id"], ["topups.id"], name="fk_payment_refunds_topup_id"),
        sa.PrimaryKeyConstraint("id", name="pk_payment_refunds"),
        sa.UniqueConstraint("stripe_refund_id", name="uq_payment_refunds_stripe_refund_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_payment_refunds_account_id", "payment_refunds", ["account_id"])
    op.create_index("ix_payment_refunds_state", "payment_refunds", ["state"])
    op.create_index("ix_payment_refunds_topup_id", "payment_refunds", ["topup_id"])


def _create_promo_redemptions() -> None:
    op.create_table(
        "promo_redemptions",
        sa.Column("code_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_promo_redemptions_account_id"),
        sa.ForeignKeyConstraint(["code_id"], ["promo_codes.id"], name="fk_promo_redemptions_code_id"),
        sa.PrimaryKeyConstraint("code_id", "account_id", name="pk_promo_redemptions"),
        sa.UniqueConstraint(
            "batch_id", "account_id", "number", name="uq_promo_redemptions_batch_id_account_id_number"
        ),
        sqlite_strict=True,
    )
