"""Usage rows of each day in a table of their own, on PostgreSQL; days of the journal may be closed."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_closed_days"
down_revision = "2026_11_23_statistics"

JOURNAL = ("entry_groups", "entries")
UNLESS_CLOSING = "NOT EXISTS (SELECT 1 FROM closings)"


def upgrade() -> None:
    """The journal stays append-only for everything but the transaction that closes days."""
    op.create_table(
        "closings",
        sa.Column("name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_closings"),
        sa.CheckConstraint("name = 'closing'", name="ck_closings_name"),
        sqlite_strict=True,
    )
    if op.get_bind().dialect.name == "sqlite":
        _open_triggers()
        return
    op.execute(
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF TG_OP = 'TRUNCATE' OR TG_TABLE_NAME = 'books' OR {UNLESS_CLOSING}"
        " THEN RAISE EXCEPTION 'the ledger is append-only'; END IF;"
        " RETURN NULL; END $$"
    )
    _part_usage()


def _open_triggers() -> None:
    for table in JOURNAL:
        for verb in ("UPDATE", "DELETE"):
            name = f"{table}_refuse_{verb.lower()}"
            op.execute(f"DROP TRIGGER {name}")
            op.execute(
                f"CREATE TRIGGER {name} BEFORE {verb} ON {table} WHEN {UNLESS_CLOSING}"
                " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            )


def _part_usage() -> None:
    """What is there becomes the rest, which holds rows of days without a table."""
    index = "ix_usage_account_id_created_at_ns"
    op.execute("ALTER TABLE usage RENAME TO usage_rest")
    op.execute("ALTER TABLE usage_rest RENAME CONSTRAINT pk_usage TO pk_usage_rest")
    op.execute(f"ALTER INDEX {index} RENAME TO {index}_rest")
    like = "LIKE usage_rest INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
    op.execute(f"CREATE TABLE usage ({like}) PARTITION BY RANGE (request_id)")
    op.execute("ALTER TABLE usage ADD CONSTRAINT pk_usage PRIMARY KEY (request_id)")
    op.execute(f"CREATE INDEX {index} ON usage (account_id, created_at_ns)")
    op.execute("ALTER TABLE usage ATTACH PARTITION usage_rest DEFAULT")
