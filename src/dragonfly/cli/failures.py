"""How commands fail: one sentence on standard error and an exit code; never a traceback."""

import sys
from collections.abc import Callable
from typing import NoReturn

from dragonfly.core.errors import DragonflyError
from dragonfly.infra.logging import describe

REFUSED = 1
"""The command could not do what was asked, or a check found something."""
USAGE = 2
"""Wrong arguments; Typer's own code."""
SETTINGS = 3
"""The settings or the catalogue's tables are wrong."""
UNAVAILABLE = 4
"""The database is away, or needs `dragonfly migrate`."""
BUG = 70
"""A fault in Dragonfly itself."""

OPERATORS_WORDS = {
    "store_unavailable": "The database cannot be reached, is locked or is damaged. Check database_url and data_dir.",
}
"""Errors whose own sentence is written for customers."""

EXIT_CODES = {
    "settings_invalid": SETTINGS,
    "catalog_invalid": SETTINGS,
    "lockdown_unavailable": SETTINGS,
    "store_unavailable": UNAVAILABLE,
    "schema_outdated": UNAVAILABLE,
}


def run(commands: Callable[[], object]) -> NoReturn:
    """Runs the command line and ends the process."""
    try:
        commands()
    except DragonflyError as error:
        sys.stderr.write(OPERATORS_WORDS.get(error.code, error.message) + "\n")
        sys.exit(EXIT_CODES.get(error.code, REFUSED))
    except Exception as failure:
        described = describe(failure)
        place = described.frames[-1] if described.frames else "an unknown place"
        sys.stderr.write(f"Dragonfly failed: {described.exceptions[0]} at {place}. Please report this.\n")
        sys.exit(BUG)
    sys.exit(0)
