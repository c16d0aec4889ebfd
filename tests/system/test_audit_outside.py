"""The audit of a deployment from outside: a living one passes, one that keeps something fails."""

import json

import pytest

from dragonfly.privacy.audit.instance import AuditFailed
from dragonfly.privacy.audit.outside import Faults, OutsidePlan, audit_from_outside
from tests.fakes.upstream import Received, Script
from tests.system.program import Program
from tests.system.served import MODEL, Served, served, well


def arguments(one: Served, *more: str) -> tuple[str, ...]:
    return ("privacy", "audit", "--url", f"http://127.0.0.1:{one.port}", "--key", one.key, "--model", MODEL, *more)


async def audited(one: Served, *more: str) -> tuple[int, dict[str, object]]:
    """The command in a process of its own, as anybody would run it: its exit code and its report."""
    async with one.program.running(*arguments(one, "--json", *more)) as running:
        output, errors = await running.process.communicate()
    assert b"Traceback" not in errors, errors.decode()
    assert running.process.returncode is not None
    return running.process.returncode, json.loads(output)["report"]


@pytest.mark.slow
async def test_a_living_deployment_is_audited_from_outside_and_in_its_data(program: Program) -> None:
    async with served(program) as one:
        data = one.database.parent
        code, report = await audited(one, "--look", str(data), "--database-url", f"sqlite:///{one.database}")
        assert (code, report["hits"]) == (0, [])
        assert isinstance(report["shapes"], int)
        assert report["shapes"] >= 40
        assert isinstance(report["areas"], dict)
        assert {"pages", "heads of answers", "errors", str(data), "rows of the database"} <= set(report["areas"])
        assert report["decoys_missed"] == []


@pytest.mark.slow
async def test_a_word_that_a_deployment_keeps_is_found_and_its_folder_is_named(program: Program) -> None:
    kept = program.folder / "kept"
    kept.mkdir()

    def keeps(request: Received) -> Script:
        (kept / "heard").write_bytes(request.body)
        return well(request)

    async with served(program, keeps) as one:
        code, report = await audited(one, "--look", str(kept))
        assert code == 1
        assert any("kept: heard" in hit for hit in report["hits"])  # type: ignore[attr-defined]


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (head("HTTP/1.1 200 OK", "Cache-Control: no-store", "Set-Cookie: a=b"), "a cookie is set"),
        (head("HTTP/1.1 200 OK"), "a cache may keep it"),
        (head("HTTP/1.1 404 Not Found", "cache-control: public, max-age=60"), "a cache may keep it"),
    ],
)
def test_a_careless_head_is_a_fault(answer: bytes, fault: str) -> None:
    faults = Faults()
    faults.look_at_head("plain", answer)
    faults.look_at_head("stream", answer)
    assert faults.found == [f"{fault}: plain"]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (head("HTTP/1.1 404 Not Found"), "a page is missing"),
        (head("HTTP/1.1 200 OK", "Content-Type: text/html"), "a page has no strict Content-Security-Policy"),
    ],
)
def test_a_careless_page_is_a_fault(answer: bytes, fault: str) -> None:
    faults = Faults()
    faults.look_at_page("/privacy", answer)
    assert faults.found == [f"{fault}: /privacy"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "ftp://example.com", "http://127.0.0.1:port"])
def test_an_address_where_nothing_answers_proves_nothing(url: str) -> None:
    with pytest.raises(AuditFailed):
        audit_from_outside(OutsidePlan(url, "", ""))
