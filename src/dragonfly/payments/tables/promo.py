"""Codes for promotional credit."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint

from dragonfly.infra.database import BIG, SCHEMA

promo_codes = Table(
    "promo_codes",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("batch_id", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("amount_nusd", BIG, nullable=False),
    Column("uses_max", Integer, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("per_account_max", Integer, nullable=False),
    Column("expires_at_ns", BIG),
    Column("credit_days", Integer),
    Column("note", Text, nullable=False),
    Column("revoked_at_ns", BIG),
    Column("created_by", Text, ForeignKey("accounts.id")),
    Column("created_at_ns", BIG, nullable=False),
    CheckConstraint("amount_nusd > 0 AND uses >= 0 AND uses <= uses_max AND per_account_max > 0", name="bounds"),
    Index("ix_promo_codes_batch_id", "batch_id"),
    sqlite_strict=True,
    info={
        "purpose": "Codes for promotional credit",
        "category": "operation",
        "lifetime": "books",
        "columns": {
            "id": "Names the code",
            "batch_id": "The codes made together",
            "digest": "A hash of the code; the code itself is shown once",
            "hint": "Its last characters",
            "amount_nusd": "The credit that it gives",
            "uses_max": "How often it can be used",
            "uses": "How often it was used",
            "per_account_max": "How many codes of its batch one account may use",
            "expires_at_ns": "Until when it can be used",
            "credit_days": "How long the credit stays",
            "note": "The operator's words on what it is for",
            "revoked_at_ns": "When it was withdrawn",
            "created_by": "The operator who made it; empty: on the command line",
            "created_at_ns": "When it was made",
        },
    },
)

promo_redemptions = Table(
    "promo_redemptions",
    SCHEMA,
    Column("code_id", Text, ForeignKey("promo_codes.id"), primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("batch_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    UniqueConstraint("batch_id", "account_id", "number"),
    sqlite_strict=True,
    info={
        "purpose": "Which account used which code",
        "category": "payment",
        "lifetime": "books",
        "columns": {
            "code_id": "Which code",
            "account_id": "Who used it; a random id that erasure leaves without a person",
            "batch_id": "The codes made together",
            "number": "How many of the batch the account has used",
            "created_at_ns": "When it was used",
        },
    },
)
