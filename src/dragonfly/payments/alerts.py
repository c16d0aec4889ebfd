"""Mails to the operator about money: what needs a person, once per occurrence, in the operator's language."""

from collections.abc import Mapping
from enum import Enum

from sqlalchemy import Connection

from dragonfly.core.ids import IdSource
from dragonfly.mail.alerts import Operator, queue_alert
from dragonfly.payments.terms import PaymentTerms


class Alert(Enum):
    """What an operator is told of. The value stands in mails and in their idempotency keys: never rename one."""

    DISPUTE_OPENED = "dispute_opened"
    FRAUD_WARNING = "fraud_warning"
    DISPUTE_RATE = "dispute_rate"
    PAYMENT_DIFFERS = "payment_differs"
    RECONCILIATION_FAILED = "reconciliation_failed"
    WEBHOOKS_REFUSED = "webhooks_refused"
    EVENT_GIVEN_UP = "event_given_up"


_WORDS: Mapping[Alert, tuple[str, str]] = {
    Alert.DISPUTE_OPENED: (
        "Payment {topup} of {amount} USD is disputed ({reason}, {dispute}). Evidence is taken until {due}.\n"
        "GET /api/admin/payments/disputes has what the bank can be shown.",
        "付款 {topup}（{amount} 美元）被提出争议（{reason}，{dispute}）。证据提交截止时间：{due}。\n"
        "可提交给银行的材料：GET /api/admin/payments/disputes。",
    ),
    Alert.FRAUD_WARNING: (
        "A card network suspects payment {topup} of {amount} USD of fraud ({kind}). What was done: {response}.\n"
        "The account is stopped until you lift it, unless nothing was done.",
        "发卡组织怀疑付款 {topup}（{amount} 美元）存在欺诈（{kind}）。已采取的措施：{response}。\n"
        "除非未采取措施，该账户在您解除之前一直停用。",
    ),
    Alert.DISPUTE_RATE: (
        "{disputes} disputes in {payments} payments by card within 30 days: {per_mille} in a thousand, above the"
        " threshold of {threshold}. Card networks call 7 in a thousand excessive.",
        "30 天内 {payments} 笔银行卡付款中有 {disputes} 笔争议：每千笔 {per_mille} 笔，超过阈值 {threshold}。"
        "发卡组织将每千笔 7 笔视为过高。",
    ),
    Alert.PAYMENT_DIFFERS: (
        "Stripe and the books differ on payment {topup} ({reason}). It is not credited until you have looked.\n"
        "GET /api/admin/payments/topups?q={topup} and GET /api/admin/payments/comparison show it.",
        "付款 {topup} 在 Stripe 与账本中不一致（{reason}）。在您核查之前不会入账。\n"
        "查看：GET /api/admin/payments/topups?q={topup} 和 GET /api/admin/payments/comparison。",
    ),
    Alert.RECONCILIATION_FAILED: (
        "Stripe could not be asked for what webhooks missed, {times} times in a row ({reason}). Check the key and"
        " Stripe's status page; it is tried again every hour.",
        "连续 {times} 次无法向 Stripe 核对 webhook 遗漏的内容（{reason}）。请检查密钥和"
        " Stripe 状态页；系统每小时重试。",
    ),
    Alert.WEBHOOKS_REFUSED: (
        "{count} requests to the Stripe webhook were refused today ({reason}). If they are Stripe's, check the"
        " webhook's secret, mode and account; until then the hourly reconciliation credits payments.",
        "今天有 {count} 个发往 Stripe webhook 的请求被拒绝（{reason}）。如果它们确实来自 Stripe，请检查"
        " webhook 的密钥、模式和账户；在此之前由每小时的核对为付款入账。",
    ),
    Alert.EVENT_GIVEN_UP: (
        "Stripe's event {event} ({type}) was tried {tries} times and given up.\n"
        "POST /api/admin/payments/events/{event}/resend has it looked at again.",
        "Stripe 事件 {event}（{type}）尝试 {tries} 次后已放弃。\n"
        "重新处理：POST /api/admin/payments/events/{event}/resend。",
    ),
}


def alert_operator(
    connection: Connection,
    ids: IdSource,
    terms: PaymentTerms,
    alert: Alert,
    *,
    key: str,
    values: Mapping[str, str | int],
    now_ns: int,
) -> None:
    """Queues it in the caller's transaction; nothing where no operator's address is set. `key` is the occurrence."""
    english, chinese = _WORDS[alert]
    words = chinese if terms.operator_language == "zh" else english
    queue_alert(
        connection,
        ids,
        Operator(terms.operator_address, terms.operator_language),
        event=alert.value,
        detail=words.format_map(values),
        key=f"{alert.value}/{key}",
        now_ns=now_ns,
    )
