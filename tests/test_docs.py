"""The documents say what the code does: names in them exist, and what exists is in them."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr

from dragonfly.app.setup import configure
from dragonfly.cli import commands
from dragonfly.core.errors import DragonflyError
from dragonfly.gateway.refusals import SHAPES
from dragonfly.settings import CONFIG_VARIABLE, Setting, Settings, all_settings, load_settings
from tests.events import all_modules, declared_events

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE_TOML = ROOT / "dragonfly.example.toml"
EXAMPLE_ENV = ROOT / ".env.example"


def uncommented(text: str) -> str:
    """An example file with each `# name = value` line made real."""
    return re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)


def default_of(setting: Setting) -> object:
    value: object = Settings()
    for name in setting.path:
        value = getattr(value, name)
    return value


def test_the_example_file_is_read_as_it_stands() -> None:
    assert load_settings({}, EXAMPLE_TOML) == Settings()


def test_the_example_file_shows_every_setting_once_with_its_default(tmp_path: Path) -> None:
    text = uncommented(EXAMPLE_TOML.read_text())
    tables = tomllib.loads(text)
    shown = {
        ("", name) if not isinstance(value, dict) else (name, inner)
        for name, value in tables.items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    known = {setting.path if len(setting.path) == 2 else ("", *setting.path) for setting in all_settings()}
    assert shown == known
    (tmp_path / "all.toml").write_text(re.sub(r'^ca_file = "…".*$', "", text, flags=re.MULTILINE))
    assert load_settings({}, tmp_path / "all.toml") == Settings()


def test_the_example_environment_shows_every_variable_with_its_default() -> None:
    lines = re.findall(r"^# (DRAGONFLY_\w+)=(.*)$", EXAMPLE_ENV.read_text(), re.MULTILINE)
    shown = dict(lines)
    assert len(shown) == len(lines), "a variable stands there twice"
    settings = {setting.variable: setting for setting in all_settings()}
    files = {name + "_FILE" for name, setting in settings.items() if setting.is_secret}
    assert set(shown) == {*settings, *files, CONFIG_VARIABLE}
    given = {name: value for name, value in shown.items() if value and name != CONFIG_VARIABLE}
    assert load_settings(given, EXAMPLE_TOML) == Settings()
    for name in set(settings) - set(given):
        assert not str(default_of(settings[name]) or "").strip("()*"), f"{name} has a default that is not shown"


@pytest.mark.parametrize("line", re.findall(r"^[^#\n].*$", EXAMPLE_ENV.read_text(), re.MULTILINE) or [""])
def test_the_example_environment_sets_nothing_by_itself(line: str) -> None:
    assert line == ""


DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")})
WITH_COMMANDS = [path for path in DOCUMENTS if path.name not in ("STYLE.md", "CHANGELOG.md")]
INSTALLED_ELSEWHERE = ("/", "~", "http", "#", "mailto:")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def table_rows(path: Path, columns: int) -> list[tuple[str, ...]]:
    """The rows of a document's tables whose first cell is code."""
    lines = (line.strip().strip("|").split(" | ") for line in path.read_text().splitlines() if line.startswith("| `"))
    return [tuple(cell.strip() for cell in cells) for cells in lines if len(cells) >= columns]


def toml_of(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple):
        return "[]"
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return "none" if value is None else f'"{text}"'


def test_the_page_about_settings_has_each_with_its_default() -> None:
    rows = table_rows(ROOT / "docs/operate/configure.md", 3)
    shown = {row[0].strip("`"): row[1].strip("`") for row in rows}
    assert len(shown) == len(rows)
    assert shown == {".".join(setting.path): toml_of(default_of(setting)) for setting in all_settings()}


def test_every_variable_that_a_document_names_exists() -> None:
    known = {setting.variable for setting in all_settings()} | {CONFIG_VARIABLE}
    known |= {setting.variable + "_FILE" for setting in all_settings() if setting.is_secret}
    for path in DOCUMENTS:
        named = set(re.findall(r"\bDRAGONFLY_[A-Z_]+\b", path.read_text()))
        assert named <= known, f"{path.name} names {named - known}"


