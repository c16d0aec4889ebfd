"""The privacy policy: sentences from manifest.toml, shown as far as this installation's settings make them true."""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from pydantic import BaseModel, SecretStr

from dragonfly.settings import Settings

LANGUAGES = ("en", "zh")
DIGEST_LENGTH = 16
ANY_PROCESSOR = "any-processor"


@dataclass(frozen=True, slots=True)
class Words:
    """The same in each language."""

    en: str
    zh: str

    def get(self, language: str) -> str:
        return self.zh if language == "zh" else self.en


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of the policy, and why it is true."""

    id: str
    section: str
    sentence: Words
    limit: Words
    """What the sentence does not promise; often empty."""
    mechanism: str
    when: str
    """A setting that must be set for the sentence to be shown; "" for always."""
    settings: tuple[str, ...]
    tests: tuple[str, ...]
    """path::name of the tests that prove it."""
    reviewed: str
    """The digest of the sentence that mechanism and tests were chosen for."""

    @property
    def digest(self) -> str:
        """Of the sentence as it stands."""
        said = "\n".join((self.sentence.en, self.sentence.zh, self.limit.en, self.limit.zh))
        return hashlib.sha256(said.encode()).hexdigest()[:DIGEST_LENGTH]


@dataclass(frozen=True, slots=True)
class Processor:
    """Somebody who receives data while a setting is set."""

    name: str
    when: str
    what: Words
    policy_url: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole policy."""

    version: str
    contact: str
    sections: tuple[tuple[str, Words], ...]
    claims: tuple[Claim, ...]
    processors: tuple[Processor, ...]


def load_manifest() -> Manifest:
    """The manifest that comes with the package."""
    text = (resources.files("dragonfly.privacy") / "manifest.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    return Manifest(
        version=tables["version"],
        contact=tables["contact"],
        sections=tuple((one["id"], Words(one["en"], one["zh"])) for one in tables["sections"]),
        claims=tuple(_claim(one) for one in tables["claims"]),
        processors=tuple(
            Processor(one["name"], one["when"], Words(one["en"], one["zh"]), one["policy_url"])
            for one in tables["processors"]
        ),
    )


def _claim(table: Mapping[str, str | list[str]]) -> Claim:
    return Claim(
        id=str(table["id"]),
        section=str(table["section"]),
        sentence=Words(str(table["en"]), str(table["zh"])),
        limit=Words(str(table.get("limit_en", "")), str(table.get("limit_zh", ""))),
        mechanism=str(table["mechanism"]),
        when=str(table.get("when", "")),
        settings=tuple(table.get("settings", ())),
        tests=tuple(table["tests"]),
        reviewed=str(table["reviewed"]),
    )


def is_set(settings: Settings, condition: str) -> bool:
    """Whether a `when` holds: "a.b" is set, "a.b=c" has that value, "!a.b" is not set, "x|y" one of them does."""
    if "|" in condition:
        return any(is_set(settings, one) for one in condition.split("|"))
    if condition.startswith("!"):
        return not is_set(settings, condition[1:])
    path, _, wanted = condition.partition("=")
    value = _value_at(settings, path)
    return value == wanted if wanted else bool(value)


def _value_at(section: BaseModel, path: str) -> object:
    """The value of a setting; None for one that this version does not have."""
    value: object = section
    for name in path.split("."):
        value = getattr(value, name, None)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def enabled_processors(manifest: Manifest, settings: Settings) -> tuple[Processor, ...]:
    """Who receives data in this installation, besides providers of models."""
    return tuple(one for one in manifest.processors if is_set(settings, one.when))


def shown_claims(manifest: Manifest, settings: Settings, section: str) -> Sequence[Claim]:
    """The sentences of a section that are true here."""
    has_processor = bool(enabled_processors(manifest, settings))
    return [
        claim
        for claim in manifest.claims
        if claim.section == section
        and (not claim.when or (has_processor if claim.when == ANY_PROCESSOR else is_set(settings, claim.when)))
    ]
