"""The outbox: a mail is queued with the transaction that causes it, once per key, and never with wrong values."""

import json

import pytest
from sqlalchemy import Engine, select

from dragonfly.core.ids import IdSource
from dragonfly.infra.database import read, write
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.outbox import MailAddressInvalid, MailOrder, queue_mail
from dragonfly.mail.rules import is_mail_address, mail_language
from dragonfly.mail.tables import mail_outbox
from tests.factories import START_NS, make_account

LINK = "https://dragonfly.example/verify#token=abc"


def order(**changes: object) -> MailOrder:
    values: dict[str, object] = {
        "kind": MailKind.VERIFY_EMAIL,
        "account_id": None,
        "address": "alice@example.com",
        "language": "zh-CN",
        "values": {"link": LINK, "hours": 24},
        "idempotency_key": "verify/1",
        "now_ns": START_NS,
        **changes,
    }
    return values  # type: ignore[return-value]


def test_a_queued_mail_waits_with_its_values_and_language(engine: Engine) -> None:
    alice = make_account(engine)
    with write(engine) as connection:
        queue_mail(connection, IdSource(), **order(account_id=alice))
    with read(engine) as connection:
        row = connection.execute(select(mail_outbox)).one()
    assert (row.kind, row.account_id, row.address) == ("verify_email", alice, "alice@example.com")
    assert (row.language, row.state, row.attempts, row.due_at_ns) == ("zh", "queued", 0, START_NS)
    assert json.loads(row.details) == {"link": LINK, "hours": 24}


def test_a_transaction_that_fails_sends_nothing(engine: Engine) -> None:
    with pytest.raises(RuntimeError), write(engine) as connection:
        queue_mail(connection, IdSource(), **order())
        raise RuntimeError
    with read(engine) as connection:
        assert connection.execute(select(mail_outbox)).all() == []


def test_the_same_key_queues_one_mail(engine: Engine) -> None:
    for _ in range(2):
        with write(engine) as connection:
            queue_mail(connection, IdSource(), **order())
            queue_mail(connection, IdSource(), **order(address="bob@example.com"))
    with read(engine) as connection:
        assert connection.execute(select(mail_outbox.c.address)).scalars().all() == ["alice@example.com"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"link": LINK},
        {"link": LINK, "hours": "24"},
        {"link": LINK, "hours": -1},
        {"link": LINK, "hours": True},
        {"link": LINK, "hours": 24, "balance": "5"},
        {"link": "javascript:alert(1)", "hours": 24},
        {"link": f"{LINK}\r\nBcc: bob@example.com", "hours": 24},
        {"link": "https://" + "x" * 2_000, "hours": 24},
    ],
)
def test_values_that_the_kind_does_not_take_are_a_bug(engine: Engine, values: dict[str, object]) -> None:
    with write(engine) as connection, pytest.raises(AssertionError):
        queue_mail(connection, IdSource(), **order(values=values))


BAD_ADDRESSES = [
    "",
    "alice",
    "alice@localhost",
    "@example.com",
    "alice@",
    "Alice <alice@example.com>",
    "alice@example.com, bob@example.com",
    "alice@example.com\nBcc: bob@example.com",
    "alice@example.com\r\n",
    "alice@example.com\n",
    " alice@example.com",
    "alice@exa mple.com",
    "alice@@example.com",
    ".alice@example.com",
    "alice.@example.com",
    "al..ice@example.com",
    '"alice bob"@example.com',
    "alice(comment)@example.com",
    "alice@[127.0.0.1]",
    "alice@127.0.0.1",
    "alice@-example.com",
    "alice@example-.com",
    "alice@example.com.",
    "alice@exämple.com",
    "älice@example.com",
    "alice@example.com\x00",
    "alice@example.com\u2028",
    "<alice@example.com>",
    "a" * 65 + "@example.com",
    "alice@" + "a" * 64 + ".com",
    "alice@" + "abcdefg." * 32 + "com",
]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_what_is_not_one_plain_address_is_refused(engine: Engine, address: str) -> None:
    assert not is_mail_address(address)
    with write(engine) as connection, pytest.raises(MailAddressInvalid):
        queue_mail(connection, IdSource(), **order(address=address))


@pytest.mark.parametrize(
    "address",
    [
        "alice@example.com",
        "a.l+i_c-e@mail.example.co.uk",
        "o'brien@example.com",
        "alice@xn--exmple-cua.com",
        "1@2.io",
    ],
)
def test_ordinary_addresses_are_taken(address: str) -> None:
    assert is_mail_address(address)


def test_the_nearest_language_is_chosen() -> None:
    chosen = {text: mail_language(text) for text in ("zh", "zh-CN", "ZH_tw", "zha", "en-GB", "de", "")}
    assert chosen == {"zh": "zh", "zh-CN": "zh", "ZH_tw": "zh", "zha": "en", "en-GB": "en", "de": "en", "": "en"}
    assert mail_language(None) == "en"
