"""Decisions about people without any I/O: addresses, passwords, names, the risk of a sign-up."""

import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from dragonfly.mail.rules import is_mail_address

NAME_LENGTH_MAX = 100
PASSWORD_LENGTH_MIN = 10
PASSWORD_LENGTH_MAX = 200
DISTINCT_LETTERS_MIN = 5
DEVICE_LENGTH_MAX = 200

_DOTS_MEAN_NOTHING = frozenset({"gmail.com", "googlemail.com"})
_PLUS_IS_A_TAG = frozenset(
    {
        "gmail.com",
        "googlemail.com",
        "outlook.com",
        "hotmail.com",
        "live.com",
        "icloud.com",
        "me.com",
        "mac.com",
        "fastmail.com",
        "proton.me",
        "protonmail.com",
        "pm.me",
        "zoho.com",
        "yandex.com",
        "yandex.ru",
    }
)
_SAME_DOMAIN = {
    "googlemail.com": "gmail.com",
    "me.com": "icloud.com",
    "mac.com": "icloud.com",
    "protonmail.com": "proton.me",
    "pm.me": "proton.me",
    "yandex.ru": "yandex.com",
}
DISPOSABLE_DOMAINS = frozenset(
    {
        "10minutemail.com",
        "dispostable.com",
        "emailondeck.com",
        "fakeinbox.com",
        "getnada.com",
        "guerrillamail.com",
        "guerrillamail.info",
        "guerrillamail.net",
        "guerrillamail.org",
        "mail-temp.com",
        "mailcatch.com",
        "maildrop.cc",
        "mailinator.com",
        "mailnesia.com",
        "mintemail.com",
        "mohmal.com",
        "moakt.com",
        "sharklasers.com",
        "spamgourmet.com",
        "temp-mail.org",
        "tempail.com",
        "tempmail.com",
        "throwawaymail.com",
        "trashmail.com",
        "yopmail.com",
        "yopmail.fr",
    }
)
"""A few well-known ones; the setting accounts.disposable_domains adds to them."""

COMMON_PASSWORDS = frozenset(
    {
        "1234567890",
        "0123456789",
        "1q2w3e4r5t",
        "1qaz2wsx3edc",
        "administrator",
        "changeme123",
        "helloworld",
        "iloveyou123",
        "letmein123",
        "letmeinplease",
        "mypassword",
        "passw0rd123",
        "password01",
        "password12",
        "password123",
        "password1234",
        "passwordpassword",
        "q1w2e3r4t5",
        "q1w2e3r4t5y6",
        "qazwsxedcrfv",
        "qwerty1234",
        "qwerty12345",
        "qwerty123456",
        "qwertyuiop",
        "qwertyuiopasdfghjkl",
        "sunshine123",
        "superman123",
        "trustno1trustno1",
        "welcome123",
        "welcome1234",
        "woaini1314520",
        "zxcvbnm123",
    }
)
"""Of those that are long enough. Length does most of the work; these are the first that a guesser tries."""


def folded_address(address: str) -> str:
    """What an address is found by: mail systems take no notice of case in practice."""
    return address.lower()


def canonical_address(address: str) -> str:
    """The mailbox behind an address, for "once per person": without the spellings that its provider ignores."""
    local, _, domain = address.lower().rpartition("@")
    if domain in _PLUS_IS_A_TAG:
        local = local.partition("+")[0] or local
    if domain in _DOTS_MEAN_NOTHING:
        local = local.replace(".", "")
    return f"{local}@{_SAME_DOMAIN.get(domain, domain)}"


def is_disposable(address: str, more: Collection[str] = ()) -> bool:
    """True for providers of throw-away mailboxes, their subdomains included."""
    labels = address.lower().rpartition("@")[2].split(".")
    domains = {".".join(labels[start:]) for start in range(len(labels) - 1)}
    return not domains.isdisjoint(DISPOSABLE_DOMAINS) or not domains.isdisjoint(more)


def is_address(text: str) -> bool:
    """One plain address that mail can go to."""
    return is_mail_address(text)


def is_name(text: str) -> bool:
    """What a person may be called; "" is no name."""
    return len(text) <= NAME_LENGTH_MAX and text.isprintable()


def is_good_password(password: str, address: str) -> bool:
    """Long enough, not one of the first guesses, not one letter again and again, not the address itself."""
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        return False
    lowered = password.lower()
    local = address.lower().rpartition("@")[0]
    is_guessed = lowered in COMMON_PASSWORDS or lowered in (address.lower(), local)
    return not is_guessed and len(set(lowered)) >= DISTINCT_LETTERS_MIN


def rest_of_step_s(passed_s: float, step_s: float) -> float:
    """How long until a whole number of steps has passed, so that an answer's time says little; 0.0 without steps."""
    return step_s - passed_s % step_s if step_s else 0.0


def device_label(user_agent: str) -> str:
    """What is shown and kept of a User-Agent: bounded and printable."""
    return "".join(letter for letter in user_agent[:DEVICE_LENGTH_MAX] if letter.isprintable())


class RiskReason(enum.Enum):
    """Why a sign-up may not be what it seems; the value is stored and shown to operators."""

    DISPOSABLE_DOMAIN = "disposable_domain"
    SAME_PERSON = "same_person"
    """The same mailbox, spelt otherwise, has had its trial credit."""
    BUSY_NETWORK = "busy_network"
    """Many sign-ups from one network within a day."""
    TAGGED_ADDRESS = "tagged_address"
    NO_BROWSER = "no_browser"
    """No User-Agent, or one of a program."""
    NUMBERED_ADDRESS = "numbered_address"


RISK_POINTS = {
    RiskReason.DISPOSABLE_DOMAIN: 50,
    RiskReason.SAME_PERSON: 40,
    RiskReason.BUSY_NETWORK: 30,
    RiskReason.NO_BROWSER: 20,
    RiskReason.TAGGED_ADDRESS: 10,
    RiskReason.NUMBERED_ADDRESS: 5,
}
RISK_MAX = 100
BUSY_NETWORK_SIGN_UPS = 3
NUMBERED_DIGITS_MIN = 5
_PROGRAMS = ("curl", "python", "go-http-client", "wget", "okhttp", "node", "axios", "java")


@dataclass(frozen=True, slots=True)
class SignUp:
    """What is known when somebody registers."""

    address: str
    device: str
    network_sign_ups: int
    """From the same network within the last day."""
    is_same_person: bool
    disposable_domains: Collection[str] = ()


class Risk(NamedTuple):
    """0 (nothing seen) to 100, and why."""

    score: int
    reasons: tuple[RiskReason, ...]


def risk_of(sign_up: SignUp) -> Risk:
    """A hint for operators, never a verdict: nobody is refused because of it alone."""
    local = sign_up.address.lower().rpartition("@")[0]
    device = sign_up.device.lower()
    seen = {
        RiskReason.DISPOSABLE_DOMAIN: is_disposable(sign_up.address, sign_up.disposable_domains),
        RiskReason.SAME_PERSON: sign_up.is_same_person,
        RiskReason.BUSY_NETWORK: sign_up.network_sign_ups >= BUSY_NETWORK_SIGN_UPS,
        RiskReason.TAGGED_ADDRESS: "+" in local,
        RiskReason.NO_BROWSER: not device or device.startswith(_PROGRAMS),
        RiskReason.NUMBERED_ADDRESS: sum(letter.isdigit() for letter in local) >= NUMBERED_DIGITS_MIN,
    }
    reasons = tuple(reason for reason, is_seen in seen.items() if is_seen)
    return Risk(min(RISK_MAX, sum(RISK_POINTS[reason] for reason in reasons)), reasons)
