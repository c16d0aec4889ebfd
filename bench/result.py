"""A run as it is published, and the look-ups that the report, the documents and the tests share."""

from pathlib import Path

import msgspec

from bench.rows import Row

FORMAT = 1
RESULTS = Path(__file__).resolve().parent / "results"


class Result(msgspec.Struct, frozen=True):
    """Everything of one run. `quiet` tells how much other processes used meanwhile."""

    format: int
    date: str
    plan: str
    machine: dict[str, str | int]
    quiet: dict[str, float]
    circumstances: dict[str, str]
    versions: dict[str, str]
    does: dict[str, str]
    configurations: dict[str, dict[str, str]]
    rows: list[Row]

    def find(self, comparator: str, measure: str) -> Row | None:
        """The row of a comparator and a measure."""
        return next((one for one in self.rows if one.comparator == comparator and one.measure == measure), None)

    def value(self, comparator: str, measure: str) -> float | None:
        """The figure of a row; None when there is none."""
        found = self.find(comparator, measure)
        return found.value if found else None

    def ratio(self, comparator: str, measure: str, to: str = "nginx") -> float | None:
        """A figure over that of another comparator in the same run; to nginx from paired windows where there are."""
        found = self.find(comparator, measure)
        if to == "nginx" and found is not None and found.ratio is not None:
            return found.ratio
        mine, theirs = self.value(comparator, measure), self.value(to, measure)
        return mine / theirs if mine is not None and theirs else None


def write(result: Result, path: Path) -> None:
    """Write as indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read(path: Path) -> Result:
    """Read what `write` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Result)


def newest(folder: Path = RESULTS) -> Path | None:
    """The newest full result; files are named by date."""
    return max(folder.glob("20*.json"), default=None)
