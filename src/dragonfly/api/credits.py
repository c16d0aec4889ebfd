"""GET /v1/credits: what the account has. OpenRouter's two numbers, and ours: settled, held and available apart."""

from collections.abc import Awaitable, Callable

import msgspec
from sqlalchemy import Engine

from dragonfly.admission.grants import KeyPolicy
from dragonfly.core.ids import AccountId
from dragonfly.core.money import NUSD_PER_USD, usd_text
from dragonfly.infra.database import DatabaseThreads, read
from dragonfly.ledger.queries import EMPTY_WALLET, Wallet, wallet_of

Reader = Callable[[KeyPolicy, dict[str, str], dict[str, str]], Awaitable[bytes]]


def credits_reader(engine: Engine, threads: DatabaseThreads) -> Reader:
    """Answers for the account of the calling key."""

    def find(account_id: AccountId) -> Wallet:
        with read(engine) as connection:
            return wallet_of(connection, account_id) or EMPTY_WALLET

    async def credits_of(key: KeyPolicy, params: dict[str, str], query: dict[str, str]) -> bytes:
        wallet = await threads.run(find, key.account_id)
        return msgspec.json.encode({"data": credits_shown(wallet)})

    return credits_of


def credits_shown(wallet: Wallet) -> dict[str, object]:
    """Dollars: JSON numbers under OpenRouter's names, decimal strings under ours.

    `balance` is settled money, `held` the part that is set aside for requests: those that run, and those that the
    gateway expects next. What is held and not used is available again within seconds.
    """
    return {
        "total_credits": wallet.credited_nusd / NUSD_PER_USD,
        "total_usage": wallet.charged_nusd / NUSD_PER_USD,
        "credited": usd_text(wallet.credited_nusd),
        "used": usd_text(wallet.charged_nusd),
        "balance": usd_text(wallet.balance_nusd),
        "held": usd_text(wallet.leased_nusd),
        "available": usd_text(wallet.available_nusd),
    }
