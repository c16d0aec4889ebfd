"""Accounts, keys, the ledger, usage, workers and their leases, and the feed of changes."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_foundation"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
APPEND_ONLY = ("entry_groups", "entries", "books")


def upgrade() -> None:
    """Makes everything; the order follows the foreign keys."""
    _accounts_and_keys()
    _ledger()
    _usage()
    _workers_and_leases()
    _changes()
    _refuse_changes_to_the_ledger()


def _accounts_and_keys() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("email", sa.Text),
        sa.Column("verified_at_ns", BIG),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sqlite_strict=True,
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("pepper_version", sa.Integer, nullable=False),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key_group", sa.Text, nullable=False),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("concurrency_max", sa.Integer),
        sa.Column("spend_limit_nusd", BIG),
        sa.Column("models", sa.Text),
        sa.Column("expires_at_ns", BIG),
        sa.Column("revoked_at_ns", BIG),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_keys_account_id"),
        sa.CheckConstraint("length(digest) = 32", name="ck_keys_digest"),
        sa.CheckConstraint("requests_per_minute >= 0", name="ck_keys_requests_per_minute"),
        sa.CheckConstraint("concurrency_max >= 0", name="ck_keys_concurrency_max"),
        sa.CheckConstraint("spend_limit_nusd >= 0", name="ck_keys_spend_limit"),
        sqlite_strict=True,
    )
    op.create_index("ix_keys_account_id", "keys", ["account_id", "id"])
    op.create_table(
        "key_spend",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("spent_nusd", BIG, nullable=False),
        sa.Column("leased_nusd", BIG, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_key_spend"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_key_spend_key_id"),
        sa.CheckConstraint("spent_nusd >= 0", name="ck_key_spend_spent"),
        sa.CheckConstraint("leased_nusd >= 0", name="ck_key_spend_leased"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _ledger() -> None:
    op.create_table(
        "books",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_books"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_books_account_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "entry_groups",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_entry_groups"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_entry_groups_account_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_entry_groups_account_id_created_at_ns",
        "entry_groups",
        ["account_id", "created_at_ns"],
        sqlite_where=sa.text("kind <> 'settle'"),
        postgresql_where=sa.text("kind <> 'settle'"),
    )
    op.create_table(
        "entries",
        sa.Column("group_id", sa.Text, nullable=False),
        sa.Column("book_id", sa.Text, nullable=False),
        sa.Column("amount_nusd", BIG, nullable=False),
        sa.PrimaryKeyConstraint("group_id", "book_id", name="pk_entries"),
        sa.ForeignKeyConstraint(["group_id"], ["entry_groups.id"], name="fk_entries_group_id"),
        sa.ForeignKeyConstraint(["book_id"], ["books.id"], name="fk_entries_book_id"),
        sa.CheckConstraint("amount_nusd <> 0", name="ck_entries_amount"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "wallets",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("balance_nusd", BIG, nullable=False),
        sa.Column("leased_nusd", BIG, nullable=False),
        sa.Column("charged_nusd", BIG, nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_wallets"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_wallets_account_id"),
        sa.CheckConstraint("leased_nusd >= 0 AND leased_nusd <= balance_nusd", name="ck_wallets_leased"),
        sa.CheckConstraint("charged_nusd >= 0", name="ck_wallets_charged"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _usage() -> None:
    texts = ("account_id", "key_id", "model", "provider", "channel_id")
    tokens = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
    money = ("hold_nusd", "cost_nusd", "prompt_cost_nusd", "upstream_nusd", "absorbed_nusd")
    op.create_table(
        "usage",
        sa.Column("request_id", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        *(sa.Column(name, BIG, nullable=False) for name in tokens),
        sa.Column("basis", sa.Text, nullable=False),
        sa.Column("price_version_id", sa.Text, nullable=False),
        *(sa.Column(name, BIG, nullable=False) for name in money),
        sa.Column("group_id", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("finish_reason", sa.Text, nullable=False),
        sa.Column("is_streamed", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("upstream_status", sa.Integer, nullable=False),
        sa.Column("ttft_us", BIG, nullable=False),
        sa.Column("duration_us", BIG, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("created_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_usage"),
        sa.CheckConstraint("cost_nusd >= 0 AND cost_nusd <= hold_nusd", name="ck_usage_cost"),
        sa.CheckConstraint("upstream_nusd >= 0 AND absorbed_nusd >= 0", name="ck_usage_operator_cost"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_usage_account_id_created_at_ns", "usage", ["account_id", "created_at_ns"])
    counters = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost_nusd")
    op.create_table(
        "usage_days",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        *(sa.Column(name, BIG, nullable=False) for name in counters),
        sa.PrimaryKeyConstraint("key_id", "day", "model", "provider", name="pk_usage_days"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_usage_days_account_id_day", "usage_days", ["account_id", "day"])


def _workers_and_leases() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("beats", BIG, nullable=False),
        sa.Column("is_dead", sa.Integer, nullable=False),
        sa.Column("beat_at_ns", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sa.CheckConstraint("is_dead IN (0, 1)", name="ck_workers_is_dead"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("worker_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text),
        sa.Column("amount_nusd", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_leases"),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name="fk_leases_worker_id"),
        sa.ForeignKeyConstraint(["account_id"], ["wallets.account_id"], name="fk_leases_account_id"),
        sa.ForeignKeyConstraint(["key_id"], ["key_spend.key_id"], name="fk_leases_key_id"),
        sa.CheckConstraint("amount_nusd >= 0", name="ck_leases_amount"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_leases_worker_id", "leases", ["worker_id", "account_id"])
    op.create_index("ix_leases_account_id", "leases", ["account_id"])


def _changes() -> None:
    counter = op.create_table(
        "change_counter",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("revision", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_change_counter"),
        sa.CheckConstraint("id = 1", name="ck_change_counter_one_row"),
        sqlite_strict=True,
    )
    op.bulk_insert(counter, [{"id": 1, "revision": 0}])
    op.create_table(
        "changes",
        sa.Column("revision", BIG, autoincrement=False, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_changes"),
        sqlite_strict=True,
    )


def _refuse_changes_to_the_ledger() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table in APPEND_ONLY:
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_refuse_{verb.lower()} BEFORE {verb} ON {table}"
                    " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
