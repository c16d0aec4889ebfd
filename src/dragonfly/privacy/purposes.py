"""Purposes of columns whose tables say only what the whole table is for."""

COMMON = {
    "id": "Names the row",
    "account_id": "Whose it is",
    "created_at_ns": "When it was made",
}
"""Of columns that mean the same everywhere."""

COLUMNS: dict[str, dict[str, str]] = {
    "mail_outbox": {
        "kind": "Which mail it is",
        "language": "In which language it is written",
        "idempotency_key": "The event that caused it, so that it is sent once",
        "state": "Whether it waits, was sent, or was given up",
        "attempts": "How often it was tried",
        "due_at_ns": "When it is tried next",
        "claim": "Which attempt may send it",
        "claimed_until_ns": "Until when",
        "failure": "Why the last attempt failed, a word from a closed list",
        "ended_at_ns": "When it was sent or given up",
    },
}

SINCE = {"mail_outbox": "created_at_ns"}
"""The column that a lifetime of days counts from, where the table does not say."""
