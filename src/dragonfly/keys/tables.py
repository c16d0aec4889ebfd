"""API keys: a keyed digest instead of the secret, what the key may do, and what it has spent."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

keys = Table(
    "keys",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("hint", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key_group", Text, nullable=False),
    Column("requests_per_minute", Integer),
    Column("concurrency_max", Integer),
    Column("spend_limit_nusd", BIG),
    Column("models", Text),
    Column("expires_at_ns", BIG),
    Column("revoked_at_ns", BIG),
    Column("created_at_ns", BIG, nullable=False),
    CheckConstraint("length(digest) = 32", name="digest"),
    CheckConstraint("requests_per_minute >= 0", name="requests_per_minute"),
    CheckConstraint("concurrency_max >= 0", name="concurrency_max"),
    CheckConstraint("spend_limit_nusd >= 0", name="spend_limit"),
    Index("ix_keys_account_id", "account_id", "id"),
    sqlite_strict=True,
)
"""NULL in a limit means the installation's default, NULL in `models` all models; `models` is a JSON list."""

key_spend = Table(
    "key_spend",
    SCHEMA,
    Column("key_id", Text, ForeignKey("keys.id"), primary_key=True),
    Column("spent_nusd", BIG, nullable=False),
    Column("leased_nusd", BIG, nullable=False),
    CheckConstraint("spent_nusd >= 0", name="spent"),
    CheckConstraint("leased_nusd >= 0", name="leased"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""Counters of each key since its creation. Only keys with a spending limit lease."""
