"""The last events of a stream: those that were held back until the charge was durable, and those that are ours."""

from msgspec import Raw

from dragonfly.gateway.wire.answer import render_last_chunk, render_usage_chunk, usage_fields
from dragonfly.providers.dialects import EventFacts

DONE = b"data: [DONE]\n\n"


class Tail:
    """Events that wait, with what is known of each."""

    __slots__ = ("events", "facts")

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.facts: list[EventFacts] = []

    def add(self, event: bytes, facts: EventFacts) -> None:
        self.events.append(event)
        self.facts.append(facts)

    def model(self) -> Raw | None:
        """The model that the provider says has answered."""
        return self._last_value("model")

    def upstream_usage(self) -> dict[str, Raw]:
        """The provider's last usage object, field by field; {} when there is none."""
        last = self._last_with_usage()
        upstream = self.facts[last].obj if last is not None else None
        return usage_fields(upstream.get("usage") if upstream is not None else None)

    def with_usage(self, *, created_s: int, model: str, provider: str, usage: bytes) -> bytes:
        """The events; the last one with usage rendered anew, or one of our own before [DONE]."""
        pieces = list(self.events)
        last = self._last_with_usage()
        if last is not None:
            fields = self.facts[last].obj
            assert fields is not None
            pieces[last] = render_last_chunk(fields, model=model, provider=provider, usage=usage)
        else:
            chunk = render_usage_chunk(
                answer_id=self._last_value("id"), created_s=created_s, model=model, provider=provider, usage=usage
            )
            position = next((i for i, facts in enumerate(self.facts) if facts.done), len(pieces))
            pieces.insert(position, chunk)
        return self._with_done(pieces)

    def without_usage(self) -> bytes:
        """The events as they came, without the extra chunk that the client did not ask for."""
        pairs = zip(self.events, self.facts, strict=True)
        return self._with_done([event for event, facts in pairs if not (facts.choices_empty and facts.usage)])

    def _with_done(self, pieces: list[bytes]) -> bytes:
        """Every stream of ours ends with [DONE], also where the provider never sends it."""
        if not any(facts.done for facts in self.facts):
            pieces.append(DONE)
        return b"".join(pieces)

    def _last_with_usage(self) -> int | None:
        for index in range(len(self.facts) - 1, -1, -1):
            facts = self.facts[index]
            if facts.usage is not None and facts.obj is not None:
                return index
        return None

    def _last_value(self, name: str) -> Raw | None:
        for facts in reversed(self.facts):
            if facts.obj is not None and name in facts.obj:
                return facts.obj[name]
        return None
