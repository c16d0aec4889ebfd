"""The form of a result: one row per comparator and quantity, with its samples."""

from collections.abc import Sequence
from statistics import median, quantiles

import msgspec


class Row(msgspec.Struct, frozen=True):
    """One figure. `value` is the median of `samples`, None when it was refused; `unit` is its last word."""

    comparator: str
    measure: str
    unit: str
    value: float | None = None
    low: float | None = None
    """First quartile of the samples."""
    high: float | None = None
    """Third quartile of the samples."""
    samples: list[float] = []
    refused: str = ""
    """Why there is no value."""
    notes: dict[str, float | str] = {}
    """Figures beside it, e.g. the share of CPU time in user space."""
    ratio: float | None = None
    """To nginx: the median over pairs of windows that were measured one right after the other."""
    ratio_low: float | None = None
    ratio_high: float | None = None


def row(
    comparator: str, measure: str, unit: str, samples: Sequence[float], notes: dict[str, float | str] | None = None
) -> Row:
    """A row from the samples of repeated windows or rounds."""
    assert samples
    low, high = quartiles(samples)
    kept = [round(sample, 4) for sample in samples]
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in (notes or {}).items()}
    return Row(comparator, measure, unit, round(median(samples), 4), low, high, kept, notes=shown)


def paired(made: Row, floor: Sequence[float]) -> Row:
    """The row with its ratios to samples of nginx that were taken in turns with it."""
    ratios = [mine / theirs for mine, theirs in zip(made.samples, floor, strict=True)]
    low, high = quartiles(ratios)
    notes = made.notes | {"nginx": round(median(floor), 4)}
    return msgspec.structs.replace(made, notes=notes, ratio=round(median(ratios), 4), ratio_low=low, ratio_high=high)


def refused(comparator: str, measure: str, unit: str, reason: object) -> Row:
    """A row that says why there is no figure."""
    return Row(comparator, measure, unit, refused=str(reason))


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; the extremes when there are fewer than four samples."""
    if len(samples) < 4:
        return round(min(samples), 4), round(max(samples), 4)
    first, _, third = quantiles(samples, n=4, method="inclusive")
    return round(first, 4), round(third, 4)