def test_every_setting_that_a_document_names_exists() -> None:
    known = {".".join(setting.path) for setting in all_settings()}
    sections = {name.split(".")[0] for name in known if "." in name}
    for path in DOCUMENTS:
        named = {
            f"{section}.{name}"
            for section, name in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]*)?`", path.read_text())
            if section in sections
        }
        assert named <= known, f"{path.name} names {named - known}"


def all_errors(base: type[DragonflyError] = DragonflyError) -> set[type[DragonflyError]]:
    """The program's own errors, without those that tests declare."""
    inner = {error for child in base.__subclasses__() for error in all_errors(child)}
    return {error for error in (base, *inner) if error.__module__.startswith("dragonfly.")}


def test_the_table_of_errors_has_every_code_with_its_status() -> None:
    rows = table_rows(ROOT / "docs/use/errors.md", 4)
    shown = {row[0].strip("`"): int(row[1]) for row in rows}
    assert len(shown) == len(rows)
    for code, shape in SHAPES.items():
        assert shown.get(code) == shape.status, f"{code} is {shape.status}"
    assert list(all_modules())
    others = {
        error.code: error.status for error in all_errors() if error.code not in SHAPES and hasattr(error, "status")
    }
    assert set(shown) - set(SHAPES) == set(others)
    assert all(shown[code] == status for code, status in others.items())


def test_the_page_about_logs_has_every_event_with_its_level_and_fields() -> None:
    rows = table_rows(ROOT / "docs/operate/logs.md", 4)
    shown = {row[0].strip("`"): (row[1], sorted(re.findall(r"`(\w+)`", row[3]))) for row in rows}
    assert shown == {event.name: (event.level.name.lower(), sorted(event.fields)) for event in declared_events()}


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name_of)
def test_every_command_that_a_document_names_exists(path: Path) -> None:
    for words in re.findall(r"(?:^|[`\s/])dragonfly((?: [a-z]+)+)", code_of(path)):
        assert command_exists(words.split()), f"dragonfly{words}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"\bmake ([a-z][a-z-]+)\b", code_of(path)):
        assert target in targets, f"make {target}"


def code_of(path: Path) -> str:
    """What stands as code in a document: indented or fenced blocks, and spans between back-quotes."""
    text = path.read_text()
    blocks = re.findall(r"^(?: {4}|\t).*$", text, re.MULTILINE) + re.findall(r"^```.*?^```$", text, re.M | re.S)
    return "\n".join(blocks + re.findall(r"`[^`\n]+`", text))


def command_exists(words: list[str]) -> bool:
    """`words` begin with a command of the program, or with a group and one of its commands."""
    tops = {command.name or command.callback.__name__ for command in commands.registered_commands if command.callback}
    groups = {group.name: group.typer_instance for group in commands.registered_groups}
    if words[0] in tops:
        return True
    group = groups.get(words[0])
    if group is None or len(words) < 2:
        return group is not None
    return words[1] in {command.name for command in group.registered_commands}


def test_every_command_is_in_a_document() -> None:
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    for command in commands.registered_commands:
        assert command.callback is not None
        assert f"dragonfly {command.name or command.callback.__name__}" in text
    for group in commands.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert f"dragonfly {group.name} {command.name}" in text


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_and_file_name_in_a_document_leads_somewhere(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(INSTALLED_ELSEWHERE):
            assert (path.parent / target).exists(), target
    for name in re.findall(r"`((?:src|tests|docs|bench)/[\w./-]*|[\w-]+/[\w/-]+\.py)`", text):
        assert (ROOT / name).exists() or (ROOT / "src/dragonfly" / name).exists(), name


def test_the_provider_that_the_readme_configures_is_offered(tmp_path: Path) -> None:
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", (ROOT / "README.md").read_text(), re.MULTILINE)
    (block,) = [block for block in blocks if "[providers." in block]
    (tmp_path / "dragonfly.toml").write_text(re.sub(r"^ {4}", "", block, flags=re.MULTILINE))
    catalog = configure({}, tmp_path / "dragonfly.toml").catalog
    assert catalog.names() == ("local/llama-3.3-70b",)
    assert [provider.slug for provider in catalog.providers()] == ["ollama"]


def test_decisions_are_numbered_without_gaps_and_have_a_page_each() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    for number, page in enumerate(pages, start=1):
        assert page.name.startswith(f"{number:04d}-")
        text = page.read_text()
        assert text.startswith(f"# {number}. ")
        assert "\nStatus: " in text
        assert len(text.splitlines()) <= 80


def test_the_ladder_in_the_architecture_is_the_one_that_is_checked() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    existing = {path.stem for path in (ROOT / "src/dragonfly").iterdir()}
    checked = [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]]
    standing = [[name for name in layer if name in existing] for layer in checked]
    text = (ROOT / "ARCHITECTURE.md").read_text().split("## The import ladder")[1].split("\n## ")[0]
    shown = [line.split("  ")[2].split(" | ") for line in text.splitlines() if line.startswith("    ")]
    assert shown == [layer for layer in standing if layer]
