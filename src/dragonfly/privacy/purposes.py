"""Purposes of columns whose tables say only what the whole table is for."""

COMMON = {
    "id": "Names the row",
    "account_id": "Whose it is",
    "created_at_ns": "When it was made",
}
"""Of columns that mean the same everywhere."""

COLUMNS: dict[str, dict[str, str]] = {}
