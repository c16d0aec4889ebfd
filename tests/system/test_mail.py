"""Mail of the real program: queued by a request, sent by the server, told by the commands."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.fakes.resend import API_KEY, FakeResend
from tests.system.program import Program

WAIT_S = 20.0
SETTINGS = """\
[server]
port = 0
public_url = "https://api.example.com"
[catalog]
builtin = false
[mail]
transport = "resend"
from_address = "hello@mail.example.com"
operator_address = "ops@example.com"
resend_url = "{url}"
"""
TICKET = json.dumps({"address": "alice@example.com", "kind": "question", "text": "Hello?", "language": "zh"}).encode()


@pytest.fixture
def resend() -> Iterator[FakeResend]:
    with FakeResend().running() as fake:
        yield fake


@pytest.fixture
def mailing(program: Program, resend: FakeResend) -> Program:
    """A folder whose settings send by Resend; the key stands in a file."""
    (program.folder / "resend-key").write_text(API_KEY + "\n")
    (program.folder / "dragonfly.toml").write_text(SETTINGS.format(url=resend.url))
    return program


def key_of(program: Program) -> dict[str, str]:
    """The variable that names the file."""
    return {"DRAGONFLY_MAIL__RESEND_API_KEY_FILE": str(program.folder / "resend-key")}


async def post(port: int, path: str, body: bytes) -> bytes:
    """The whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    async with asyncio.timeout(WAIT_S):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_ticket_is_acknowledged_by_mail_and_the_outbox_tells(mailing: Program, resend: FakeResend) -> None:
    async with mailing.running("serve", **key_of(mailing)) as running:
        port = json.loads(await running.until('"started"', errors=True))["port"]
        assert b" 202 " in await post(port, "/api/support", TICKET)
        async with asyncio.timeout(WAIT_S):
            while len(resend.mails) < 2:
                await asyncio.sleep(0.02)
    assert {mail["to"][0] for mail in resend.mails} == {"alice@example.com", "ops@example.com"}
    assert len(set(resend.keys)) == len(resend.keys) == 2
    listed = json.loads(mailing.run("mail", "outbox", "--json", **key_of(mailing)).output)
    assert {(row["kind"], row["state"], row["attempts"]) for row in listed} == {
        ("ticket_opened", "sent", 1),
        ("operator_alert", "sent", 1),
    }
    assert mailing.run("mail", "outbox", "--state", "dead", "--json", **key_of(mailing)).output.strip() == "[]"
    assert "alice@example.com" in mailing.run("mail", "outbox", **key_of(mailing)).output


def test_a_test_mail_goes_out_or_says_why_not(mailing: Program, resend: FakeResend) -> None:
    mailing.run("migrate", **key_of(mailing))
    sent = mailing.run("mail", "test", "alice@example.com", "--language", "zh", **key_of(mailing))
    assert (sent.code, sent.output) == (0, "Handed over by resend.\n")
    assert resend.mails[0]["to"] == ["alice@example.com"]
    (mailing.folder / "resend-key").write_text("re_wrong")
    refused = mailing.run("mail", "test", "alice@example.com", **key_of(mailing))
    assert (refused.code, refused.output) == (1, "")
    assert "configuration_refused" in refused.errors
    assert mailing.run("mail", "test", "alice@example.com, bob@example.com", **key_of(mailing)).code == 1
    assert mailing.run("mail", "outbox", "--state", "lost", **key_of(mailing)).code == 2
    allowed = mailing.run("mail", "allow", "alice@example.com", **key_of(mailing))
    assert allowed.output == "Nothing kept mail from that address.\n"


def test_without_settings_mail_is_shown_and_not_sent(program: Program) -> None:
    program.run("migrate")
    shown = program.run("mail", "test", "alice@example.com").output
    assert "mail to alice@example.com: A test mail from Dragonfly" in shown
    assert shown.endswith("Handed over by console.\n")
