"""The receipt as a document: to read, to print, to save as PDF. In English and Chinese.

People open it by a link that is made for them, is sealed, and works for a quarter of an hour: it names who paid.
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

from starlette.responses import Response

from dragonfly.api.paper import paper
from dragonfly.api.wallet_shapes import ReceiptShown
from dragonfly.core.errors import DragonflyError

LINK_S = 900
METHODS: Mapping[str, Mapping[str, str]] = {
    "en": {"card": "Card", "link": "Link", "alipay": "Alipay", "wechat_pay": "WeChat Pay"},
    "zh": {"card": "银行卡", "link": "Link", "alipay": "支付宝", "wechat_pay": "微信支付"},
}
WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "receipt": "Receipt",
        "from": "From",
        "for": "For",
        "nobody": "No billing details given",
        "number": "Number",
        "paid": "Paid on",
        "method": "Paid by",
        "country": "Country of payment",
        "tax_id": "Tax number",
        "item": "Prepaid API credit",
        "tax": "Tax",
        "total": "Total paid",
        "refunded": "Refunded",
        "kept": "Left after refunds",
        "stripe": "Receipt of the payment processor",
        "note": "Amounts are in US dollars. Prepaid credit that was paid for does not expire.",
        "print": "To keep it, print this page or save it as PDF.",
        "unknown": "unknown",
    },
    "zh": {
        "receipt": "收据",
        "from": "开具方",
        "for": "付款方",
        "nobody": "未填写账单信息",
        "number": "编号",
        "paid": "付款时间",
        "method": "付款方式",
        "country": "付款国家或地区",
        "tax_id": "税号",
        "item": "API 预付额度",
        "tax": "税额",
        "total": "实付总额",
        "refunded": "已退款",
        "kept": "退款后余额",
        "stripe": "支付服务商的收据",
        "note": "金额单位为美元。付费购买的预付额度不会过期。",
        "print": "如需保存，请打印本页或另存为 PDF。",
        "unknown": "未知",
    },
}


class ReceiptLinkInvalid(DragonflyError):
    """A link to a receipt that is too old or was not made here."""

    code = "receipt_link_invalid"
    status = 404

    def __init__(self) -> None:
        super().__init__("This link to a receipt does not work any more. Open the receipt from the wallet again.")


@dataclass(frozen=True, slots=True)
class ReceiptLinks:
    """Makes and checks links to receipts."""

    seal: Callable[[bytes], bytes]
    """A digest under a secret of the installation."""

    def make(self, topup_id: str, language: str, *, now_ns: int) -> str:
        """Path and query of a link that works for `LINK_S` seconds."""
        until_s = now_ns // 10**9 + LINK_S
        query = urlencode({"until": until_s, "seal": self._seal(topup_id, until_s), "lang": language})
        return f"/wallet/receipts/{topup_id}?{query}"

    def check(self, topup_id: str, until_s: int, seal: str, *, now_ns: int) -> None:
        """ReceiptLinkInvalid."""
        is_right = hmac.compare_digest(self._seal(topup_id, until_s).encode(), seal.encode())
        if not is_right or until_s * 10**9 < now_ns:
            raise ReceiptLinkInvalid

    def _seal(self, topup_id: str, until_s: int) -> str:
        return self.seal(f"receipt\0{topup_id}\0{until_s}".encode()).hex()


def receipt_page(receipt: ReceiptShown, language: str, *, seller: str, seller_url: str) -> Response:
    """One self-contained page of A4."""
    words = WORDS[language]
    body = (
        f'<header><h1>{words["receipt"]}</h1><p class="brand">{escape(seller)}</p></header>\n'
        f"{_parties(receipt, words, seller, seller_url)}\n{_facts(receipt, language)}\n{_amounts(receipt, words)}\n"
        f'<p class="note">{words["note"]}</p>\n<p class="note screen">{words["print"]}{_link(receipt, words)}</p>'
    )
    return paper(f"{words['receipt']} {receipt.topup}", language, body)


def _parties(receipt: ReceiptShown, words: Mapping[str, str], seller: str, seller_url: str) -> str:
    billing = receipt.billing
    tax_id = f"{words['tax_id']}: {billing.tax_id}" if billing.tax_id else ""
    lines = [billing.company, billing.name, *billing.address.splitlines(), billing.country, tax_id]
    customer = "<br>".join(escape(line) for line in lines if line) or words["nobody"]
    issuer = f"{escape(seller)}<br>{escape(seller_url)}"
    return (
        f'<div class="parties"><div><h2>{words["from"]}</h2><address>{issuer}</address>'
        f"</div><div><h2>{words['for']}</h2><address>{customer}</address></div></div>"
    )


def _facts(receipt: ReceiptShown, language: str) -> str:
    words = WORDS[language]
    method = METHODS[language].get(receipt.method or "", receipt.method or words["unknown"])
    facts = [
        (words["number"], receipt.topup),
        (words["paid"], receipt.paid_at.replace("T", " ").replace("Z", " UTC")),
        (words["method"], method),
        (words["country"], receipt.country or ""),
    ]
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    return f"<dl>{rows}</dl>"


def _amounts(receipt: ReceiptShown, words: Mapping[str, str]) -> str:
    rows = [("", words["item"], receipt.net)]
    if receipt.tax != "0.00":
        rows.append(("", words["tax"], receipt.tax))
    rows.append(("total", words["total"], receipt.total))
    if receipt.refunded != "0.00":
        rows += [("", words["refunded"], f"−{receipt.refunded}"), ("total", words["kept"], receipt.kept)]
    lines = "".join(
        f'<tr class="{kind}"><th scope="row">{name}</th><td>{escape(value)} USD</td></tr>'
        for kind, name, value in rows
    )
    return f"<table>{lines}</table>"


def _link(receipt: ReceiptShown, words: Mapping[str, str]) -> str:
    url = receipt.stripe_receipt_url
    return f' <a href="{escape(url)}" rel="noreferrer">{words["stripe"]}</a>' if url else ""
