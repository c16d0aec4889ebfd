"""The receipt as a document to print: plain HTML without style, script or anything from elsewhere."""

from html import escape

from dragonfly.api.wallet_shapes import ReceiptShown


def receipt_html(receipt: ReceiptShown) -> str:
    """One self-contained page."""
    billing = receipt.billing
    customer = [billing.name, billing.company, *billing.address.splitlines(), billing.country, billing.tax_id]
    rows = [
        ("Receipt", receipt.topup),
        ("Paid", receipt.paid_at),
        ("API credit, USD", receipt.credit),
        ("Tax, USD", receipt.tax),
        ("Total, USD", receipt.total),
        ("Refunded, USD", receipt.refunded),
        ("Payment method", receipt.method or "unknown"),
    ]
    lines = "".join(f"<tr><th align=left>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    address = "<br>".join(escape(line) for line in customer if line)
    link = ""
    if receipt.stripe_receipt_url:
        url = escape(receipt.stripe_receipt_url)
        link = f'<p><a href="{url}" rel="noreferrer">Receipt of the payment processor</a></p>'
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>Receipt {escape(receipt.topup)}</title><h1>Receipt</h1>"
        f"<address>{address}</address><table>{lines}</table>{link}</html>\n"
    )
