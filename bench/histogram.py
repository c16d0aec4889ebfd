"""A histogram with logarithmic buckets, in the manner of HdrHistogram: constant relative error, no samples kept.

Values below 4,096 are counted exactly. Above, each power of two is cut into 2,048 equal buckets, so that a
reported value is at most 0.025 % away from the recorded one (half a bucket of 1/2,048): fine enough to see
16 µs in a gap of 100 ms.
"""

from collections.abc import Iterable

SUB_BUCKET_BITS = 11
_EXACT_BELOW = 1 << (SUB_BUCKET_BITS + 1)
_SUB_BUCKETS = 1 << SUB_BUCKET_BITS
RELATIVE_ERROR = 1 / (2 * _SUB_BUCKETS)


def bucket_of(value: int) -> int:
    """Index of the bucket of a non-negative value; indices grow with values and leave no gap."""
    shift = value.bit_length() - (SUB_BUCKET_BITS + 1)
    if shift <= 0:
        return value
    return (shift << SUB_BUCKET_BITS) + (value >> shift)


def bucket_middle(bucket: int) -> int:
    """The value in the middle of a bucket."""
    if bucket < _EXACT_BELOW:
        return bucket
    shift = (bucket >> SUB_BUCKET_BITS) - 1
    low = (bucket - (shift << SUB_BUCKET_BITS)) << shift
    return low + (1 << shift) // 2


class Histogram:
    """Counts of non-negative integers (nanoseconds everywhere in this package)."""

    __slots__ = ("_counts", "count", "highest", "lowest", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.highest = 0
        self.lowest = 0

    def record(self, value: int) -> None:
        """Count one value; a negative one is a fault of the caller's clock and counts as zero."""
        if value < 0:
            value = 0
        bucket = bucket_of(value)
        counts = self._counts
        counts[bucket] = counts.get(bucket, 0) + 1
        if not self.count or value < self.lowest:
            self.lowest = value
        if value > self.highest:
            self.highest = value
        self.count += 1
        self.total += value

    def percentile(self, percent: float) -> int:
        """The value below or at which `percent` of the recorded ones lie (middle of its bucket); 0 when empty."""
        assert 0 < percent <= 100
        if not self.count:
            return 0
        rank = max(1, -(-int(self.count * percent * 1_000) // 100_000))
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return min(max(bucket_middle(bucket), self.lowest), self.highest)
        return self.highest

    def mean(self) -> float:
        """Exact mean of the recorded values; 0 when empty."""
        return self.total / self.count if self.count else 0.0

    def add(self, other: "Histogram") -> None:
        """Take in everything that another histogram has counted."""
        if not other.count:
            return
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.lowest = min(self.lowest, other.lowest) if self.count else other.lowest
        self.highest = max(self.highest, other.highest)
        self.count += other.count
        self.total += other.total

    def share_above(self, value: int) -> float:
        """Share (0 to 1) of the recorded values in buckets above the one of `value`."""
        if not self.count:
            return 0.0
        border = bucket_of(value)
        return sum(count for bucket, count in self._counts.items() if bucket > border) / self.count

    def rows(self) -> list[tuple[int, int]]:
        """(middle of bucket, count) in ascending order: the form in which results are published."""
        return [(bucket_middle(bucket), self._counts[bucket]) for bucket in sorted(self._counts)]


def histogram_of(values: Iterable[int]) -> Histogram:
    """A histogram of the given values."""
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram
