"""/api/limits: the owner's limits and the operator's, of which the lower one holds."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, update

from dragonfly.accounts.sessions import FRESH_S, Browser, begin_session
from dragonfly.accounts.tables import sessions
from dragonfly.core.credentials import Seal
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import read, write
from dragonfly.keys.queries import key_of_account, limits_of_account
from dragonfly.keys.rules import NO_SPEND_LIMITS, SpendLimits
from tests.factories import PEPPER
from tests.http.account import Office

USD = 10**9
NONE = {"daily_usd": None, "weekly_usd": None, "monthly_usd": None}
WHY = "because of a test"


@pytest.fixture
def office(engine: Engine) -> Iterator[Office]:
    made = Office(engine)
    yield made
    made.threads.close()


def sign_in(office: Office) -> None:
    """Gives the session under which Alice asks a moment of sign-in: now."""
    browser, now_ns = Browser("fingerprint", "Firefox", "192.0.2.7"), office.clock.now_ns()
    with write(office.engine) as connection:
        tokens = begin_session(
            connection, Seal({1: PEPPER}), IdSource(), office.alice, browser, has_second_factor=False, now_ns=now_ns
        )
        mine = update(sessions).where(sessions.c.id == tokens.session_id)
        connection.execute(mine.values(id="ses-alice"))


async def test_owners_limit_themselves_and_see_what_they_spent(office: Office) -> None:
    key = str((await office.ask("alice", "POST", "/api/keys", {"name": "laptop"})).json()["id"])
    office.use(office.alice, key, cost_nusd=USD // 4)
    wanted = {"daily_usd": "2.5", "monthly_usd": 40}
    got = await office.ask("alice", "PUT", "/api/limits", wanted)
    assert got.status_code == 200
    assert got.json() == {
        "own": {"daily_usd": "2.5", "weekly_usd": None, "monthly_usd": "40"},
        "operator": NONE,
        "spent": {"daily_usd": "0.25", "weekly_usd": "0.25", "monthly_usd": "0.25"},
    }
    assert (await office.ask("alice", "GET", "/api/limits")).json() == got.json()
    assert (await office.ask("bob", "GET", "/api/limits")).json()["own"] == NONE


async def test_of_both_limits_the_lower_one_holds_for_every_key(office: Office) -> None:
    key = (await office.ask("alice", "POST", "/api/keys", {"name": "laptop"})).json()["id"]
    path = f"/api/admin/accounts/{office.alice}/limits"
    wanted = {"daily_usd": "1", "weekly_usd": "9", "reason": WHY}
    assert (await office.ask("charlie", "PUT", path, wanted)).status_code == 200
    await office.ask("alice", "PUT", "/api/limits", {"daily_usd": "5", "monthly_usd": "7"})
    both = SpendLimits(USD, 9 * USD, 7 * USD)
    with read(office.engine) as connection:
        assert limits_of_account(connection, office.alice).both == both
        assert limits_of_account(connection, office.bob).both == NO_SPEND_LIMITS
        stored = key_of_account(connection, key, account_id=AccountId(office.alice))
        assert stored is not None
        assert stored.account_spend == both
    seen = (await office.ask("charlie", "GET", path)).json()
    assert (seen["own"]["daily_usd"], seen["operator"]["daily_usd"]) == ("5", "1")
    rows = (await office.ask("charlie", "GET", "/api/admin/audit")).json()["data"]
    assert [(row["action"], row["reason"]) for row in rows if row["reason"] == WHY] == [("account.limit", WHY)]


@pytest.mark.parametrize("looser", [{"daily_usd": "5.01"}, {}, {"daily_usd": None, "weekly_usd": "1"}])
async def test_who_raises_a_limit_has_signed_in_lately(office: Office, looser: dict[str, str | None]) -> None:
    assert (await office.ask("alice", "PUT", "/api/limits", {"daily_usd": "5"})).status_code == 200
    refused = await office.ask("alice", "PUT", "/api/limits", looser)
    assert refused.json()["error"]["code"] == "sign_in_again"
    assert (await office.ask("alice", "PUT", "/api/limits", {"daily_usd": "4"})).status_code == 200
    sign_in(office)
    assert (await office.ask("alice", "PUT", "/api/limits", looser)).status_code == 200
    await office.ask("alice", "PUT", "/api/limits", {"daily_usd": "1"})
    office.clock.move(FRESH_S + 1)
    assert (await office.ask("alice", "PUT", "/api/limits", {"daily_usd": "2"})).status_code == refused.status_code


@pytest.mark.parametrize("amount", [-1, "-1", "NaN", 1e300, "1" * 30, "1.0000000001", True, "x"])
async def test_amounts_that_are_none_are_refused(office: Office, amount: object) -> None:
    assert (await office.ask("alice", "PUT", "/api/limits", {"daily_usd": amount})).status_code == 422
    with read(office.engine) as connection:
        assert limits_of_account(connection, office.alice).own == NO_SPEND_LIMITS


async def test_accounts_that_are_not_there_have_no_limits(office: Office) -> None:
    path = "/api/admin/accounts/acc-none/limits"
    assert (await office.ask("charlie", "GET", path)).status_code == 404
    assert (await office.ask("charlie", "PUT", path, {"reason": WHY})).status_code == 404
