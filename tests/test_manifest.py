"""Every sentence of the privacy policy is a claim with tests that exist, and no sentence changes alone."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from dragonfly.privacy.policy import ANY_PROCESSOR, Claim, load_manifest
from dragonfly.settings import all_settings

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = load_manifest()
ACCEPTED = tomllib.loads((ROOT / "src/dragonfly/privacy/accepted.toml").read_text(encoding="utf-8"))["sentences"]
SETTINGS = {".".join(setting.path) for setting in all_settings()}
FILLED = {
    "days",
    "backup_days",
    "request_days",
    "export_days",
    "grace_days",
    "contact",
    "providers",
    "processors",
    "lockdown",
}


def name_of(claim: Claim) -> str:
    return claim.id


def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def conditions(when: str) -> set[str]:
    """Settings that a `when` names."""
    return {one.removeprefix("!").partition("=")[0] for one in when.split("|") if one and one != ANY_PROCESSOR}


@pytest.mark.parametrize("claim", MANIFEST.claims, ids=name_of)
def test_every_claim_has_a_mechanism_and_tests_that_exist(claim: Claim) -> None:
    assert claim.mechanism
    assert claim.tests
    for test in claim.tests:
        file, _, function = test.partition("::")
        assert (ROOT / file).is_file(), test
        assert function in functions_in(ROOT / file), test


@pytest.mark.parametrize("claim", MANIFEST.claims, ids=name_of)
def test_no_sentence_has_changed_without_its_claim(claim: Claim) -> None:
    assert claim.reviewed == claim.digest, f"look at mechanism and tests again, then: reviewed = {claim.digest!r}"


@pytest.mark.parametrize("claim", MANIFEST.claims, ids=name_of)
def test_every_sentence_stands_in_both_languages_with_the_same_live_values(claim: Claim) -> None:
    for words in (claim.sentence, claim.limit):
        assert bool(words.en) == bool(words.zh)
        assert re.findall(r"{(\w+)}", words.en) == re.findall(r"{(\w+)}", words.zh)
        assert set(re.findall(r"{(\w+)}", words.en)) <= FILLED
    assert re.search(r"[\u3400-\u9fff]", claim.sentence.zh)


@pytest.mark.parametrize("claim", MANIFEST.claims, ids=name_of)
def test_every_setting_that_a_claim_names_exists(claim: Claim) -> None:
    assert (set(claim.settings) | conditions(claim.when)) <= SETTINGS


def test_every_sentence_that_customers_accepted_is_carried_by_claims() -> None:
    known = {claim.id for claim in MANIFEST.claims}
    assert len(ACCEPTED) > 40
    for sentence in ACCEPTED:
        assert sentence["claims"], sentence["says"]
        assert set(sentence["claims"]) <= known, sentence["says"]


def test_ids_are_unique_and_every_claim_is_in_a_section() -> None:
    assert len({claim.id for claim in MANIFEST.claims}) == len(MANIFEST.claims)
    assert {claim.section for claim in MANIFEST.claims} == {section for section, _ in MANIFEST.sections}


def marked_as_proof(path: Path) -> set[tuple[str, str]]:
    """(test, claim) for each `@pytest.mark.proof("claim")`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.proof":
                    found |= {(node.name, ast.literal_eval(argument)) for argument in mark.args}
    return found


def test_a_test_that_is_marked_as_a_proof_is_named_by_its_claim() -> None:
    named = {(test.partition("::")[2], claim.id) for claim in MANIFEST.claims for test in claim.tests}
    marked = {pair for path in (ROOT / "tests").rglob("test_*.py") for pair in marked_as_proof(path)}
    assert marked
    assert marked <= named
