"""The books: double entry, append only, in nano-USD; and the wallets, which the entries prove.

A positive amount adds to a book, a negative one takes from it; the entries of a group sum to zero. So a customer's
book holds what the customer can spend, and equals the wallet's balance.
"""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, Text, text

from dragonfly.infra.database import BIG, SCHEMA

books = Table(
    "books",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id")),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "The accounts of the double entry",
        "category": "payment",
        "lifetime": "books",
        "columns": {
            "id": "Names the book",
            "kind": "What it stands for",
            "account_id": "Whose book it is; a random id that erasure leaves without a person",
        },
    },
)

entry_groups = Table(
    "entry_groups",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id")),
    Column("created_at_ns", BIG, nullable=False),
    Index(
        "ix_entry_groups_account_id_created_at_ns",
        "account_id",
        "created_at_ns",
        sqlite_where=text("kind <> 'settle'"),
        postgresql_where=text("kind <> 'settle'"),
    ),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "Bookings that belong together and sum to zero",
        "category": "payment",
        "lifetime": "books",
        "columns": {
            "id": "The write that made it, so that it happens once",
            "kind": "What it books",
            "account_id": "Whose wallet; a random id that erasure leaves without a person",
            "created_at_ns": "When it was booked",
        },
    },
)
"""The id is the idempotency key of the write: the same write again meets its own row."""

entries = Table(
    "entries",
    SCHEMA,
    Column("group_id", Text, ForeignKey("entry_groups.id"), primary_key=True),
    Column("book_id", Text, ForeignKey("books.id"), primary_key=True),
    Column("amount_nusd", BIG, nullable=False),
    CheckConstraint("amount_nusd <> 0", name="amount"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "Amounts added to books and taken from them",
        "category": "payment",
        "lifetime": "books",
        "columns": {
            "group_id": "Which booking",
            "book_id": "Which book",
            "amount_nusd": "How much",
        },
    },
)

wallets = Table(
    "wallets",
    SCHEMA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("balance_nusd", BIG, nullable=False),
    Column("leased_nusd", BIG, nullable=False),
    Column("charged_nusd", BIG, nullable=False),
    CheckConstraint("leased_nusd >= 0 AND leased_nusd <= balance_nusd", name="leased"),
    CheckConstraint("charged_nusd >= 0", name="charged"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "What an account can spend, proven by the entries",
        "category": "payment",
        "lifetime": "books",
        "columns": {
            "account_id": "Whose wallet",
            "balance_nusd": "What it holds",
            "leased_nusd": "What running processes have leased of it",
            "charged_nusd": "Sum of all charges",
        },
    },
)
"""`balance_nusd` includes what workers have leased; `charged_nusd` is the sum of all charges ever."""
