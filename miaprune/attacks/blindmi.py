"""BlindMI: a blind attack by differential comparison, without shadow models (Hui et al., NDSS 2021).

This is the variant that needs the victim's signals only (BlindMI-Diff-w/o): the records themselves are split
roughly into members and non-members, then moved between the two sets, in both directions, for as long as a
move widens the kernel distance between the sets.
"""

from __future__ import annotations

import numpy as np

from miaprune.attacks.base import Attack, Fitted, Options
from miaprune.signals import Signals

TOLERANCE = 1e-9
"""A move must widen the distance, which is of the order of 1, by more than this: rounding moves nothing."""


def features(signals: Signals, top: int) -> np.ndarray:
    """Posterior of the true class, then the ``top`` largest in descending order: float64 [n, 1 + top]."""
    largest = np.sort(signals.posteriors, axis=1)[:, ::-1][:, :top]
    return np.column_stack([signals.confidence, largest]).astype(np.float64)


def compare(points: np.ndarray) -> np.ndarray:
    """Differential comparison of one batch, which starts as the upper and lower half by the first column.

    The distance between the sets A and B is the two-sample statistic |A||B|/n · MMD²(A, B) (Gretton et al.,
    JMLR 2012). Hui et al. take MMD itself, which is widest between a few outliers and all the rest: unless
    the victim is badly overfitted, such moves end with nearly all records in one set.

    Parameters
    ----------
    points : float64 [n, d], finite

    Returns
    -------
    float64 [n] : the distance with the record in the member set minus the distance with it in the other one.
    """
    from scipy.spatial.distance import cdist  # half a second that the other attacks need not spend

    n = len(points)
    squared = cdist(points, points, "sqeuclidean")
    # The mean distance, not the median: that one is 0 when most posteriors are saturated.
    kernel = np.exp(-squared / (squared.mean() or 1.0))
    inside = np.zeros(n, dtype=bool)
    inside[np.argsort(points[:, 0], kind="stable")[n // 2 :]] = True
    to_members, to_all = kernel @ inside, kernel.sum(axis=1)
    while (gain := _gain(inside, to_members, to_all))[best := gain.argmax()] > TOLERANCE:
        to_members += -kernel[best] if inside[best] else kernel[best]
        inside[best] = not inside[best]
    return np.where(inside, -gain, gain)


def _gain(inside: np.ndarray, to_members: np.ndarray, to_all: np.ndarray) -> np.ndarray:
    """By how much the distance grows if this one record changes sides, float64 [n].

    The sum S over all pairs stays, so the distance is S(A, A)/|A| + S(B, B)/|B| - S/n; an empty set adds 0.
    """
    to_others = to_all - to_members
    a, b = np.count_nonzero(inside), np.count_nonzero(~inside)
    within_a, within_b = to_members[inside].sum(), to_others[~inside].sum()
    step = np.where(inside, -1, 1)
    # A record's similarity to itself is 1: added when it joins a set, subtracted twice when it leaves.
    moved_a = (within_a + 2 * step * to_members + 1) / np.maximum(a + step, 1)
    moved_b = (within_b - 2 * step * to_others + 1) / np.maximum(b - step, 1)
    return moved_a + moved_b - within_a / max(a, 1) - within_b / max(b, 1)


def _fit(shadows: Signals, options: Options, seed: int, device: str) -> Fitted:
    """Nothing to learn: the attack is blind."""
    return {}


def _score(fitted: Fitted, victim: Signals, options: Options, seed: int, device: str) -> np.ndarray:
    """Scores float64 [n]. Options: ``top``, posteriors per record; ``batch``, records compared at a time.

    Records are shuffled into batches of nearly equal size, at most ``batch``: the time grows as n · batch and
    the memory as batch².
    """
    points = features(victim, int(options["top"]))
    order = np.random.default_rng(seed).permutation(len(points))
    scores = np.empty(len(points))
    for batch in np.array_split(order, -(-len(order) // int(options["batch"]))):
        scores[batch] = compare(points[batch])
    return scores


BLINDMI = Attack(_fit, _score)
