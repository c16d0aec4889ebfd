"""What an operator has set for payments, in the form in which actions and jobs want it."""

from dataclasses import dataclass

from dragonfly.payments.rules import TopupLimits


@dataclass(frozen=True, slots=True)
class PaymentTerms:
    """The conditions under which money is taken."""

    limits: TopupLimits
    methods: tuple[str, ...]
    tax: str
    """"off", "exclusive" or "inclusive"."""
    livemode: bool
    """Real money: events and objects of the test mode are refused, and the other way round."""
    public_url: str
    """Where customers come back to, without a slash at the end."""
    connected_account: str = ""
    """Events of another account than this one are refused; empty: only events that name none are taken."""
    operator_address: str = ""
    """Who is told of disputes and other trouble; empty: nobody."""
    operator_language: str = "en"

    def return_url(self, topup_id: str) -> str:
        """The page of one top-up."""
        return f"{self.public_url}/wallet/topups/{topup_id}"
