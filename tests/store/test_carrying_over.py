"""An installation from before lots keeps every balance, and its books stay provable."""

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, insert, select, text

from dragonfly.accounts.tables import accounts
from dragonfly.admission.actions import release_leases
from dragonfly.admission.tables import leases, workers
from dragonfly.admission.verify import verify
from dragonfly.core.ids import AccountId
from dragonfly.infra.database import open_engine, read, write
from dragonfly.ledger.actions import grant_credit
from dragonfly.ledger.journal import IdempotencyConflict
from dragonfly.ledger.queries import credits_of_account, lots_of_account, wallet_of
from dragonfly.ledger.tables import books, entries, entry_groups, wallets
from dragonfly.migrations import upgrade
from tests.factories import START_NS

ALICE, BOB = AccountId("acc-alice"), AccountId("acc-bob")


def _migrate_to_before_lots(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "dragonfly:migrations")
    config.attributes["connection"] = connection
    lots = ScriptDirectory.from_config(config).get_revision("2026_11_23_lots")
    assert lots is not None
    command.upgrade(config, str(lots.down_revision))


def _old_installation(connection: Connection) -> None:
    """Alice was given 100, of which a worker that died has leased 30; Bob has nothing left of his 5."""
    for account_id, balance, leased in ((ALICE, 100, 30), (BOB, 0, 0)):
        connection.execute(insert(accounts).values(id=account_id, name="Somebody", created_at_ns=START_NS))
        row = {"account_id": account_id, "balance_nusd": balance, "leased_nusd": leased, "charged_nusd": 0}
        connection.execute(insert(wallets).values(row))
        book = {"id": f"customer/{account_id}", "kind": "customer", "account_id": account_id}
        connection.execute(insert(books).values(book))
    connection.execute(insert(books).values(id="promo_cost", kind="promo_cost"))
    group = {"id": f"grant/{ALICE}/welcome", "kind": "grant", "account_id": ALICE, "created_at_ns": START_NS}
    connection.execute(insert(entry_groups).values(group))
    for book_id, amount in ((f"customer/{ALICE}", 100), ("promo_cost", -100)):
        connection.execute(insert(entries).values(group_id=group["id"], book_id=book_id, amount_nusd=amount))
    connection.execute(insert(workers).values(id="wrk-1", beats=0, is_dead=1, beat_at_ns=1))
    # The column `extensions` is not there yet.
    connection.execute(
        text("INSERT INTO leases (id, worker_id, account_id, amount_nusd) VALUES ('lea-1', 'wrk-1', :alice, 30)"),
        {"alice": ALICE},
    )


@pytest.fixture
def carried(empty_url: str) -> Engine:
    """The old installation after the migration."""
    engine = open_engine(empty_url)
    with write(engine) as connection:
        _migrate_to_before_lots(connection)
        _old_installation(connection)
    upgrade(engine)
    return engine


def test_balances_become_a_lot_that_does_not_expire(carried: Engine) -> None:
    with read(carried) as connection:
        assert verify(connection).findings == ()
        assert wallet_of(connection, ALICE) == (100, 30, 0)
        (lot,) = lots_of_account(connection, ALICE)
        assert (lot.source, lot.amount_nusd, lot.remaining_nusd, lot.expires_at_ns) == ("promo", 100, 70, None)
        assert lots_of_account(connection, BOB) == []
        assert [event.kind for event in credits_of_account(connection, ALICE)] == ["grant"]
    carried.dispose()


def test_leases_from_before_go_back_and_old_idempotency_keys_still_hold(carried: Engine) -> None:
    with write(carried) as connection:
        assert release_leases(connection, "wrk-1", now_ns=START_NS)
        grant_credit(connection, ALICE, amount_nusd=100, idempotency_key="welcome", now_ns=START_NS)
    with pytest.raises(IdempotencyConflict), write(carried) as connection:
        grant_credit(connection, ALICE, amount_nusd=99, idempotency_key="welcome", now_ns=START_NS)
    with write(carried) as connection:
        grant_credit(connection, BOB, amount_nusd=7, idempotency_key="more", now_ns=START_NS)
    with read(carried) as connection:
        assert verify(connection).findings == ()
        assert wallet_of(connection, ALICE) == (100, 0, 0)
        assert [lot.remaining_nusd for lot in lots_of_account(connection, ALICE)] == [100]
        assert connection.execute(select(leases.c.id)).all() == []
    carried.dispose()
