"""What is kept about somebody can be handed over and erased; the books hold without them."""

import csv
import io
import json
import zipfile

import pytest
from sqlalchemy import Engine, select, update

from dragonfly.accounts.actions import AccountNotFound
from dragonfly.accounts.tables import accounts
from dragonfly.admission.errors import InvalidKey
from dragonfly.admission.verify import verify
from dragonfly.core.ids import AccountId
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import read, write
from dragonfly.keys.tables import keys
from dragonfly.ledger.tables import wallets
from dragonfly.mail.kinds import MailKind
from dragonfly.mail.rules import are_right
from dragonfly.privacy.certificates import certificate_text, is_genuine, signed_certificate
from dragonfly.privacy.erasure import STAYS_WHY, Certificate, ErasureRefused, Stays, erase_account, is_deleted
from dragonfly.privacy.export import Export, shown_columns
from dragonfly.privacy.inventory import Category, personal_tables
from dragonfly.privacy.ownership import OWNED_BY_NOBODY, owned_tables, rows_of, unowned_tables
from dragonfly.privacy.signing import public_key_of
from tests.factories import Customer, MovableClock, make_customer, make_key
from tests.store.desk import running_desk

NOBODY = AccountId("acc-nobody")
FORMULA = "=HYPERLINK(1)"


async def a_customer(engine: Engine, clock: MovableClock) -> Customer:
    """Alice with a request behind her, and names that a spreadsheet would run."""
    alice, bob = make_customer(engine, name=FORMULA), make_customer(engine, name="Bob")
    make_key(engine, alice.account_id)
    async with running_desk(engine, clock) as desk:
        for customer in (alice, bob):
            await desk.settle_durably(await desk.admit(await desk.ask(customer)), TokenUsage(10, 20))
    with write(engine) as connection:
        connection.execute(
            update(accounts).where(accounts.c.id == alice.account_id).values(email="alice@example.com")
        )
    return alice


def test_every_table_with_data_of_people_leads_to_its_account_or_says_why_not() -> None:
    for table, _ in owned_tables():
        assert rows_of(table, NOBODY) is not None
    assert {table.name for table, _ in personal_tables()} == {table.name for table, _ in owned_tables()} | set(
        OWNED_BY_NOBODY
    )
    assert unowned_tables() == set()


async def test_an_export_holds_every_row_of_the_account_and_nobody_elses(engine: Engine, clock: MovableClock) -> None:
    alice = await a_customer(engine, clock)
    with read(engine) as connection:
        exported = Export(connection, alice.account_id, now_ns=clock.now_ns())
        data = b"".join(exported.pieces())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = set(archive.namelist())
        texts = {name: archive.read(name).decode() for name in names}
    tables = {table.name for table, _ in owned_tables()}
    assert names == {f"{table}.{kind}" for table in tables for kind in ("json", "csv")} | {"README.txt"}
    assert exported.rows["usage"] == 1
    assert exported.rows["keys"] == 2
    assert exported.rows["entries"] > 0
    (row,) = json.loads(texts["usage.json"])
    assert row["account_id"] == alice.account_id
    assert row["created_at"].startswith("2026-11")
    assert "Bob" not in "".join(texts.values())
    assert "digest (" not in texts["README.txt"]
    assert "  digest: Keyed hash of the key; the key itself is not kept (left out)" in texts["README.txt"]


async def test_no_cell_of_an_export_is_a_formula_but_numbers_stay(engine: Engine, clock: MovableClock) -> None:
    alice = await a_customer(engine, clock)
    with read(engine) as connection:
        exported = Export(connection, alice.account_id, now_ns=clock.now_ns())
        data = b"".join(exported.pieces())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if name.endswith(".csv"):
                for row in csv.reader(io.StringIO(archive.read(name).decode())):
                    assert not [cell for cell in row if cell[:1] in "=+@" and cell]
        assert f'"\'{FORMULA}"' in archive.read("accounts.csv").decode()
        amounts = [row["amount_nusd"] for row in csv.DictReader(io.StringIO(archive.read("entries.csv").decode()))]
    assert any(amount.startswith("-") for amount in amounts)


def test_hashes_and_digests_are_not_exported() -> None:
    shown = {f"{table.name}.{column}" for table, _ in owned_tables() for column in shown_columns(table)}
    assert "keys.name" in shown
    assert not [name for name in shown if "digest" in name or "hash" in name]


