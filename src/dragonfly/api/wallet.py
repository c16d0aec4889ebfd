"""/api/wallet: the balance, its lots and movements, top-ups, automatic top-ups, receipts, refund requests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Depends, Path, Query
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from dragonfly.api.desk import Desk
from dragonfly.api.principal import Principal, customer, requires
from dragonfly.api.receipt_page import LINK_S, ReceiptLinks, receipt_page
from dragonfly.api.repeats import HEADER, kept
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Page, cursor_position, page_of
from dragonfly.api.wallet_shapes import (
    BillingShown,
    CardPayments,
    CodeRedeemed,
    CodeWanted,
    LotShown,
    ReceiptLink,
    ReceiptShown,
    RechargeShown,
    RechargeWanted,
    RefundShown,
    RefundWanted,
    TopupShown,
    TopupWanted,
    TransactionShown,
    WalletShown,
    billing_shown,
    lot_shown,
    receipt_shown,
    recharge_shown,
    refund_shown,
    topup_shown,
    transaction_shown,
)
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.money import usd_text
from dragonfly.ledger.queries import EMPTY_WALLET, credits_of_account, lots_of_account, wallet_of
from dragonfly.payments.actions import set_billing
from dragonfly.payments.jobs import StripeThreads
from dragonfly.payments.promo import redeem
from dragonfly.payments.queries import (
    Billing,
    Topup,
    billing_of,
    is_frozen,
    refunds_of_account,
    refunds_of_topup,
    standing_of,
    topup_of_account,
    topups_of_account,
)
from dragonfly.payments.recharge import RechargeInvalid, recharge_of, set_recharge, stop_recharge
from dragonfly.payments.refunding import request_refund
from dragonfly.payments.rules import DAY_NS, cents_text, parse_cents, topup_cents_max
from dragonfly.payments.topups import Cashier, TopupNotFound, TopupWish

T = TypeVar("T")

Reader = Annotated[Principal, Depends(requires("wallet:read"))]
Person = Annotated[Principal, Depends(customer)]
TopupId = Annotated[str, Path(max_length=80, description="The top-up's id: top-…")]
Language = Annotated[Literal["en", "zh"], Query(description="Of the page.")]
NOT_SET_UP = (
    "Card payments are not set up here. An operator sets payments.stripe_secret_key and"
    " payments.stripe_webhook_secret; until then credit comes from codes and grants."
)


class PaymentsNotSetUp(DragonflyError):
    """This installation takes no payments."""

    code = "payments_not_set_up"
    status = 409

    def __init__(self) -> None:
        super().__init__(NOT_SET_UP)


@dataclass(frozen=True, slots=True)
class PaymentDesk:
    """What the routes of payments work with."""

    desk: Desk
    threads: StripeThreads
    cashier: Cashier | None
    """None: no card payments here."""
    address_digest: Callable[[Request], str]
    """A keyed hash of where a request comes from."""
    receipts: ReceiptLinks
    is_simulated: bool = False
    seller: str = "Dragonfly"
    """Who stands on receipts, with the address of the installation."""
    seller_url: str = ""

    def open(self) -> Cashier:
        """The cashier. PaymentsNotSetUp."""
        if self.cashier is None:
            raise PaymentsNotSetUp
        return self.cashier


def wallet_routes(payments: PaymentDesk) -> APIRouter:
    """What a customer sees and does about money."""
    routes = APIRouter(prefix="/api/wallet", tags=["wallet"])
    _balance(routes, payments)
    _topups(routes, payments)
    _receipts(routes, payments)
    _refunds(routes, payments)
    _recharges(routes, payments)
    return routes


def _balance(routes: APIRouter, payments: PaymentDesk) -> None:
    desk = payments.desk

    @routes.get("", operation_id="get_wallet", summary="Balance, and how one can pay")
    async def get_wallet(principal: Reader) -> WalletShown:
        def find(connection: Connection) -> WalletShown:
            wallet = wallet_of(connection, principal.account_id) or EMPTY_WALLET
            return WalletShown(
                balance=usd_text(wallet.balance_nusd),
                held=usd_text(wallet.leased_nusd),
                available=usd_text(wallet.available_nusd),
                used=usd_text(wallet.charged_nusd),
                frozen=is_frozen(connection, principal.account_id),
                card_payments=_card_payments(connection, payments, principal.account_id),
            )

        return await desk.read(find)

    @routes.get("/lots", operation_id="list_lots", summary="Where the credit comes from, oldest first")
    async def list_lots(principal: Reader, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None) -> Page[LotShown]:
        position = cursor_position("lots", cursor, int, str)
        after = (0, "") if position is None else (int(position[0]), str(position[1]))

        def find(connection: Connection) -> Page[LotShown]:
            found = lots_of_account(connection, principal.account_id, after=after, limit=limit + 1)
            page, following = page_of(found, limit, "lots", lambda lot: (lot.created_at_ns, lot.id))
            return Page(data=[lot_shown(lot) for lot in page], next_cursor=following)

        return await desk.read(find)

    @routes.get("/transactions", operation_id="list_transactions", summary="What changed the balance, besides usage")
    async def list_transactions(
        principal: Reader, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
    ) -> Page[TransactionShown]:
        before = _before("transactions", cursor)

        def find(connection: Connection) -> Page[TransactionShown]:
            found = credits_of_account(connection, principal.account_id, before=before, limit=limit + 1)
            page, following = page_of(found, limit, "transactions", lambda one: (one.created_at_ns, one.group_id))
            return Page(data=[transaction_shown(one) for one in page], next_cursor=following)

        return await desk.read(find)

    @routes.post("/codes", operation_id="redeem_code", summary="Use a promotional code", openapi_extra=kept())
    async def redeem_code(principal: Person, wanted: CodeWanted) -> CodeRedeemed:
        now_ns = desk.clock.now_ns()
        code = await desk.write(
            lambda connection: redeem(connection, principal.account_id, wanted.code, now_ns=now_ns)
        )
        expires_at = None if code.credit_days is None else moment_text(now_ns + code.credit_days * DAY_NS)
        return CodeRedeemed(amount=usd_text(code.amount_nusd), expires_at=expires_at)


def _topups(routes: APIRouter, payments: PaymentDesk) -> None:
    desk = payments.desk

    @routes.post(
        "/topups", status_code=201, operation_id="create_topup", summary="Begin a payment", openapi_extra=kept()
    )
    async def create_topup(principal: Person, wanted: TopupWanted, request: Request) -> TopupShown:
        """Open `url` to pay. The credit arrives when Stripe says that the payment is settled."""
        cashier = payments.open()
        wish = TopupWish(
            account_id=principal.account_id,
            amount=wanted.amount,
            client_key=request.headers.get(HEADER.decode()),
            language=wanted.language,
            saves_card=wanted.save_card,
            address_digest=payments.address_digest(request),
        )
        return topup_shown(await payments.threads.run(cashier.begin, wish))

    @routes.get("/topups", operation_id="list_topups", summary="Payments, the newest first")
    async def list_topups(principal: Reader, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None) -> Page[TopupShown]:
        before = _before("topups", cursor)

        def find(connection: Connection) -> Page[TopupShown]:
            found = topups_of_account(connection, principal.account_id, before=before, limit=limit + 1)
            page, following = page_of(found, limit, "topups", lambda one: (one.created_at_ns, one.id))
            return Page(data=[topup_shown(one) for one in page], next_cursor=following)

        return await desk.read(find)

    @routes.get("/topups/{topup_id}", operation_id="get_topup", summary="One payment")
    async def get_topup(principal: Reader, topup_id: TopupId) -> TopupShown:
        return topup_shown(await desk.read(lambda connection: _own(connection, principal, topup_id)))

    @routes.post("/topups/{topup_id}/check", operation_id="check_topup", summary="Check my payment")
    async def check_topup(principal: Person, topup_id: TopupId) -> TopupShown:
        """Asks Stripe now, for a payment whose credit does not show."""
        cashier = payments.open()
        return topup_shown(await payments.threads.run(cashier.check, principal.account_id, topup_id))


def _receipts(routes: APIRouter, payments: PaymentDesk) -> None:
    desk = payments.desk

    @routes.get("/topups/{topup_id}/receipt", operation_id="get_receipt", summary="The receipt of a payment")
    async def get_receipt(principal: Reader, topup_id: TopupId) -> ReceiptShown:
        return await desk.read(lambda connection: receipt_of(connection, principal.account_id, topup_id))

    @routes.get(
        "/topups/{topup_id}/receipt.html",
        operation_id="print_receipt",
        summary="The receipt to print",
        response_class=Response,
        responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
    )
    async def print_receipt(principal: Reader, topup_id: TopupId, lang: Language = "en") -> Response:
        receipt = await desk.read(lambda connection: receipt_of(connection, principal.account_id, topup_id))
        return receipt_page(receipt, lang, seller=payments.seller, seller_url=payments.seller_url)

    @routes.post(
        "/topups/{topup_id}/receipt-link", operation_id="link_receipt", summary="A link to open the receipt with"
    )
    async def link_receipt(principal: Person, topup_id: TopupId, lang: Language = "en") -> ReceiptLink:
        """For browsers, which send no key when they open a page."""
        await desk.read(lambda connection: receipt_of(connection, principal.account_id, topup_id))
        now_ns = desk.clock.now_ns()
        url = payments.seller_url + payments.receipts.make(topup_id, lang, now_ns=now_ns)
        return ReceiptLink(url=url, expires_at=moment_text(now_ns + LINK_S * 10**9))

    @routes.get("/billing", operation_id="get_billing", summary="What stands on receipts")
    async def get_billing(principal: Person) -> BillingShown:
        return billing_shown(await desk.read(lambda connection: billing_of(connection, principal.account_id)))

    @routes.put("/billing", operation_id="set_billing", summary="Change what stands on receipts")
    async def put_billing(principal: Person, wanted: BillingShown) -> BillingShown:
        now_ns = desk.clock.now_ns()
        billing = Billing(**wanted.model_dump())
        await desk.write(lambda connection: set_billing(connection, principal.account_id, billing, now_ns=now_ns))
        return wanted


def _refunds(routes: APIRouter, payments: PaymentDesk) -> None:
    desk = payments.desk

    @routes.post(
        "/refunds", status_code=201, operation_id="request_refund", summary="Ask for a refund", openapi_extra=kept()
    )
    async def create_refund(principal: Person, wanted: RefundWanted) -> RefundShown:
        """Support decides. Only paid credit that is unused goes back, to the payment method that was used."""

        def ask(connection: Connection) -> RefundShown:
            refund = request_refund(
                connection,
                desk.ids,
                principal.account_id,
                topup_id=wanted.topup,
                amount=wanted.amount,
                reason=wanted.reason,
                now_ns=desk.clock.now_ns(),
            )
            return refund_shown(refund)

        return await desk.write(ask)

    @routes.get("/refunds", operation_id="list_refunds", summary="The newest refunds and requests")
    async def list_refunds(principal: Person, limit: Limit = PAGE_DEFAULT) -> list[RefundShown]:
        found = await desk.read(lambda connection: refunds_of_account(connection, principal.account_id, limit=limit))
        return [refund_shown(one) for one in found]


def receipt_of(connection: Connection, account_id: AccountId, topup_id: str) -> ReceiptShown:
    """The receipt of the account's paid top-up. TopupNotFound."""
    topup = topup_of_account(connection, account_id, topup_id)
    if topup is None or topup.state != "paid":
        raise TopupNotFound
    return receipt_shown(topup, refunds_of_topup(connection, topup_id), billing_of(connection, account_id))


