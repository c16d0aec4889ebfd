"""Decisions about people: addresses, passwords, risk; budgets; tokens; proofs. No database, no socket."""

import base64
import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from dragonfly.accounts.proofs import Asked, ProofInvalid, ProofReader
from dragonfly.accounts.rules import (
    RiskReason,
    SignUp,
    canonical_address,
    device_label,
    is_disposable,
    is_good_password,
    rest_of_step_s,
    risk_of,
)
from dragonfly.accounts.second_factors import code_at
from dragonfly.accounts.throttles import Rate, Throttle, TooManyAttempts
from dragonfly.core.credentials import HANDLE_LENGTH, Seal, TokenKind
from dragonfly.core.secrets import Secret
from tests.factories import PEPPER, MovableClock

SEAL = Seal({1: PEPPER})
ASKED = Asked("POST", "/api/auth/sign-in", "gateway.example")


@pytest.mark.parametrize(
    ("address", "canonical"),
    [
        ("Alice@Example.com", "alice@example.com"),
        ("a.l.i.c.e+tag@gmail.com", "alice@gmail.com"),
        ("alice@googlemail.com", "alice@gmail.com"),
        ("a.lice+tag@outlook.com", "a.lice@outlook.com"),
        ("a.lice+tag@example.com", "a.lice+tag@example.com"),
        ("alice@me.com", "alice@icloud.com"),
        ("+tag@gmail.com", "+tag@gmail.com"),
    ],
)
def test_a_mailbox_has_one_canonical_address(address: str, canonical: str) -> None:
    assert canonical_address(address) == canonical
    assert canonical_address(canonical) == canonical


def test_disposable_domains_are_known_with_their_subdomains() -> None:
    assert is_disposable("a@mailinator.com")
    assert is_disposable("a@deep.sub.Mailinator.com")
    assert is_disposable("a@mine.example", ["mine.example"])
    assert not is_disposable("a@notmailinator.com")
    assert not is_disposable("a@com")


@pytest.mark.parametrize(
    ("password", "is_good"),
    [
        ("correct horse battery", True),
        ("пароль из нескольких слов", True),
        ("short", False),
        ("a" * 30, False),
        ("Password123", False),
        ("x" * 201, False),
        ("ALICE@example.com", False),
    ],
)
def test_passwords_are_long_and_not_the_first_guess(password: str, is_good: bool) -> None:
    assert is_good_password(password, "alice@example.com") is is_good


def test_a_risk_is_a_sum_with_its_reasons() -> None:
    quiet = SignUp("alice@example.com", "Mozilla/5.0", network_sign_ups=0, is_same_person=False)
    assert risk_of(quiet) == (0, ())
    loud = SignUp("a12345+x@mailinator.com", "curl/8", network_sign_ups=9, is_same_person=True)
    assert risk_of(loud).score == 100
    assert set(risk_of(loud).reasons) == set(RiskReason)


@given(st.text())
def test_a_device_is_shown_bounded_and_printable(agent: str) -> None:
    label = device_label(agent)
    assert len(label) <= 200
    assert label.isprintable()


@pytest.mark.parametrize(
    ("passed_s", "step_s", "rest_s"), [(0.0, 0.4, 0.4), (0.05, 0.4, 0.35), (0.41, 0.4, 0.39), (7.0, 0.0, 0.0)]
)
def test_an_answer_waits_for_the_end_of_its_step(passed_s: float, step_s: float, rest_s: float) -> None:
    assert rest_of_step_s(passed_s, step_s) == pytest.approx(rest_s)


def test_a_budget_fills_up_again_steadily_and_is_forgotten_when_there_are_many() -> None:
    clock = MovableClock()
    throttle, rate = Throttle(clock, buckets_max=2), Rate("test", 2, 10)
    throttle.take(rate, "a")
    throttle.take(rate, "a")
    with pytest.raises(TooManyAttempts) as refused:
        throttle.take(rate, "a")
    assert refused.value.retry_after_s == pytest.approx(5)
    clock.move(5)
    throttle.take(rate, "a")
    throttle.take(rate, "b")
    throttle.take(rate, "c")
    throttle.take(rate, "a")  # the oldest of three was forgotten