def erase(engine: Engine, account_id: AccountId, clock: MovableClock, *, gives_up: bool = True) -> Certificate:
    with write(engine) as connection:
        return erase_account(connection, account_id, now_ns=clock.now_ns(), gives_up_balance=gives_up)


async def test_an_erasure_leaves_amounts_under_an_id_and_right_books(engine: Engine, clock: MovableClock) -> None:
    alice = await a_customer(engine, clock)
    certificate = erase(engine, alice.account_id, clock)
    with read(engine) as connection:
        person = connection.execute(select(accounts).where(accounts.c.id == alice.account_id)).mappings().one()
        left = connection.execute(select(keys).where(keys.c.account_id == alice.account_id)).mappings().all()
        again = b"".join(Export(connection, alice.account_id, now_ns=clock.now_ns()).pieces())
        assert verify(connection).is_clean
        bob = connection.execute(select(accounts.c.id).where(accounts.c.name == "Bob")).scalar_one()
    assert (person["name"], person["email"], person["verified_at_ns"]) == ("", None, None)
    assert person["frozen_at_ns"] is not None
    assert {(key["name"], key["hint"], key["revoked_at_ns"] is not None) for key in left} == {("", "", True)}
    with zipfile.ZipFile(io.BytesIO(again)) as archive:
        assert "alice" not in "".join(archive.read(name).decode() for name in archive.namelist())
    assert certificate.emptied == {"accounts": 1, "keys": 2}
    assert {one.table for one in certificate.stays} >= {"usage", "entries", "wallets"}
    assert all(one.why and one.until for one in certificate.stays)
    assert erase(engine, bob, clock).account_id == bob


async def test_an_erased_key_is_refused(engine: Engine, clock: MovableClock) -> None:
    alice = await a_customer(engine, clock)
    erase(engine, alice.account_id, clock)
    async with running_desk(engine, clock) as desk:
        with pytest.raises(InvalidKey):
            await desk.ask(alice)


async def test_an_erasure_waits_for_the_balance_and_for_running_requests(engine: Engine, clock: MovableClock) -> None:
    alice = await a_customer(engine, clock)
    with pytest.raises(ErasureRefused, match="balance"):
        erase(engine, alice.account_id, clock, gives_up=False)
    with write(engine) as connection:
        connection.execute(update(wallets).where(wallets.c.account_id == alice.account_id).values(leased_nusd=1))
    with pytest.raises(ErasureRefused, match="running"):
        erase(engine, alice.account_id, clock)


def test_nobody_can_be_neither_exported_nor_erased(engine: Engine, clock: MovableClock) -> None:
    with pytest.raises(AccountNotFound):
        erase(engine, NOBODY, clock)
    with read(engine) as connection, pytest.raises(AccountNotFound):
        Export(connection, NOBODY, now_ns=clock.now_ns())


def test_a_certificate_is_signed() -> None:
    certificate = Certificate("acc-a", 1, {"sessions": 2}, {"keys": 1}, (), {}, 0)
    one, other = (json.loads(signed_certificate(certificate, key)) for key in (b"a" * 32, b"b" * 32))
    assert one["certificate"]["deleted"] == {"sessions": 2}
    assert one["signature"] != other["signature"]
    signed = signed_certificate(certificate, b"a" * 32)
    assert is_genuine(signed, public_key_of(b"a" * 32))
    assert not is_genuine(signed, public_key_of(b"b" * 32))
    assert not is_genuine(signed.replace('"sessions": 2', '"sessions": 3'), public_key_of(b"a" * 32))
    assert not is_genuine("{}", public_key_of(b"a" * 32))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_certificate_of_the_fullest_life_fits_into_its_mail(language: str) -> None:
    deleted = {table.name: 10**9 for table, entry in owned_tables() if is_deleted(table, entry)}
    stays = tuple(
        Stays(table.name, entry.entry.purpose, 10**9, STAYS_WHY[Category.PAYMENT], entry.entry.lifetime, 10**15)
        for table, entry in owned_tables()
        if not is_deleted(table, entry)
    )
    certificate = Certificate("acc-a", 1, deleted, {"keys": 1, "accounts": 1}, stays, OWNED_BY_NOBODY, 10**12)
    values = {"certificate": certificate_text(certificate, language), "reference": "drq-1", "time": "now"}
    assert are_right(MailKind.DELETION_DONE, values)
    detail = f"Request drq-{'0' * 32}\n\n{values['certificate']}"
    assert are_right(MailKind.OPERATOR_ALERT, {"time": "now", "event": "account_erased", "detail": detail})
