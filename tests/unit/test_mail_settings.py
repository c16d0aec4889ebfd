"""The [mail] section: what contradicts itself is told at the start, by name and without values."""

from typing import Any

import pytest

from dragonfly.app.mail import mail_problems, seals_of, site_of
from dragonfly.keys.rules import Peppers
from dragonfly.settings import MailSettings, ServerSettings, Settings
from tests.factories import PEPPER

FROM = {"from_address": "hello@mail.example.com"}
RESEND = {"transport": "resend", "resend_api_key": "re_123", **FROM}
SMTP = {"transport": "smtp", "smtp_host": "smtp.example.com", **FROM}


def make_settings(mail: dict[str, Any], public_url: str = "https://api.example.com") -> Settings:
    return Settings(mail=MailSettings.model_validate(mail), server=ServerSettings(public_url=public_url))


@pytest.mark.parametrize(
    "mail",
    [
        {},
        RESEND,
        {**RESEND, "resend_url": "http://127.0.0.1:8081"},
        SMTP,
        {**SMTP, "smtp_user": "alice", "smtp_password": "x"},
        {**SMTP, "smtp_tls": "none", "smtp_host": "localhost"},
        {"resend_webhook_secret": "whsec_YSBzaWduaW5nIGtleSBvZiAyNCBieXRl"},
    ],
)
def test_sections_that_work_are_taken(mail: dict[str, Any]) -> None:
    assert mail_problems(make_settings(mail)) == []


@pytest.mark.parametrize(
    ("mail", "named"),
    [
        ({"from_address": "Alice <alice@example.com>"}, "from_address"),
        ({"operator_address": "alice@example.com\nBcc: bob@example.com"}, "operator_address"),
        ({"reply_to": "alice"}, "reply_to"),
        ({"from_name": ""}, "from_name"),
        ({"from_name": "Dragon\r\nfly"}, "from_name"),
        ({**RESEND, "from_address": ""}, "from_address"),
        ({**RESEND, "resend_api_key": ""}, "resend_api_key"),
        ({**RESEND, "resend_api_key": "re_\n1"}, "resend_api_key"),
        ({**RESEND, "resend_url": "http://api.example.com"}, "resend_url"),
        ({**RESEND, "resend_url": "http://127.0.0.1.example.com/"}, "resend_url"),
        ({**SMTP, "smtp_host": ""}, "smtp_host"),
        ({**SMTP, "smtp_tls": "none"}, "smtp_tls"),
        ({**SMTP, "smtp_user": "alice"}, "smtp_password"),
        ({"resend_webhook_secret": "whsec_short"}, "resend_webhook_secret"),
    ],
)
def test_what_contradicts_itself_is_named(mail: dict[str, Any], named: str) -> None:
    (problem,) = mail_problems(make_settings(mail))
    assert problem.startswith(f"mail.{named}: ")
    assert not any(str(value) in problem for value in mail.values() if len(str(value)) > 6)


def test_mail_that_leaves_the_machine_needs_an_address_for_its_links() -> None:
    (problem,) = mail_problems(make_settings(RESEND, public_url=""))
    assert problem.startswith("server.public_url: ")
    assert site_of(make_settings({}, public_url="")).url == "http://127.0.0.1:8080"
    assert site_of(make_settings({}, public_url="https://api.example.com/")).url == "https://api.example.com"


def test_links_outlive_a_new_pepper() -> None:
    address = "alice@example.com"
    old = seals_of(Peppers({1: PEPPER})).address_digest(address)
    assert seals_of(Peppers({1: PEPPER, 2: PEPPER[::-1]})).address_digest(address) == old
    assert seals_of(Peppers({2: PEPPER[::-1]})).address_digest(address) != old
