"""`dragonfly privacy`: what is kept, and the proofs that nothing else is."""

import typer

from dragonfly.cli.output import show_line
from dragonfly.privacy.datamap import data_map

privacy_commands = typer.Typer(no_args_is_help=True, help="What is kept, and the proof that nothing else is.")


@privacy_commands.command("map")
def privacy_map() -> None:
    """Print everything that is kept, said or sent: purpose, category, lifetime, legal basis.

    \b
    Example:
      dragonfly privacy map > docs/data-map.md
    """
    show_line(data_map().rstrip("\n"))