def _recharges(routes: APIRouter, payments: PaymentDesk) -> None:
    desk = payments.desk

    @routes.get("/auto-recharge", operation_id="get_auto_recharge", summary="Automatic top-ups")
    async def get_recharge(principal: Person) -> RechargeShown:
        return recharge_shown(await desk.read(lambda connection: recharge_of(connection, principal.account_id)))

    @routes.put("/auto-recharge", operation_id="set_auto_recharge", summary="Agree to automatic top-ups")
    async def put_recharge(principal: Person, wanted: RechargeWanted) -> RechargeShown:
        """Without a saved card they begin with the next top-up that has `save_card`."""
        cashier = payments.open()
        threshold, amount, cap = (parse_cents(text) for text in (wanted.threshold, wanted.amount, wanted.monthly_cap))
        if threshold is None or amount is None or cap is None:
            raise RechargeInvalid
        cents = (threshold, amount, cap)

        def agree(connection: Connection) -> RechargeShown:
            stored = set_recharge(
                connection,
                cashier.terms,
                principal.account_id,
                threshold_cents=cents[0],
                amount_cents=cents[1],
                monthly_cap_cents=cents[2],
                now_ns=desk.clock.now_ns(),
            )
            return recharge_shown(stored)

        return await desk.write(agree)

    @routes.delete(
        "/auto-recharge", status_code=204, operation_id="stop_auto_recharge", summary="End automatic top-ups"
    )
    async def delete_recharge(principal: Person) -> None:
        now_ns = desk.clock.now_ns()
        await desk.write(lambda connection: stop_recharge(connection, principal.account_id, now_ns=now_ns))


