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
    info={
        "purpose": "API keys, what each may do, and a keyed digest to recognise it",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "id": "The public part of the key",
            "account_id": "Whose key it is",
            "digest": "Keyed hash of the key; the key itself is not kept",
            "pepper_version": "Which secret the hash was made with",
            "hint": "How the key is shown: its id and checksum",
            "name": "What its owner calls it",
            "key_group": "Keys that share a limit",
            "requests_per_minute": "Its own limit of rate",
            "concurrency_max": "Its own limit of open requests",
            "spend_limit_nusd": "Its own limit of spending",
            "models": "Which models it may call",
            "expires_at_ns": "When it ends",
            "revoked_at_ns": "When it was revoked",
            "created_at_ns": "When it was made",
        },
    },
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
    info={
        "purpose": "What each key has spent, for its limit",
        "category": "usage",
        "lifetime": "account",
        "columns": {
            "key_id": "Which key",
            "spent_nusd": "Spent since its creation",
            "leased_nusd": "Leased to running processes",
        },
    },
)
"""Counters of each key since its creation. Only keys with a spending limit lease."""
