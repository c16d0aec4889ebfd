"""The words of the pages: the same keys in every language, none missing, none left over."""

import re
from pathlib import Path

import pytest

from dragonfly.web.words import FOR_SCRIPTS, Words, load_words

WEB = Path(__file__).resolve().parents[2] / "src/dragonfly/web"
ENGLISH, CHINESE = (load_words()[language] for language in ("en", "zh"))


def keys_of(words: Words) -> dict[str, set[str]]:
    """Each key with the names that stand in `{…}`."""
    return {
        f"{table}.{name}": set(re.findall(r"\{(\w+)\}", text))
        for table, entries in words.tables.items()
        for name, text in entries.items()
    }


def test_both_languages_have_the_same_words_with_the_same_gaps() -> None:
    assert keys_of(ENGLISH) == keys_of(CHINESE)


def test_no_word_is_left_empty_or_untranslated() -> None:
    for key in keys_of(ENGLISH):
        assert ENGLISH(key, **dict.fromkeys(keys_of(ENGLISH)[key], "x")).strip(), key
    same = {key for key in keys_of(ENGLISH) if raw(ENGLISH, key) == raw(CHINESE, key)}
    assert same == set()


def raw(words: Words, key: str) -> str:
    table, _, name = key.partition(".")
    return words.tables[table][name]


@pytest.mark.parametrize("path", sorted((WEB / "static").glob("*.js")), ids=lambda path: path.name)
def test_scripts_use_words_that_browsers_get(path: Path) -> None:
    for key in re.findall(r'\bword\(\s*"([\w.]+)"', path.read_text()):
        assert key in keys_of(ENGLISH), key
        assert key.split(".")[0] in FOR_SCRIPTS, key


@pytest.mark.parametrize("path", sorted((WEB / "static").glob("*.js")), ids=lambda path: path.name)
def test_scripts_write_no_html_and_load_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert not re.search(r"[\"'`]https?://(?!www\.w3\.org/2000/svg)", text)
    assert text.startswith("// "), "says what it is for"
    assert len(text.splitlines()) < 400


@pytest.mark.parametrize("path", sorted((WEB / "templates").glob("*.html")), ids=lambda path: path.name)
def test_templates_use_words_that_exist(path: Path) -> None:
    for key in re.findall(r"\bt\('([\w.]+)'[,)]", path.read_text()):
        assert key in keys_of(ENGLISH), key


def test_every_word_is_used() -> None:
    used = "".join(path.read_text() for folder in ("static", "templates") for path in (WEB / folder).glob("*.*"))
    used += "".join(path.read_text() for path in WEB.glob("*.py"))
    begun = re.findall(r"`([a-z]+\.\w*)\$\{", used) + re.findall(r"t\('([a-z_]+\.\w*)' ~", used)
    assert "errors." in begun, "errors are looked up by the codes of answers"
    unused = {key for key in keys_of(ENGLISH) if key not in used and not key.startswith(tuple(begun))}
    assert unused == set()
