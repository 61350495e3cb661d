"""What may be concluded from differences that were measured in settings which share originals (method, section 16).

``originals`` holds for each original, a (dataset, model, seed), the differences of its settings, float [settings].
Settings of one original are not independent: they start from the same weights, and are attacked with the same
records. So an original counts once, by its mean, whatever the number of its settings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
"""Bootstrap resamples behind an interval."""

EXACT = 16
"""Most originals of which all sign flips are tried: 2^16."""

FLIPS = 2**16 - 1
"""Sign flips that are drawn above `EXACT` originals: with the signs as they are 2^16."""


def means(originals: Sequence[np.ndarray]) -> np.ndarray:
    """Mean difference of each original, float64 [originals]."""
    return np.array([np.mean(values, dtype=np.float64) for values in originals])


def mean_interval(originals: Sequence[np.ndarray], seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval of the mean over originals of their means, by the hierarchical bootstrap.

    A resample draws as many originals as there are, with replacement, and of each of those drawn as many settings as it
    has, anew each time that it is drawn (Davison and Hinkley, *Bootstrap Methods*, 1997, section 3.8). With fewer
    than ten originals it is too narrow: method, section 16, has the measured rates.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(originals), (resamples, len(originals)))
    resampled = np.empty(drawn.shape)
    for i, values in enumerate(originals):
        here = drawn == i
        resampled[here] = rng.choice(values, (len(values), np.count_nonzero(here))).mean(axis=0)
    low, high = np.percentile(resampled.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def sign_flip_test(values: np.ndarray, seed: int) -> float:
    """One-sided p-value that ``values`` [n] lie above 0: the share of their sign flips with at least their sum.

    Exact up to `EXACT` values: the least that n can give is 2^-n. Above, `FLIPS` are drawn, and the signs as they are
    count as one more (Phipson and Smyth, SAGMB 2010). Its level holds if each value is as likely to be x as -x (Canay,
    Romano and Shaikh, Econometrica 2017, where a value is a cluster's mean). Without values it is 1.
    """
    if len(values) <= EXACT:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
    else:
        kept = np.random.default_rng(seed).integers(0, 2, (FLIPS, len(values)), dtype=np.int8)
        sums = np.concatenate([[values.sum()], 2 * (kept @ values) - values.sum()])
    # The first sum has the signs as they are. Sums that are equal but for rounding are equal.
    return float(np.mean(sums >= sums[0] - 1e-9 * np.abs(values).sum()))
