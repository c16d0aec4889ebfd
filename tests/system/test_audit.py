"""The audit finds nothing in Dragonfly, and finds what is planted: it can tell the two apart."""

import contextlib
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dragonfly.privacy.audit.decoys import missed_decoys
from dragonfly.privacy.audit.instance import Instance, Wishes
from dragonfly.privacy.audit.matrix import exchange
from dragonfly.privacy.audit.needles import needles_for
from dragonfly.privacy.audit.places import Search
from dragonfly.privacy.audit.provider import EchoingProvider, Ending
from dragonfly.privacy.audit.report import as_json, as_text, signed_report
from dragonfly.privacy.audit.run import Plan, audit, search_everywhere
from dragonfly.privacy.audit.shapes import FORWARDED, REFUSED, Ask
from dragonfly.privacy.signing import public_key_of
from tests.postgres import postgres_database
from tests.reports import a_report
from tests.system.leaky_process import LEAKS

LEAKY = Path(__file__).with_name("leaky_process.py")
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_nothing_is_found_in_dragonfly(database: str, request: pytest.FixtureRequest) -> None:
    with contextlib.ExitStack() as stack:
        # A server of its own: what other tests leave in a shared one would be searched too.
        server = request.getfixturevalue("own_postgresql") if database == "postgresql" else None
        url = stack.enter_context(postgres_database(server.url)) if server else ""
        report = audit(Plan(is_reduced=True, database_url=url))
    assert report.is_clean, as_text(report)
    assert report.database == database
    assert report.not_seen == ()
    journal = "PostgreSQL pg_wal" if server else "folder"
    assert report.areas[journal][1] > 100_000
    assert report.shapes >= 12
    assert report.endings >= 20
    assert report.places > 10
    assert report.statuses["200"] > 0


def test_the_matrix_has_the_size_that_is_promised() -> None:
    assert len(FORWARDED) >= 12
    assert len(Ending) >= 20
    assert len(FORWARDED) + len(REFUSED) >= 40


def test_the_search_finds_a_word_in_every_form_and_place(tmp_path: Path) -> None:
    planted, missed = missed_decoys(tmp_path)
    assert missed == []
    assert planted >= 20


def test_the_search_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    search = Search((("word", needles_for(secrets.token_hex(12))),))
    (tmp_path / "random").write_bytes(secrets.token_bytes(2_000_000))
    search.look_below("folder", tmp_path)
    assert (search.hits, search.places_seen) == ([], 1)


class Planted:
    """A leaky instance, and the canary that each leak was given."""

    def __init__(self, instance: Instance, since_s: float) -> None:
        self.instance = instance
        self.since_s = since_s
        self.canaries: dict[str, str] = {}
        self.seen_running: set[str] = set()

    async def leak(self, name: str) -> None:
        """One request; the process takes its next leak."""
        canary = self.canaries[name] = secrets.token_hex(12)
        ask = Ask(canary, f"audit/{Ending.COMPLETE.value}", self.instance.key, "127.0.0.1")
        await exchange(self.instance.where, FORWARDED["plain"](ask))

    def search(self) -> Search:
        return Search(tuple((name, needles_for(canary)) for name, canary in self.canaries.items()))


def remove_what_was_left(names: Path) -> None:
    for name in names.read_text().split():
        Path(name).unlink(missing_ok=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def planted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Planted]:
    folder = tmp_path_factory.mktemp("leaky")
    (folder / "work").mkdir()
    (folder / "credential").write_text("a-credential-of-nobody")
    async with EchoingProvider() as provider:
        program = (sys.executable, str(LEAKY))
        instance = Instance(Wishes(folder / "work", provider.port, folder / "credential", program=program))
        one = Planted(instance, time.time())
        await instance.set_up()
        async with instance.serving(lockdown="off"):
            for name in LEAKS:
                if name != "core":
                    await one.leak(name)
            search = one.search()
            assert instance.process is not None
            search.look_at_process(instance.process.pid)
            one.seen_running = search.found
            await instance.end(signal.SIGKILL)
        yield one
    remove_what_was_left(instance.data / "remove")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def found(planted: Planted) -> set[str]:
    search = planted.search()
    search.hits_max = 100_000
    search_everywhere(search, planted.instance, planted.since_s)
    return search.found | planted.seen_running


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in LEAKS if name != "core"])
def test_a_planted_leak_is_found(found: set[str], name: str) -> None:
    assert name in found


@pytest.mark.skipif(not CORE_PATTERN.is_file() or CORE_PATTERN.read_text()[:1] in "|/", reason="cores go elsewhere")
async def test_a_core_is_found(tmp_path: Path) -> None:
    """What a process without lock-down leaves when it aborts."""
    (tmp_path / "work").mkdir()
    (tmp_path / "credential").write_text("a-credential-of-nobody")
    instance = Instance(Wishes(tmp_path / "work", 9, tmp_path / "credential", program=(sys.executable, str(LEAKY))))
    await instance.set_up()
    (tmp_path / "work/core-please").touch()
    async with instance.serving(lockdown="off"):
        one = Planted(instance, time.time())
        await one.leak("core")
    search = one.search()
    search.look_below("folder", tmp_path / "work")
    assert {hit.place for hit in search.hits} >= {"folder: core"}


KEY = b"a key for reports in tests"


@pytest.mark.parametrize(
    "change", [{"hits": ("a file",)}, {"hits_beyond": 1}, {"decoys_missed": ("a",)}, {"cases": 0}]
)
def test_a_report_with_a_find_a_missed_decoy_or_no_case_is_not_clean(change: dict[str, object]) -> None:
    assert a_report().is_clean
    assert not a_report(**change).is_clean
    assert "NOT CLEAN" in as_text(a_report(**change))


def test_a_signed_report_is_recognised_and_a_changed_one_is_not() -> None:
    text = as_json(a_report(hits=("a file",)), KEY)
    public_key = public_key_of(KEY)
    found = signed_report(text, public_key)
    assert found is not None
    assert found["clean"] is False
    assert signed_report(text.replace("a file", "a fine"), public_key) is None
    assert signed_report(text, public_key_of(b"another key")) is None
    assert signed_report("{}", public_key) is None


def test_at_least_20_leaks_are_planted() -> None:
    assert len(LEAKS) >= 20
