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
)
"""`balance_nusd` includes what workers have leased; `charged_nusd` is the sum of all charges ever."""
