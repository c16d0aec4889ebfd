"""Runs revisions with Alembic, which is loaded only by those who migrate."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def run_to_head(connection: Connection) -> None:
    """Applies what is missing, inside the caller's transaction."""
    config = Config()
    config.set_main_option("script_location", "dragonfly:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
