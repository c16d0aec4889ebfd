"""Purposes of columns whose tables say only what the whole table is for."""

COMMON = {
    "id": "Names the row",
    "account_id": "Whose it is",
    "created_at_ns": "When it was made",
}
"""Of columns that mean the same everywhere."""

COLUMNS: dict[str, dict[str, str]] = {}

SINCE: dict[str, str] = {"repeats": "created_at_ns"}
"""The column that a lifetime of days counts from, where the table does not say."""
