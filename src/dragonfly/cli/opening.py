"""What most commands begin with: the settings and the database that they point to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from sqlalchemy import Engine

from dragonfly.app.setup import open_store
from dragonfly.settings import Settings, load_settings

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file; else DRAGONFLY_CONFIG, else dragonfly.toml here.", dir_okay=False),
]


class Opened(NamedTuple):
    """An installation whose database this version can use."""

    settings: Settings
    engine: Engine


@contextmanager
def opened(config: Path | None) -> Iterator[Opened]:
    """Settings and engine, closed at the end; SettingsInvalid, SchemaOutdated or DatabaseAway."""
    settings = load_settings(os.environ, config)
    engine = open_store(settings)
    try:
        yield Opened(settings, engine)
    finally:
        engine.dispose()
