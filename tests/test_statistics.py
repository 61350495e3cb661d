"""What may be concluded of settings that share originals: exact against the definitions, and by simulation."""

import time
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from miaprune import statistics
from miaprune.report import claims

VALUES = [np.array([1.0, 2.0, 6.0]), np.array([-1.0]), np.array([0.5, 0.25])]


def flipped(values):
    """The p-value by its definition."""
    sums = [sum(sign * value for sign, value in zip(signs, values, strict=True)) for signs in signs_of(len(values))]
    return sum(total >= sum(values) for total in sums) / len(sums)


def signs_of(n):
    return list(product((1, -1), repeat=n))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_sign_flips_are_all_tried(n, seed):
    values = [float(v) for v in np.random.default_rng(seed).integers(-8, 12, n)]  # whole: their sums are exact
    assert statistics.sign_flip_test(np.array(values), 0) == flipped(values)


def test_the_least_p_value_is_one_pattern_of_all():
    assert statistics.sign_flip_test(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), 0) == 1 / 32
    assert statistics.sign_flip_test(np.full(16, 0.1), 0) == 2.0**-16
    assert statistics.sign_flip_test(np.full(5, -0.1), 0) == 1.0


def test_ties_are_no_evidence_and_rounding_makes_none():
    assert statistics.sign_flip_test(np.zeros(6), 0) == statistics.sign_flip_test(np.zeros(20), 0) == 1.0
    assert statistics.sign_flip_test(np.array([]), 0) == 1.0
    # Flipping the first three changes the sum of these by nothing, but for rounding.
    values = np.array([0.1, 0.2, -0.3, 1.0])
    assert statistics.sign_flip_test(values, 0) == flipped([1.0, 2.0, -3.0, 10.0])


def test_above_sixteen_flips_are_sampled_with_a_fixed_generator():
    values = np.random.default_rng(0).normal(0.4, 1.0, statistics.EXACT)
    exact = statistics.sign_flip_test(values, 0)
    sampled = statistics.sign_flip_test(np.append(values, 0.0), 0)  # a zero doubles every pattern
    # A share of 65 535 draws: its standard deviation is below 0.002.
    assert sampled == pytest.approx(exact, abs=0.01) and sampled == statistics.sign_flip_test(np.append(values, 0.0), 0)
    assert statistics.sign_flip_test(np.full(40, 1.0), 0) == 2.0**-16, "the signs as they are count"


def test_an_original_counts_once():
    np.testing.assert_allclose(statistics.means(VALUES), [3.0, -1.0, 0.375])


def test_the_bootstrap_draws_originals_then_their_settings():
    """All draws of two originals with two settings each, by the definition, against the quantiles of many draws."""
    originals, means = [np.array([0.0, 1.0]), np.array([10.0, 14.0])], []
    for drawn in product(originals, repeat=2):
        for first, second in product(product(drawn[0], repeat=2), product(drawn[1], repeat=2)):
            means.append(np.mean([np.mean(first), np.mean(second)]))
    # Each of 64 equally likely means; 2.5 % lies within the second lowest, which is far from the third.
    low, high = statistics.mean_interval(originals, 0)
    assert low in np.sort(means)[:3] and high in np.sort(means)[-3:]
    resampled = statistics.mean_interval(originals, 0, 20_000), statistics.mean_interval(originals, 1, 20_000)
    expected = np.percentile(means, [2.5, 97.5], method="inverted_cdf")
    for interval in resampled:
        np.testing.assert_allclose(interval, expected)


def test_an_original_alike_throughout_has_no_spread_within():
    originals = [np.full(3, 2.0), np.full(17, 4.0)]
    assert statistics.mean_interval(originals, 0) == (2.0, 4.0)
    assert statistics.mean_interval([np.full(3, 2.0)] * 3, 0) == (2.0, 2.0)


def test_the_whole_grid_with_eight_seeds_takes_less_than_a_second():
    originals = [np.random.default_rng(i).normal(size=16) for i in range(15 * 8)]
    start = time.process_time()
    statistics.mean_interval(originals, 0)
    assert time.process_time() - start < 1.0


# --- by simulation: settings of an original are alike, and no pruning has an effect


GRIDS, SETTINGS = 2000, 17


def supported(grid):
    """Whether the rule supports a claim with the differences of a grid, float [originals, settings]."""
    # Where the p-value says no already, the interval cannot say yes: it need not be drawn.
    p_value = statistics.sign_flip_test(grid.mean(axis=1), 0)
    if p_value >= claims.ALPHA:
        return False
    interval = statistics.mean_interval(list(grid), 0, 1000)
    return claims.verdict(len(grid), interval, p_value) == claims.SUPPORTED


def supported_before(grid):
    """The rule that was replaced, of settings as if they were independent: their bootstrap and their signs."""
    values = grid.ravel()
    above = np.count_nonzero(values > 0)
    draws = np.random.default_rng(0).choice(values, (200, len(values))).mean(axis=1)
    return np.percentile(draws, 2.5) > 0 and binomtest(above, len(values), alternative="greater").pvalue < claims.ALPHA


def grids(originals, count, effect=0.0):
    """Differences, float [count, originals, settings]: standard deviation 1 of originals, 0.3 within them."""
    rng = np.random.default_rng(originals)
    return effect + rng.normal(size=(count, originals, 1)) + 0.3 * rng.normal(size=(count, originals, SETTINGS))


MOST = 131
"""The binomial's 99.9 % quantile: a rule wrong in 5 % of the grids fails in 1 of 1 000 by chance."""


@pytest.mark.parametrize("originals", [6, 10, 15])
def test_where_nothing_happens_one_claim_in_twenty_is_supported_at_most(originals):
    assert sum(map(supported, grids(originals, GRIDS))) <= MOST


@pytest.mark.parametrize("originals", [6, 10, 15])
def test_an_effect_of_four_standard_errors_is_mostly_found(originals):
    effect = 4 * np.sqrt((1 + 0.3**2 / SETTINGS) / originals)
    assert np.mean([supported(grid) for grid in grids(originals, 200, effect)]) > 0.8


def test_settings_taken_for_independent_ones_support_what_is_not_there():
    """The rule that this one replaces: 31 of 300 is the 99.99 % quantile of a rule wrong in 5 %."""
    assert sum(map(supported_before, grids(10, 300))) > 60