def _card_payments(connection: Connection, payments: PaymentDesk, account_id: AccountId) -> CardPayments:
    cashier = payments.cashier
    if cashier is None:
        return CardPayments(
            enabled=False, message=NOT_SET_UP, methods=[], tax="off", minimum=None, maximum=None, simulated=False
        )
    terms, now_ns = cashier.terms, payments.desk.clock.now_ns()
    standing = standing_of(connection, account_id, address_digest=None, now_ns=now_ns)
    simulated = "This is a demo: no money moves. Choose a test card on the payment page."
    return CardPayments.model_validate(
        {
            "enabled": True,
            "message": simulated if payments.is_simulated else "Payments are processed by Stripe.",
            "methods": list(terms.methods),
            "tax": terms.tax,
            "minimum": cents_text(terms.limits.cents_min),
            "maximum": cents_text(topup_cents_max(terms.limits, standing, now_ns)),
            "simulated": payments.is_simulated,
        }
    )


def _own(connection: Connection, principal: Principal, topup_id: str) -> Topup:
    topup = topup_of_account(connection, principal.account_id, topup_id)
    if topup is None:
        raise TopupNotFound
    return topup


def _before(kind: str, cursor: str | None) -> tuple[int, str] | None:
    position = cursor_position(kind, cursor, int, str)
    return None if position is None else (int(position[0]), str(position[1]))
