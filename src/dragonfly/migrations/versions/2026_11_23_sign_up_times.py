"""An index to count the sign-ups of an hour, and to forget old ones."""

from alembic import op

revision = "2026_11_23_sign_up_times"
down_revision = "2026_11_23_watch"


def upgrade() -> None:
    """One index."""
    op.create_index("ix_sign_ups_created_at_ns", "sign_ups", ["created_at_ns"])
