"""What an erasure leaves in people's hands: what is gone, what stays, why and until when."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from dragonfly.core.money import NanoUsd, usd_text
from dragonfly.privacy.erasure import Certificate, Stays
from dragonfly.privacy.inventory import BOOKS, described_tables
from dragonfly.privacy.signing import is_signed, public_key_of, sign

WORDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {
            "erased": "Erased for good:",
            "emptied": "Emptied, so that a random number is left:",
            "stays": "Stays, under a random number that leads to nobody:",
            "without": "Never led to an account:",
            "balance": "Balance that was given up: {amount} USD",
            "rows": "{purpose}: {count}",
            "until": "{purpose}: {count}. Why: {why}. Until: {until}.",
            "books": "the end of the time for which books must be kept by law",
            "date": "{date} at the latest ({lifetime})",
        },
        "zh": {
            "erased": "已永久清除：",
            "emptied": "已清空，仅留下一个随机编号：",
            "stays": "必须保留，仅以无法关联到任何人的随机编号保存：",
            "without": "从未关联到账户：",
            "balance": "已放弃的余额：{amount} 美元",
            "rows": "{purpose}：{count}",
            "until": "{purpose}：{count}。原因：{why}。期限：{until}。",
            "books": "法律规定的账簿保存期届满",
            "date": "最迟 {date}（{lifetime}）",
        },
    }
)


def certificate_text(certificate: Certificate, language: str) -> str:
    """In lines for people; purposes of tables as the data map has them."""
    words = WORDS["zh" if language == "zh" else "en"]
    purposes = {described.entry.name: described.entry.purpose for described in described_tables()}
    lines = [words["erased"]]
    for name, count in sorted(certificate.deleted.items()):
        if count:
            lines.append("- " + words["rows"].format(purpose=purposes[name], count=count))
    lines += ["", words["emptied"]]
    for name, count in sorted(certificate.emptied.items()):
        lines.append("- " + words["rows"].format(purpose=purposes[name], count=count))
    lines += ["", words["stays"]]
    for one in certificate.stays:
        if one.rows:
            until = until_text(one, certificate.erased_at_ns, language)
            lines.append("- " + words["until"].format(purpose=one.purpose, count=one.rows, why=one.why, until=until))
    if certificate.balance_given_up_nusd:
        amount = usd_text(NanoUsd(certificate.balance_given_up_nusd))
        lines += ["", words["balance"].format(amount=amount)]
    lines += ["", words["without"]]
    lines += [f"- {what}" for _, what in sorted(certificate.without_owner.items())]
    return "\n".join(lines)


def until_text(one: Stays, erased_at_ns: int, language: str) -> str:
    """A day where the inventory counts days, else what ends it."""
    words = WORDS["zh" if language == "zh" else "en"]
    if one.lifetime_ns is not None:
        date = datetime.fromtimestamp((erased_at_ns + one.lifetime_ns) / 1e9, UTC).strftime("%Y-%m-%d")
        return words["date"].format(date=date, lifetime=one.until)
    return words["books"] if one.until == BOOKS else one.until


def signed_certificate(certificate: Certificate, key: bytes) -> str:
    """The certificate as JSON, with its signature by this installation over the canonical fields."""
    stays = [
        {**one._asdict(), "until_text": until_text(one, certificate.erased_at_ns, "en")} for one in certificate.stays
    ]
    fields = {**certificate._asdict(), "stays": stays}
    signed = {"certificate": fields, "signature": sign(fields, key), "public_key": public_key_of(key)}
    return json.dumps(signed, indent=2, sort_keys=True)


def is_genuine(text: str, public_key: str) -> bool:
    """True when the owner of `public_key` signed the certificate and nobody has changed it since."""
    try:
        signed = json.loads(text)
        return is_signed(signed["certificate"], str(signed["signature"]), public_key)
    except (ValueError, KeyError, TypeError):
        return False
