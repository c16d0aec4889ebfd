"""What people decide about the catalogue while it serves: routing profiles, and channels out of service."""

from sqlalchemy import Column, ForeignKey, Index, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

routing_profiles = Table(
    "routing_profiles",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("rules", Text, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    Column("updated_at_ns", BIG, nullable=False),
    Index("ix_routing_profiles_account_id", "account_id", "id"),
    info={
        "purpose": "Routing policies that keys follow",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "id": "Names the policy",
            "account_id": "Whose policy it is",
            "name": "What its owner calls it",
            "rules": "Which providers, prices and data policies it allows",
            "created_at_ns": "When it was made",
            "updated_at_ns": "When it was last changed",
        },
    },
    sqlite_strict=True,
)
"""`rules` is `RoutingRules.to_json`."""

channel_pauses = Table(
    "channel_pauses",
    SCHEMA,
    Column("channel_id", Text, primary_key=True),
    Column("paused_at_ns", BIG, nullable=False),
    info={
        "purpose": "Channels that are out of service",
        "category": "operation",
        "lifetime": "until in service again",
        "columns": {
            "channel_id": "Which channel",
            "paused_at_ns": "Since when",
        },
    },
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""Channels that an operator took out of service."""
