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
0.004 or less."""

MARGIN = 0.01
"""So far may a network's AUC lie below that of a threshold on a value that it could compute itself."""

CONSTANT = 1e-4
"""Scores of which 98 % lie within this are all but constant; they are differences of two logits."""

OF_POSTERIORS: tuple[thresholds.Value, ...] = (thresholds.top1, thresholds.negative_entropy)
OF_ALL: tuple[thresholds.Value, ...] = (
    *OF_POSTERIORS,
    thresholds.confidence,
    thresholds.negative_modified_entropy,
    lambda s: s.correct.astype(np.float64),
)
VALUES: dict[str, tuple[thresholds.Value, ...]] = {
    "samia": OF_ALL,
    "nn": OF_POSTERIORS,
    "nn_top3": (thresholds.top1,),
    "nn_cls": OF_ALL,
}
"""What the threshold attacks look at, for each network: what is a function of that network's own input."""


def sample(shadows: Signals, seed: int) -> Signals:
    """At most `RECORDS` of the records, members and non-members as they come."""
    if len(shadows) <= RECORDS:
        return shadows
    return shadows.at(np.random.default_rng(seed).choice(len(shadows), RECORDS, replace=False))


def threshold_auc(name: str, shadows: Signals) -> float:
    """The largest AUC of a value that the network of attack ``name`` could compute itself.

    0.5 where its 95 % interval holds that: there is nothing to learn.
    """
    auc, best = max(
        ((metrics.auc(v, shadows.members), v) for v in (value(shadows) for value in VALUES[name])), key=lambda of: of[0]
    )
    return auc if metrics.auc_interval(best, shadows.members)[0] > 0.5 else 0.5


def failed(scores: np.ndarray, members: np.ndarray, threshold: float) -> bool:
    """Whether scores, float [n], of fitting records tell less than a threshold of AUC ``threshold`` does.

    They do if they are all but constant, or if their AUC is more than `MARGIN` below; where there is nothing to learn,
    neither has failed. Scores that are no numbers always have.
    """
    if np.isnan(scores).any():
        return True
    low, high = np.quantile(scores, [0.01, 0.99])
    return threshold > 0.5 and bool(high - low < CONSTANT or metrics.auc(scores, members) < threshold - MARGIN)


def trained(fitted: Fitted) -> bool:
    """Whether a fitted attack may decide anything: False where its network failed in every attempt."""
    return bool(fitted.get("trained", True))
