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
    Column("updated_at_ns", BIG),
    Column("disabled_at_ns", BIG),
    Column("routing_profile_id", Text, ForeignKey("routing_profiles.id")),
    Column("previous_digest", LargeBinary),
    Column("previous_pepper_version", Integer),
    Column("previous_until_ns", BIG),
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
            "key_group": "A label that groups usage",
            "requests_per_minute": "Its own limit of rate",
            "concurrency_max": "Its own limit of open requests",
            "spend_limit_nusd": "Its own limit of spending",
            "models": "Which models it may call",
            "expires_at_ns": "When it ends",
            "revoked_at_ns": "When it was revoked",
            "created_at_ns": "When it was made",
            "updated_at_ns": "When it was last changed",
            "disabled_at_ns": "When it was switched off",
            "routing_profile_id": "Which routing policy it follows",
            "previous_digest": "Keyed hash of the secret before a rotation",
            "previous_pepper_version": "Which secret that hash was made with",
            "previous_until_ns": "Until when the secret before a rotation works",
        },
    },
)
"""NULL in a limit means the installation's default, NULL in `models` all models; `models` is a JSON list.
A key that was rotated has its older secret as `previous_digest`, which works until `previous_until_ns`."""

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

management_keys = Table(
    "management_keys",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("hint", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("expires_at_ns", BIG),
    Column("revoked_at_ns", BIG),
    Column("created_at_ns", BIG, nullable=False),
    Column("last_used_day", Integer),
    CheckConstraint("length(digest) = 32", name="digest"),
    Index("ix_management_keys_account_id", "account_id", "id"),
    info={
        "purpose": "Keys with which programs manage an account",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "id": "The public part of the key",
            "account_id": "Whose key it is",
            "digest": "Keyed hash of the key; the key itself is not kept",
            "pepper_version": "Which secret the hash was made with",
            "hint": "How the key is shown: its id and checksum",
            "name": "What its owner calls it",
            "scopes": "What it may do",
            "expires_at_ns": "When it ends",
            "revoked_at_ns": "When it was revoked",
            "created_at_ns": "When it was made",
            "last_used_day": "The day on which it was last used",
        },
    },
    sqlite_strict=True,
)
"""Keys for automation: no inference, only what `scopes` (a JSON list) names. `last_used_day` counts from the epoch
and is written once a day at most."""

key_codes = Table(
    "key_codes",
    SCHEMA,
    Column("digest", LargeBinary, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("challenge", Text, nullable=False),
    Column("callback_url", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("limits", Text, nullable=False),
    Column("expires_at_ns", BIG, nullable=False),
    CheckConstraint("length(digest) = 32", name="digest"),
    Index("ix_key_codes_expires_at_ns", "expires_at_ns"),
    Index("ix_key_codes_account_id", "account_id"),
    info={
        "purpose": "Codes that an app exchanges for a key",
        "category": "account",
        "lifetime": "10 minutes, or until used",
        "columns": {
            "digest": "Hash of the code; the code itself is not kept",
            "account_id": "Who lets the app have a key",
            "challenge": "Proves that the app that asked is the one that exchanges",
            "callback_url": "Where the code was sent",
            "name": "What the key will be called",
            "limits": "What the key may spend and until when",
            "expires_at_ns": "When the code ends",
        },
    },
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""Codes that a person gave to a third-party app, until they are exchanged or expire. `digest` is SHA-256 of a
random code of 256 bits; `limits` is what the key will be allowed, as JSON."""
