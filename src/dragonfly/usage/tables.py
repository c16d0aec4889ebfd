"""Metered requests: one row each for 90 days, and their totals per day. Metadata only: no content, no address.

No foreign keys: rows come from policies that were read from those tables, thousands a second, and are deleted by
day, independently of what happens to their key.
"""

from sqlalchemy import CheckConstraint, Column, Index, Integer, Table, Text

from dragonfly.infra.database import BIG, SCHEMA

usage = Table(
    "usage",
    SCHEMA,
    Column("request_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("prompt_tokens", BIG, nullable=False),
    Column("completion_tokens", BIG, nullable=False),
    Column("cached_tokens", BIG, nullable=False),
    Column("cache_write_tokens", BIG, nullable=False),
    Column("reasoning_tokens", BIG, nullable=False),
    Column("cache_write_1h_tokens", BIG, nullable=False, server_default="0"),
    Column("basis", Text, nullable=False),
    Column("price_version_id", Text, nullable=False),
    Column("hold_nusd", BIG, nullable=False),
    Column("cost_nusd", BIG, nullable=False),
    Column("prompt_cost_nusd", BIG, nullable=False),
    Column("upstream_nusd", BIG, nullable=False),
    Column("absorbed_nusd", BIG, nullable=False),
    Column("group_id", Text),
    Column("outcome", Text, nullable=False),
    Column("finish_reason", Text, nullable=False),
    Column("is_streamed", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("upstream_status", Integer, nullable=False),
    Column("ttft_us", BIG, nullable=False),
    Column("duration_us", BIG, nullable=False),
    Column("day", Integer, nullable=False),
    Column("created_at_ns", BIG, nullable=False),
    CheckConstraint("cost_nusd >= 0 AND cost_nusd <= hold_nusd", name="cost"),
    CheckConstraint("upstream_nusd >= 0 AND absorbed_nusd >= 0", name="operator_cost"),
    Index("ix_usage_account_id_created_at_ns", "account_id", "created_at_ns"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""`group_id` is the ledger's group that charged it, NULL when nothing was booked. `day` counts from the epoch."""

usage_days = Table(
    "usage_days",
    SCHEMA,
    Column("key_id", Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("model", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("requests", BIG, nullable=False),
    Column("prompt_tokens", BIG, nullable=False),
    Column("completion_tokens", BIG, nullable=False),
    Column("cached_tokens", BIG, nullable=False),
    Column("reasoning_tokens", BIG, nullable=False),
    Column("cost_nusd", BIG, nullable=False),
    Index("ix_usage_days_account_id_day", "account_id", "day"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
