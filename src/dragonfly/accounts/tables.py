"""Accounts: who holds a wallet and owns keys."""

from sqlalchemy import Column, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

accounts = Table(
    "accounts",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("email", Text),
    Column("verified_at_ns", BIG),
    Column("created_at_ns", BIG, nullable=False),
    Column("frozen_at_ns", BIG),
    sqlite_strict=True,
    info={
        "purpose": "Who holds a wallet and owns keys",
        "category": "account",
        "lifetime": "account",
        "columns": {
            "id": "Names the account everywhere else",
            "name": "What the holder wants to be called",
            "email": "Where the holder is reached",
            "verified_at_ns": "When the address was proven",
            "created_at_ns": "When the account was opened",
            "frozen_at_ns": "When an operator stopped it",
        },
    },
)
