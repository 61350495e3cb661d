"""Whether a fitted network learnt anything, judged on the records that it was fitted on (method, section 7).

An attack that failed to train must not look like a defence that worked: its scores say nothing of the victim.
"""

from __future__ import annotations

import numpy as np

from miaprune import metrics
from miaprune.attacks import thresholds
from miaprune.attacks.base import Fitted
from miaprune.signals import Signals

RECORDS = 20_000
"""A network is checked on at most so many of its fitting records, drawn by its seed; an AUC's standard error is then
0.004 or less, and the check takes a few percent of the time of the fit."""

MARGIN = 0.01
"""So far may a network's AUC lie below that of a threshold on a value that it could compute itself."""

CONSTANT = 1e-4
"""Scores of which 98 % lie within this are all but constant; they are differences of two logits."""

OF_POSTERIORS: dict[str, thresholds.Value] = {"top1": thresholds.top1, "xent": thresholds.negative_entropy}
OF_LABELS: dict[str, thresholds.Value] = {
    "conf": thresholds.confidence,
    "mentr": thresholds.negative_modified_entropy,
    "corr": lambda s: s.correct.astype(np.float64),
}
VALUES: dict[str, dict[str, thresholds.Value]] = {
    "samia": OF_POSTERIORS | OF_LABELS,
    "nn": OF_POSTERIORS,
    "nn_top3": {"top1": thresholds.top1},
    "nn_cls": OF_POSTERIORS | OF_LABELS,
}
"""What the threshold attacks look at, for each network: what is a function of that network's own input."""


def sample(shadows: Signals, seed: int) -> Signals:
    """At most `RECORDS` of the records, members and non-members as they come."""
    if len(shadows) <= RECORDS:
        return shadows
    return shadows.at(np.random.default_rng(seed).choice(len(shadows), RECORDS, replace=False))


def best_threshold_auc(name: str, shadows: Signals) -> float:
    """The largest AUC of a value that the network of attack ``name`` could compute itself."""
    return max(metrics.auc(value(shadows), shadows.members) for value in VALUES[name].values())


def finds_something(auc: float, members: np.ndarray) -> bool:
    """Whether the AUC's 95 % interval lies above 0.5.

    The interval is the AUC ± 1.96 standard errors of Hanley and McNeil (Radiology 143, 1982, equation 1), which knows
    the AUC and the numbers of members and non-members alone.
    """
    inside, outside = np.count_nonzero(members), np.count_nonzero(~members)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (inside - 1) * (q1 - auc**2) + (outside - 1) * (q2 - auc**2)
    return bool(auc - 1.96 * (max(variance, 0.0) / (inside * outside)) ** 0.5 > 0.5)


def failed(scores: np.ndarray, members: np.ndarray, threshold_auc: float) -> bool:
    """Whether scores, float [n], of fitting records tell less than a threshold does: the network learnt nothing.

    They do if they are all but constant, or if their AUC is more than `MARGIN` below ``threshold_auc``; where the
    threshold finds nothing either, there is nothing to have learnt. Scores that are no numbers always failed.
    """
    if np.isnan(scores).any():
        return True
    if not finds_something(threshold_auc, members):
        return False
    low, high = np.quantile(scores, [0.01, 0.99])
    return bool(high - low < CONSTANT or metrics.auc(scores, members) < threshold_auc - MARGIN)


def trained(fitted: Fitted) -> bool:
    """Whether a fitted attack may decide anything: False where its network failed in every attempt."""
    return bool(fitted.get("trained", True))


def attempt(fitted: Fitted) -> int | None:
    """In which attempt, from 1, a fitted attack's network was trained; None where it has none."""
    return int(fitted["attempt"]) if "attempt" in fitted else None
