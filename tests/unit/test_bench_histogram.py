"""The benchmark's histogram and its statistics."""

import random
from itertools import pairwise

import pytest

from bench.histogram import RELATIVE_ERROR, Histogram, bucket_middle, bucket_of, histogram_of
from bench.measures.memory import slope
from bench.rows import quartiles, row


@pytest.mark.parametrize("value", [0, 1, 4_095, 4_096, 4_097, 8_191, 8_192, 123_456, 10**9, 2**62 + 12_345])
def test_a_value_is_reported_within_the_promised_error(value: int) -> None:
    assert abs(bucket_middle(bucket_of(value)) - value) <= value * RELATIVE_ERROR + 0.5


def test_buckets_grow_with_values_and_leave_no_gap() -> None:
    borders = [bucket_of(value) for value in range(40_000)]
    assert {later - earlier for earlier, later in pairwise(borders)} == {0, 1}


@pytest.mark.parametrize("percent", [1, 25, 50, 90, 99, 99.9, 100])
def test_percentiles_agree_with_sorted_samples(percent: float) -> None:
    source = random.Random(7)
    values = sorted(int(source.lognormvariate(12, 1)) for _ in range(20_000))
    rank = max(1, -(-int(len(values) * percent * 1_000) // 100_000))
    exact = values[rank - 1]
    assert histogram_of(values).percentile(percent) == pytest.approx(exact, rel=2 * RELATIVE_ERROR)


def test_mean_count_and_extremes_are_exact() -> None:
    histogram = histogram_of([3, 5_000_001, 70_000_003])
    assert histogram.count == 3
    assert histogram.mean() == pytest.approx(75_000_007 / 3)
    assert (histogram.lowest, histogram.highest) == (3, 70_000_003)
    assert histogram.percentile(100) == 70_000_003


def test_added_histograms_equal_one_histogram_of_everything() -> None:
    left, right, both = histogram_of(range(0, 10**6, 777)), histogram_of(range(5, 10**5, 91)), Histogram()
    both.add(left)
    both.add(right)
    both.add(Histogram())
    whole = histogram_of([*range(0, 10**6, 777), *range(5, 10**5, 91)])
    assert both.rows() == whole.rows()
    assert (both.count, both.total, both.lowest, both.highest) == (
        whole.count,
        whole.total,
        whole.lowest,
        whole.highest,
    )


def test_the_share_above_a_border_counts_only_what_is_above_it() -> None:
    assert histogram_of([10, 20, 30, 40]).share_above(20) == pytest.approx(0.5)
    assert Histogram().share_above(0) == 0.0


def test_an_empty_histogram_has_zero_percentiles() -> None:
    assert Histogram().percentile(50) == 0


def test_a_row_shows_the_median_and_the_quartiles_of_its_samples() -> None:
    made = row("nginx", "cpu_request_1", "µs", [5.0, 1.0, 2.0, 3.0, 4.0])
    assert (made.value, made.low, made.high) == (3.0, 2.0, 4.0)
    assert made.samples == [5.0, 1.0, 2.0, 3.0, 4.0]


def test_three_samples_have_their_extremes_as_spread() -> None:
    assert quartiles([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_the_slope_of_a_line_is_found_beside_a_constant() -> None:
    assert slope([(0, 100.0), (1_000, 3_100.0), (5_000, 15_100.0)]) == pytest.approx(3.0)
