"""`dragonfly migrate` and `version`: running an installation."""

import os
import platform
from importlib.metadata import version as version_of

from dragonfly import __version__
from dragonfly.app.setup import migrate_store, open_database
from dragonfly.cli.opening import ConfigFile
from dragonfly.cli.output import AsJson, show_fields, show_json, show_line
from dragonfly.settings import load_settings

SHOWN_PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "fastapi", "sqlalchemy")


def migrate(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Bring the database to the schema of this version. Back it up first.

    \b
    Example:
      dragonfly migrate
    """
    settings = load_settings(os.environ, config)
    engine = open_database(settings)
    try:
        revision = migrate_store(settings, engine)
    finally:
        engine.dispose()
    if as_json:
        show_json({"revision": revision})
    else:
        show_line(f"The database has the schema {revision}.")


def version(as_json: AsJson = False) -> None:
    """Print the versions of Dragonfly and its parts.

    \b
    Example:
      dragonfly version --json
    """
    versions = {"dragonfly": __version__, "python": platform.python_version()}
    versions |= {name: version_of(name) for name in SHOWN_PACKAGES}
    if as_json:
        show_json(versions)
    else:
        show_fields(versions)
