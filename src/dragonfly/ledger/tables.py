"""The books: double entry, append only, in nano-USD; and what the entries prove: wallets and lots of credit.

A positive amount adds to a book, a negative one takes from it; the entries of a group sum to zero. A customer's money
stands in three books: paid, promotional, and leased to workers. Their sum is the wallet's balance.
"""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, Text, text

from dragonfly.infra.database import BIG, SCHEMA
from dragonfly.ledger.rules import CREDIT_KINDS_ONLY

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
        "ix_entry_groups_credit",
        "account_id",
        "created_at_ns",
        sqlite_where=text(CREDIT_KINDS_ONLY),
        postgresql_where=text(CREDIT_KINDS_ONLY),
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

lots = Table(
    "lots",
    SCHEMA,
    Column("id", Text, ForeignKey("entry_groups.id"), primary_key=True),
    Column("account_id", Text, ForeignKey("wallets.account_id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("amount_nusd", BIG, nullable=False),
    Column("remaining_nusd", BIG, nullable=False),
    Column("expires_at_ns", BIG),
    Column("reference", Text, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    CheckConstraint("amount_nusd > 0", name="amount"),
    CheckConstraint("remaining_nusd >= 0 AND remaining_nusd <= amount_nusd", name="remaining"),
    CheckConstraint("source = 'promo' OR (source = 'paid' AND expires_at_ns IS NULL)", name="source"),
    Index(
        "ix_lots_open",
        "account_id",
        sqlite_where=text("remaining_nusd > 0"),
        postgresql_where=text("remaining_nusd > 0"),
    ),
    Index(
        "ix_lots_expiry",
        "expires_at_ns",
        sqlite_where=text("remaining_nusd > 0 AND expires_at_ns IS NOT NULL"),
        postgresql_where=text("remaining_nusd > 0 AND expires_at_ns IS NOT NULL"),
    ),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "Credit that was paid or given, and what is left of it",
        "category": "payment",
        "lifetime": "books",
        "columns": {
            "id": "The booking that made it",
            "source": "Whether it was paid or given",
            "amount_nusd": "How much it was",
            "remaining_nusd": "What nobody has drawn of it",
            "expires_at_ns": "When it ends, if it was given for a time",
            "reference": "The payment, or the reason of a gift",
        },
    },
)
"""One for each top-up and each grant; the id is that of the group that made it. `remaining_nusd` is what nobody has
drawn: `draws` says who holds the rest, and what nobody holds was spent. Paid credit never expires. `reference` is the
payment's id, or the reason of a grant."""

draws = Table(
    "draws",
    SCHEMA,
    Column("holder_id", Text, primary_key=True),
    Column("lot_id", Text, ForeignKey("lots.id"), primary_key=True),
    Column("amount_nusd", BIG, nullable=False),
    CheckConstraint("amount_nusd > 0", name="amount"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "From which credit a lease, refund or dispute took its money, so that it can go back there",
        "category": "payment",
        "lifetime": "books",
        "columns": {
            "holder_id": "The lease, refund or dispute",
            "lot_id": "The credit",
            "amount_nusd": "How much",
        },
    },
)
"""The holder is a lease (its id), a refund ("refund/…") or a dispute ("dispute/…"). Those of a lease end with it."""

refunds = Table(
    "refunds",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("wallets.account_id"), nullable=False),
    Column("amount_nusd", BIG, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    Column("closed_at_ns", BIG),
    CheckConstraint("amount_nusd > 0", name="amount"),
    CheckConstraint("state IN ('pending', 'completed', 'cancelled')", name="state"),
    Index("ix_refunds_account_id", "account_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "Unused paid credit on its way back to the payer",
        "category": "payment",
        "lifetime": "books",
        "columns": {
            "amount_nusd": "How much",
            "state": "Whether it is pending, completed or cancelled",
            "closed_at_ns": "When it ended",
        },
    },
)

disputes = Table(
    "disputes",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("wallets.account_id"), nullable=False),
    Column("amount_nusd", BIG, nullable=False),
    Column("taken_nusd", BIG, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    Column("closed_at_ns", BIG),
    CheckConstraint("amount_nusd > 0 AND taken_nusd >= 0 AND taken_nusd <= amount_nusd", name="amount"),
    CheckConstraint("state IN ('open', 'won', 'lost')", name="state"),
    Index("ix_disputes_account_id", "account_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "Payments that the payer's bank demands back",
        "category": "payment",
        "lifetime": "books",
        "columns": {
            "amount_nusd": "How much it demands",
            "taken_nusd": "How much the wallet gave",
            "state": "Whether it is open, won or lost",
            "closed_at_ns": "When it was decided",
        },
    },
)
"""`taken_nusd` came out of the wallet; the rest of the amount had been spent, and is a receivable until the dispute
is decided."""

closings = Table(
    "closings",
    SCHEMA,
    Column("name", Text, primary_key=True),
    CheckConstraint("name = 'closing'", name="name"),
    sqlite_strict=True,
    info={
        "purpose": "Lets the journal's days be closed; its row is there only within the transaction that closes some",
        "category": "operation",
        "lifetime": "installation",
        "columns": {"name": "A fixed word"},
    },
)
"""Triggers refuse every change of the journal by a transaction that has no row here. No commit ever leaves one."""
