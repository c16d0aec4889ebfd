"""The pages that a customer sees at the simulated Stripe: pay, 3-D Secure, receipt. Marked as simulated."""

from html import escape

from dragonfly.payments.simulated.cards import CARDS
from dragonfly.payments.simulated.state import Charge, Session

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;color:#1a1f36}
.note{background:#fff4cc;border:1px solid #e6c200;padding:.5rem 1rem;border-radius:.4rem}
label{display:block;margin:.4rem 0}button{font:inherit;padding:.6rem 1.2rem;margin:1rem .5rem 0 0}
table{border-collapse:collapse;width:100%}td{padding:.2rem 0}td:last-child{text-align:right}
"""
NOTE = (
    '<p class="note">This is a <strong>simulated</strong> payment page of <code>dragonfly demo</code>.'
    " No money moves and nothing is sent to Stripe. Type no real card number anywhere.</p>"
)
METHOD_NAMES = {"link": "Link", "alipay": "Alipay", "wechat_pay": "WeChat Pay"}


def pay_page(session: Session, note: str = "") -> bytes:
    """Choose how to pay. The form sends the name of a choice, never a number."""
    if session.status != "open":
        return _page(
            "Closed", f"<p>This payment page is {escape(session.status)}. Nothing more can be paid here.</p>"
        )
    choices = [
        (f"card-{place}", f"{_grouped(card.number)} ({card.brand}, {card.story})")
        for place, card in enumerate(CARDS)
        if "card" in session.methods
    ]
    choices += [(name, label) for name, label in METHOD_NAMES.items() if name in session.methods]
    rows = "".join(
        f'<label><input type="radio" name="choice" value="{escape(value)}"{" checked" if not place else ""}>'
        f" {escape(label)}</label>"
        for place, (value, label) in enumerate(choices)
    )
    lines = "".join(
        f"<tr><td>{escape(line.name)}</td><td>{_usd(line.unit_cents * line.quantity)}</td></tr>"
        for line in session.lines
    )
    tax = f"<tr><td>Tax</td><td>{_usd(session.tax_cents)}</td></tr>" if session.is_taxed else ""
    warning = f'<p class="note" role="alert">{escape(note)}</p>' if note else ""
    back = f'<a href="{escape(session.cancel_url)}">Back without paying</a>' if session.cancel_url else ""
    body = (
        f"{warning}<table>{lines}{tax}<tr><td><strong>Total</strong></td>"
        f"<td><strong>{_usd(session.total_cents)}</strong></td></tr></table>"
        f'<form method="post"><fieldset><legend>Test card</legend>{rows}</fieldset>'
        f'<button name="press" value="pay">Pay {_usd(session.total_cents)}</button></form>{back}'
    )
    return _page("Pay", body)


def confirm_page(choice: str) -> bytes:
    """3-D Secure: the bank asks whether it is really you."""
    body = (
        "<p>The bank asks: is this payment yours? (3-D Secure)</p>"
        f'<form method="post"><input type="hidden" name="choice" value="{escape(choice)}">'
        '<button name="press" value="confirm">Yes, pay</button>'
        '<button name="press" value="refuse">No</button></form>'
    )
    return _page("Confirm", body)


def receipt_page(charge: Charge) -> bytes:
    """The receipt that Stripe would host."""
    body = (
        f"<table><tr><td>Paid</td><td>{_usd(charge.amount_cents)}</td></tr>"
        f"<tr><td>Payment</td><td>{escape(charge.id)}</td></tr></table>"
    )
    return _page("Receipt", body)


def message_page(title: str, text: str) -> bytes:
    return _page(title, f"<p>{escape(text)}</p>")


def _page(title: str, body: str) -> bytes:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)} (simulated)</title>'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>{NOTE}{body}</html>\n"
    ).encode()


def _usd(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d} USD"


def _grouped(number: str) -> str:
    return " ".join(number[start : start + 4] for start in range(0, len(number), 4))
