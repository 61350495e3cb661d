"""Whether a fitted network learnt anything, judged on the records that it was fitted on (method, section 7).

An attack that failed to train must not look like a defence that worked: its scores say nothing of the victim.
"""

from __future__ import annotations

from operator import itemgetter

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

SAME = 0.99
"""A network that gives more than this share of its records one answer tells them apart as little as a constant."""

OF_POSTERIORS: tuple[thresholds.Value, ...] = (thresholds.top1, thresholds.negative_entropy)
OF_ALL: tuple[thresholds.Value, ...] = (
    *OF_POSTERIORS,
    thresholds.confidence,
    thresholds.negative_modified_entropy,
    lambda s: s.correct.astype(np.float64),
)
VALUES: dict[str, tuple[thresholds.Value, ...]] = {
    "samia": (*OF_ALL, lambda s: s.sensitivities.mean(axis=1, dtype=np.float64)),
    "nn": OF_POSTERIORS,
    "nn_top3": (thresholds.top1,),
    "nn_cls": OF_ALL,
}
"""What each network is compared with: numbers that are functions of its own input."""


def sample(shadows: Signals, seed: int) -> Signals:
    """At most `RECORDS` of the records, members and non-members as they come."""
    if len(shadows) <= RECORDS:
        return shadows
    return shadows.at(np.random.default_rng(seed).choice(len(shadows), RECORDS, replace=False))


def threshold_auc(name: str, shadows: Signals) -> float:
    """The largest AUC of a value that the network of attack ``name`` could compute itself, or of its negative.

    A defence may make members less sure than others. 0.5 where its 95 % interval holds that: there is nothing to learn.
    """
    values = (sign * value(shadows) for value in VALUES[name] for sign in (1, -1))
    auc, best = max(((metrics.auc(v, shadows.members), v) for v in values), key=itemgetter(0))
    return auc if metrics.auc_interval(best, shadows.members)[0] > 0.5 else 0.5


def failed(scores: np.ndarray, members: np.ndarray, threshold: float) -> bool:
    """Whether scores, float [n], of fitting records tell less than a threshold of AUC ``threshold`` does.

    They do if they call almost all records the same (`SAME`), or if their AUC is more than `MARGIN` below; where there
    is nothing to learn, neither is a failure. Scores that are no numbers always are one.
    """
    if np.isnan(scores).any():
        return True
    called = np.mean(scores >= 0)
    return threshold > 0.5 and bool(max(called, 1 - called) > SAME or metrics.auc(scores, members) < threshold - MARGIN)


def trained(fitted: Fitted) -> bool:
    """Whether a fitted attack may decide anything: False where its network failed in every attempt."""
    return bool(fitted.get("trained", True))
