"""`dragonfly demo`, `serve`, `migrate` and `version`: running an installation."""

import os
import platform
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Annotated

import typer

from dragonfly import __version__
from dragonfly.app.build import serve_forever
from dragonfly.app.setup import configure, migrate_store, open_database
from dragonfly.cli.opening import ConfigFile
from dragonfly.cli.output import AsJson, show_fields, show_json, show_line
from dragonfly.core.lazily import Lazily
from dragonfly.settings import load_settings

if TYPE_CHECKING:
    from dragonfly import demo as showing
else:
    showing = Lazily("dragonfly.demo")

WORKERS_VARIABLE = "DRAGONFLY_SERVER__WORKERS"
SHOWN_PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "fastapi", "sqlalchemy")


def demo() -> None:
    """Run a complete gateway to try.

    With a simulated provider, an account with 5 USD of play money and a key; prints commands to paste. Listens on
    127.0.0.1, port 8080 or that of PORT. Everything is gone when it stops. Providers whose key is in the
    environment are served too, for real money.

    \b
    Examples:
      dragonfly demo
      PORT=9000 DEEPSEEK_API_KEY=… dragonfly demo
    """
    showing.run_demo(os.environ, show_line)


Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes that share the port; needs PostgreSQL. Else server.workers.", min=1),
]


def serve(config: ConfigFile = None, workers: Workers = None) -> None:
    """Run the gateway.

    Until SIGTERM or Ctrl-C; running answers may finish first. Settings come from dragonfly.toml and the
    environment; everything wrong with them is told at once. An empty database is set up; an older one needs
    `dragonfly migrate`. Log lines go to standard error as JSON.

    \b
    Examples:
      dragonfly serve
      DRAGONFLY_SERVER__PORT=9000 DEEPSEEK_API_KEY=… dragonfly serve
      dragonfly serve --config /etc/dragonfly/dragonfly.toml
      dragonfly serve --workers 4
    """
    given = {} if workers is None else {WORKERS_VARIABLE: str(workers)}
    serve_forever(configure({**os.environ, **given}, config))


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
