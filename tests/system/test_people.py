"""A real `dragonfly serve` with its walls up: an operator sets up an account, a customer registers by mail."""

import base64
import json
import re
import time

from dragonfly.accounts.second_factors import STEP_S, code_at
from tests.http.people import CONSENT, PASSWORD
from tests.system.people import RealBrowser
from tests.system.program import Program

SETTINGS = """\
[server]
port = 0
[accounts]
password_memory_kib = 8192
"""


async def test_an_operator_and_a_customer_come_in(program: Program) -> None:
    (program.folder / "dragonfly.toml").write_text(SETTINGS)
    async with program.running("serve") as running:
        port = json.loads(await running.until('"started"', errors=True))["port"]
        link = program.run("operator", "add", "bob@example.com").output.strip()
        operator = RealBrowser(f"http://127.0.0.1:{port}")
        body = {"token": link.partition("#token=")[2], "password": PASSWORD}
        set_up = await operator.send("POST", "/api/auth/set-up", body)
        assert set_up.status_code == 200, set_up.text
        again = await operator.send("POST", "/api/auth/set-up", body)
        assert again.json()["error"]["code"] == "link_invalid"
        operator.token = set_up.json()["access_token"]
        secret = (await operator.send("POST", "/api/me/second-factor")).json()["secret"]
        code = code_at(base64.b32decode(secret), int(time.time()) // STEP_S)
        confirmed = await operator.send("POST", "/api/me/second-factor/confirm", {"code": code})
        assert len(confirmed.json()["recovery_codes"]) == 10
        me = (await operator.send("GET", "/api/me")).json()
        assert (me["role"], me["second_factor"], me["email_verified"]) == ("operator", True, True)

        customer = RealBrowser(operator.url)
        registered = {"email": "alice@example.com", "password": PASSWORD, **CONSENT}
        assert (await customer.send("POST", "/api/auth/register", registered)).status_code == 202
        shown = await running.until("#token=")
        token = re.findall(r"df-ve-[0-9A-Za-z]+", shown)[0]
        assert (await customer.send("POST", "/api/auth/verify", {"token": token})).status_code == 200
        credentials = {"email": "alice@example.com", "password": PASSWORD}
        customer.token = (await customer.send("POST", "/api/auth/sign-in", credentials)).json()["access_token"]
        assert (await customer.send("GET", "/api/me")).json()["email_verified"] is True
        assert await running.stop() == 0
    assert PASSWORD not in running.errors
    assert "df-" not in running.errors


async def test_an_account_that_becomes_an_operators_is_set_up_anew(program: Program) -> None:
    assert program.run("migrate").code == 0
    first = program.run("operator", "add", "Bob@example.com", "--json").json
    second = program.run("operator", "add", "bob@example.com", "--json").json
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["account"] == second["account"]
    assert first["link"] != second["link"]
    refused = program.run("operator", "add", "bob")
    assert (refused.code, "alice@example.com" in refused.errors) == (1, True)
