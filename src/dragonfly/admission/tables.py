"""Workers that are alive, and the money that each has leased from the wallets."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

workers = Table(
    "workers",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("beats", BIG, nullable=False),
    Column("is_dead", Integer, nullable=False),
    Column("beat_at_ns", BIG, nullable=False),
    CheckConstraint("is_dead IN (0, 1)", name="is_dead"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "Processes that serve, and whether they live",
        "category": "operation",
        "lifetime": "while the process lives",
        "columns": {
            "id": "Names the process",
            "beats": "Its signs of life",
            "is_dead": "Whether others gave it up",
            "beat_at_ns": "Its last sign of life",
        },
    },
)
"""`beats` only grows while its worker lives. Others compare it with their own monotonic clock, never with wall
time, so nodes whose clocks differ agree. `beat_at_ns` is for people."""

leases = Table(
    "leases",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("worker_id", Text, ForeignKey("workers.id"), nullable=False),
    Column("account_id", Text, ForeignKey("wallets.account_id"), nullable=False),
    Column("key_id", Text, ForeignKey("key_spend.key_id")),
    Column("amount_nusd", BIG, nullable=False),
    Column("extensions", Integer, nullable=False, server_default="0"),
    CheckConstraint("amount_nusd >= 0", name="amount"),
    Index("ix_leases_worker_id", "worker_id", "account_id"),
    Index("ix_leases_account_id", "account_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "Money that a process may spend of a wallet without asking again",
        "category": "payment",
        "lifetime": "while the process lives",
        "columns": {
            "id": "Names the lease",
            "worker_id": "Which process",
            "account_id": "Whose wallet",
            "key_id": "Whose limit it counts against",
            "extensions": "How often money was added",
            "amount_nusd": "How much is left",
        },
    },
)
"""What a worker may still spend of a wallet. With a `key_id`, the amount also counts against that key's limit.
`extensions` counts how often money was added, or a part given back; the ledger's groups are numbered by it. The
ledger's draws tell from which credit the money came."""

estimates = Table(
    "estimates",
    SCHEMA,
    Column("channel_id", Text, primary_key=True),
    Column("prompt_bytes_milli", BIG, nullable=False),
    Column("prompt_tokens_milli", BIG, nullable=False),
    Column("output_bytes_milli", BIG, nullable=False),
    Column("output_tokens_milli", BIG, nullable=False),
    Column("seen", BIG, nullable=False),
    Column("updated_at_ns", BIG, nullable=False),
    CheckConstraint("prompt_bytes_milli >= 0 AND prompt_tokens_milli >= 0", name="prompt"),
    CheckConstraint("output_bytes_milli >= 0 AND output_tokens_milli >= 0", name="output"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "How many bytes a token takes, for answers whose count does not come",
        "category": "operation",
        "lifetime": "installation",
        "columns": {
            "channel_id": "Which model at which provider",
            "prompt_bytes_milli": "Weighted sum over all customers' latest prompts",
            "prompt_tokens_milli": "Weighted sum over all customers' latest prompts",
            "output_bytes_milli": "Weighted sum over all customers' latest answers",
            "output_tokens_milli": "Weighted sum over all customers' latest answers",
            "seen": "How many answers were looked at",
            "updated_at_ns": "When it was last written",
        },
    },
)
"""Four sums per channel, in thousandths, in which each new answer replaces a part of the old ones."""

ledger_proofs = Table(
    "ledger_proofs",
    SCHEMA,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("started_at_ns", BIG, nullable=False),
    Column("ended_at_ns", BIG),
    Column("findings", Integer, nullable=False),
    Column("broken", Text, nullable=False),
    CheckConstraint("findings >= 0", name="findings"),
    sqlite_strict=True,
    info={
        "purpose": "What the nightly proof of the books found",
        "category": "operation",
        "lifetime": "400 days",
        "since": "started_at_ns",
        "columns": {
            "day": "Which night",
            "started_at_ns": "When somebody began",
            "ended_at_ns": "When it was done",
            "findings": "How many things did not hold",
            "broken": "The names of the checks that found them",
        },
    },
)
"""One for each UTC day. Whoever inserts the row makes the proof; when nothing came of it for hours, another may."""

shared_rates = Table(
    "shared_rates",
    SCHEMA,
    Column("key_id", Text, ForeignKey("keys.id"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("full_at_ns", BIG, nullable=False),
    CheckConstraint("kind IN ('requests', 'tokens')", name="kind"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "Where a key stands in its limits per minute while several processes serve",
        "category": "operation",
        "lifetime": "account",
        "columns": {
            "key_id": "Which key",
            "kind": "Requests or tokens",
            "full_at_ns": "When the whole limit will be there again",
        },
    },
)
"""One bucket per key and kind, of which workers take parts ahead."""

shared_places = Table(
    "shared_places",
    SCHEMA,
    Column("key_id", Text, ForeignKey("keys.id"), primary_key=True),
    Column("worker_id", Text, ForeignKey("workers.id"), primary_key=True),
    Column("places", Integer, nullable=False),
    CheckConstraint("places >= 0", name="places"),
    Index("ix_shared_places_worker_id", "worker_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info={
        "purpose": "How many open requests of a key each process may have while several serve",
        "category": "operation",
        "lifetime": "while the process lives",
        "columns": {"key_id": "Which key", "worker_id": "Which process", "places": "How many"},
    },
)
"""Places of all workers together are never more than the key's limit."""
