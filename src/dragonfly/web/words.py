"""The words of the pages, in every language: TOML tables in `words/<language>/`, looked up as "table.name".

The tables `script` and `errors` also go to browsers, as a module that the scripts import.
"""

import json
import tomllib
from collections.abc import Mapping
from importlib import resources

LANGUAGES = ("en", "zh")
TAGS = {"en": "en", "zh": "zh-Hans"}
"""As documents name their language."""
FOR_SCRIPTS = ("script", "errors")


class Words:
    """The catalogue of one language. Call it with a key and the values that stand for `{…}`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.tag = TAGS[language]
        self.tables: dict[str, dict[str, str]] = {}
        folder = resources.files("dragonfly.web") / "words" / language
        for file in sorted(folder.iterdir(), key=lambda one: one.name):
            for table, words in tomllib.loads(file.read_text("utf-8")).items():
                assert table not in self.tables, f"[{table}] stands in two files"
                self.tables[table] = words

    def __call__(self, key: str, /, **values: object) -> str:
        table, _, name = key.partition(".")
        return self.tables[table][name].format_map(values)

    @property
    def module(self) -> bytes:
        """A script that exports what scripts need, flat: {"table.name": "…"}."""
        flat = {f"{table}.{name}": text for table in FOR_SCRIPTS for name, text in self.tables[table].items()}
        return f"export default {json.dumps(flat, ensure_ascii=False)};\n".encode()


def load_words() -> Mapping[str, Words]:
    """Every language's words, read once."""
    return {language: Words(language) for language in LANGUAGES}