@pytest.mark.parametrize("kind", list(TokenKind))
def test_a_token_is_read_as_its_own_kind_only(kind: TokenKind) -> None:
    text = SEAL.new_token(kind, "a" * HANDLE_LENGTH[kind]).reveal()
    read = SEAL.read(kind, text)
    assert read is not None
    assert read.handle == "a" * HANDLE_LENGTH[kind]
    assert all(SEAL.read(other, text) is None for other in TokenKind if other is not kind)
    assert Seal({1: PEPPER[::-1]}).read(kind, text) is None
    newer = Seal({1: PEPPER, 2: PEPPER[::-1]})
    assert newer.read(kind, text) == read


@given(st.data())
def test_no_other_text_is_a_token(data: st.DataObject) -> None:
    text = SEAL.new_token(TokenKind.ACCESS).reveal()
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from(string.ascii_letters + string.digits + "- \n\0é"))
    changed = text[:place] + letter + text[place + 1 :]
    assert (SEAL.read(TokenKind.ACCESS, changed) is None) == (changed != text)
    assert SEAL.read(TokenKind.ACCESS, text + letter) is None


@given(st.text())
def test_nothing_that_people_type_is_a_token(text: str) -> None:
    assert all(SEAL.read(kind, text) is None for kind in TokenKind)


def test_what_follows_from_a_token_is_always_the_same_and_says_nothing_about_it() -> None:
    parent = SEAL.new_token(TokenKind.REFRESH, "0" * 32).reveal()
    first, again = (SEAL.derived_token(TokenKind.ACCESS, parent, 1).reveal() for _ in range(2))
    assert first == again
    assert first != Seal({1: PEPPER[::-1]}).derived_token(TokenKind.ACCESS, parent, 1).reveal()
    assert parent[-60:] not in first


def test_a_seal_wants_long_keys_and_shows_none() -> None:
    with pytest.raises(ValueError):
        Seal({1: b"short"})
    with pytest.raises(ValueError):
        Seal({})
    assert PEPPER.decode() not in repr(SEAL)


@pytest.mark.parametrize(("step", "code"), [(1, "287082"), (37037036, "081804"), (41152263, "005924")])
def test_codes_are_those_of_the_standard(step: int, code: str) -> None:
    """RFC 6238, appendix B, the last six of the eight digits."""
    assert code_at(b"12345678901234567890", step) == code


