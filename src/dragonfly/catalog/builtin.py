"""The catalogue that comes with the package: one TOML file per provider, and one of calendars."""

import tomllib
from dataclasses import dataclass
from importlib import resources

from pydantic import ValidationError

from dragonfly.catalog.errors import CatalogInvalid, sentences
from dragonfly.catalog.schema import BuiltinFile, CalendarTable, ModelTable, ProviderTable

FILES = (
    "calendars",
    "deepseek",
    "moonshotai",
    "alibaba",
    "z-ai",
    "minimax",
    "openai",
    "anthropic",
    "google-ai-studio",
    "xai",
    "mistral",
    "groq",
    "together",
)
"""In the order in which models are listed."""


@dataclass(frozen=True, slots=True)
class Builtin:
    """Everything that the package knows, enabled or not."""

    providers: dict[str, ProviderTable]
    models: tuple[tuple[str, ModelTable], ...]
    """(provider slug, model), in the order of the files."""
    calendars: dict[str, CalendarTable]


def load_builtin() -> Builtin:
    """The packaged files. Raises CatalogInvalid when one is damaged: nothing is sold from half a catalogue."""
    folder = resources.files("dragonfly.catalog") / "data"
    files = [(name, (folder / f"{name}.toml").read_text(encoding="utf-8")) for name in FILES]
    return parse_builtin(files)


def parse_builtin(files: list[tuple[str, str]]) -> Builtin:
    """(name, TOML text) of every file -> the catalogue."""
    providers: dict[str, ProviderTable] = {}
    models: list[tuple[str, ModelTable]] = []
    calendars: dict[str, CalendarTable] = {}
    problems: list[str] = []
    for name, text in files:
        try:
            file = BuiltinFile.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError:
            problems.append(f"{name}.toml: is not valid TOML.")
            continue
        except ValidationError as invalid:
            problems += sentences(invalid, f"{name}.toml")
            continue
        calendars |= {calendar.name: calendar for calendar in file.calendars}
        if file.provider is not None:
            providers[file.provider.slug] = file.provider
            models += [(file.provider.slug, model) for model in file.models]
    if problems:
        raise CatalogInvalid(tuple(problems))
    return Builtin(providers, tuple(models), calendars)