class Signer:
    """A browser's key and proofs made with it."""

    def __init__(self, clock: MovableClock) -> None:
        self.clock = clock
        self.key: ECKey | OctKey = ECKey.generate_key("P-256")
        self.count = 0

    def proof(self, head: dict[str, Any] | None = None, **claims: Any) -> str:
        self.count += 1
        jwk = {name: self.key.as_dict()[name] for name in ("kty", "crv", "x", "y")}
        whole = {"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk, **(head or {})}
        said = {
            "jti": f"{self.count:016}",
            "htm": ASKED.method,
            "htu": f"https://{ASKED.host}{ASKED.path}",
            "iat": self.clock.now_ns() // 10**9,
            **claims,
        }
        return jws.serialize_compact(whole, json.dumps(said).encode(), self.key)


def test_a_proof_names_the_key_that_signed_it() -> None:
    signer = Signer(MovableClock())
    reader = ProofReader(signer.clock)
    assert reader.read(signer.proof(), ASKED).browser_key == signer.key.thumbprint()


@pytest.mark.parametrize(
    ("public_url", "htu", "is_right"),
    [
        ("", "http://gateway.example/api/auth/sign-in", True),
        ("", "https://GATEWAY.example/api/auth/sign-in", True),
        ("", "https://gateway.example/api/auth/sign-in?x=1", False),
        ("", "https://gateway.example/api/auth/sign-in#x", False),
        ("", "https://gateway.example/api/auth/sign-in/", False),
        ("", "ftp://gateway.example/api/auth/sign-in", False),
        ("", "https://[gateway.example/api/auth/sign-in", False),
        ("https://api.example.com", "https://api.example.com/api/auth/sign-in", True),
        ("https://api.example.com", "http://api.example.com/api/auth/sign-in", False),
        ("https://api.example.com", "https://gateway.example/api/auth/sign-in", False),
    ],
)
def test_a_proof_is_for_one_address(public_url: str, htu: str, is_right: bool) -> None:
    signer = Signer(MovableClock())
    reader = ProofReader(signer.clock, public_url=public_url)
    if is_right:
        assert reader.read(signer.proof(htu=htu), ASKED)
        return
    with pytest.raises(ProofInvalid):
        reader.read(signer.proof(htu=htu), ASKED)


def test_heads_that_are_not_of_a_browsers_key_are_refused() -> None:
    signer = Signer(MovableClock())
    reader = ProofReader(signer.clock)
    jwk = {name: signer.key.as_dict()[name] for name in ("kty", "crv", "x", "y")}
    private = {**jwk, "d": signer.key.as_dict(private=True)["d"]}
    other = ECKey.generate_key("P-256").as_dict()
    for head in (
        {"typ": "JWT"},
        {"jwk": private},
        {"jwk": {**jwk, "crv": "P-384"}},
        {"jwk": {**jwk, "x": jwk["x"][:-1]}},
        {"jwk": {**jwk, "x": "A" * 43}},
        {"jwk": {**jwk, "x": other["x"], "y": other["y"]}},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
    ):
        with pytest.raises(ProofInvalid):
            reader.read(signer.proof(head), ASKED)
    body = signer.proof().split(".")
    none = base64.urlsafe_b64encode(json.dumps({"typ": "dpop+jwt", "alg": "none", "jwk": jwk}).encode()).decode()
    for proof in (f"{none.rstrip('=')}.{body[1]}.", "", "..", "a.b.c", "x" * 5_000, f"{body[0]}.{body[1]}"):
        with pytest.raises(ProofInvalid):
            reader.read(proof, ASKED)


def test_a_proof_is_remembered_as_long_as_it_could_be_shown_again() -> None:
    clock = MovableClock()
    signer, reader = Signer(clock), ProofReader(clock, seen_max=2)
    early = signer.proof(iat=clock.now_ns() // 10**9 + 60)
    reader.read(early, ASKED)
    clock.move(119)
    with pytest.raises(ProofInvalid):
        reader.read(early, ASKED)
    reader.read(signer.proof(), ASKED)
    with pytest.raises(ProofInvalid):
        reader.read(signer.proof(), ASKED)  # full: a fresh one is refused, none is forgotten early
    clock.move(3)
    reader.read(signer.proof(), ASKED)


@given(st.text(max_size=300))
def test_any_text_is_refused_and_breaks_nothing(text: str) -> None:
    with pytest.raises(ProofInvalid):
        ProofReader(MovableClock()).read(text, ASKED)


def test_a_token_does_not_show_itself() -> None:
    assert "df-" not in f"{SEAL.new_token(TokenKind.ACCESS)!r} {Secret('df-x')}"


@pytest.mark.parametrize("kind", TokenKind)
def test_a_token_that_waits_in_a_row_is_none_until_it_is_finished(kind: TokenKind) -> None:
    seal = Seal({1: b"1" * 32, 2: b"2" * 32})
    token = seal.new_token(kind, "0" * HANDLE_LENGTH[kind])
    link = f"https://dragonfly.example/page#token={seal.unfinished(token)}"

    assert seal.read(kind, link.partition("#token=")[2]) is None
    assert seal.finished(link) == f"https://dragonfly.example/page#token={token.reveal()}"
    assert Seal({3: b"3" * 32}).finished(link) == link


@pytest.mark.parametrize(
    "text", ["https://checkout.stripe.com/c/pay/cs_1.2", "", "https://dragonfly.example/a#token=x.1"]
)
def test_a_link_without_an_unfinished_token_stays_as_it_is(text: str) -> None:
    assert Seal({1: b"1" * 32}).finished(text) == text
