"""What a result says: how well an attack tells members from non-members (method, section 10).

Scores are float [n]; a record is called a member when its score is 0 or more. Members are bool [n]. Scores
may be infinite but not NaN, and both groups must have a record: otherwise `ValueError`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from miaprune.signals import Signals

FPR_GRID: tuple[float, ...] = tuple(float(f"{10.0 ** (k / 10):.6g}") for k in range(-40, 1))
"""False positive rates of the ROC points: 1e-4 to 1, ten per decade, to six digits."""

RESAMPLES = 10_000
"""Bootstrap resamples behind each interval."""


def accuracy(scores: np.ndarray, members: np.ndarray) -> float:
    """Balanced accuracy as a fraction: members and non-members weigh the same."""
    return float(np.mean(_hit_rates(scores, members)))


def auc(scores: np.ndarray, members: np.ndarray) -> float:
    """Area under the ROC curve; equal scores count half."""
    _check(scores, members)
    # Counted here: scikit-learn's takes no infinite scores.
    distinct, which = np.unique(scores, return_inverse=True)
    inside, outside = (np.bincount(which[group], minlength=len(distinct)) for group in (members, ~members))
    wins = (np.cumsum(outside) - outside / 2) @ inside
    return float(wins / (inside.sum() * outside.sum()))


def tpr_at_fpr(scores: np.ndarray, members: np.ndarray, fpr: float) -> float:
    """The largest true positive rate of any threshold whose false positive rate is at most ``fpr``.

    Exact: equal scores share a fate, and nothing is interpolated.
    """
    return float(_tpr(scores, members, np.array([fpr]))[0])


def at_fpr(scores: np.ndarray, members: np.ndarray, fpr: float, seed: int) -> dict[str, Any]:
    """`tpr_at_fpr` below 1, its 95 % bootstrap interval, and the false positives that it stands on, in a dict.

    Its keys are "tpr", "ci" and "false_positives". Rate and interval are None where there is no false positive, as
    ``fpr`` is less than one of the non-members or many scores are equal: no number stands on no record.
    """
    _check(scores, members)
    ours, others = np.sort(scores[members]), np.sort(scores[~members])[::-1]
    m, n = len(ours), len(others)
    allowed = _whole_records(fpr, n)
    if not allowed:
        return {"tpr": None, "ci": None, "false_positives": 0}
    # The highest score that would be one false positive too many; members above it are called so.
    limit = others[allowed]
    if not (false_positives := int((others > limit).sum())):
        return {"tpr": None, "ci": None, "false_positives": 0}
    rng = np.random.default_rng(seed)
    # In a resample of the non-members that score is the original one at this place from the top: as in
    # `bootstrap_interval` the draws are the bootstrap itself, at a cost that does not grow with n.
    places = np.ceil(n * rng.beta(allowed + 1, n - allowed, RESAMPLES)).astype(np.int64) - 1
    above = m - np.searchsorted(ours, others[places], side="right")
    return {
        "tpr": float((ours > limit).mean()),
        "ci": list(_percentiles(rng.binomial(m, above / m) / m)),
        "false_positives": false_positives,
    }


def _whole_records(fpr: float, n: int) -> int:
    """The most false positives among n whose rate is at most ``fpr``."""
    allowed = int(fpr * n) + 1
    return allowed if allowed / n <= fpr else allowed - 1


def auc_interval(scores: np.ndarray, members: np.ndarray) -> tuple[float, float]:
    """95 % interval of `auc` by the variance of DeLong et al. (Biometrics 1988), within 0 and 1."""
    _check(scores, members)
    ours, others = scores[members], scores[~members]
    of_members, of_others = _placements(ours, others), _placements(-others, -ours)
    error = 1.96 * np.sqrt(_variance(of_members) / len(ours) + _variance(of_others) / len(others))
    area = float(of_members.mean())
    return max(0.0, area - float(error)), min(1.0, area + float(error))


def _placements(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each value the share of the others below it, equal ones counting half."""
    others = np.sort(others)
    return (np.searchsorted(others, values) + np.searchsorted(others, values, side="right")) / (2 * len(others))


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def roc_points(scores: np.ndarray, members: np.ndarray) -> dict[str, list[float]]:
    """`tpr_at_fpr` at every rate of `FPR_GRID`: {"fpr": [...], "tpr": [...]}."""
    return {"fpr": list(FPR_GRID), "tpr": _tpr(scores, members, np.array(FPR_GRID)).tolist()}


def bootstrap_interval(scores: np.ndarray, members: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `accuracy`, members and non-members resampled separately."""
    rng = np.random.default_rng(seed)
    sizes = (np.count_nonzero(members), np.count_nonzero(~members))
    # Only right or wrong matters, so n draws with replacement hold Binomial(n, hit rate) right ones: drawing
    # that number is the bootstrap itself, no approximation, at a cost that does not grow with n: 1.3 ms. Drawing the
    # records takes 3.7 s of 27 000.
    resampled = [
        rng.binomial(n, rate, RESAMPLES) / n for n, rate in zip(sizes, _hit_rates(scores, members), strict=True)
    ]
    return _percentiles(np.mean(resampled, axis=0))


PAIRED_RESAMPLES = 1_000
"""Bootstrap resamples of `paired_differences`, which draws the records themselves: of a million 0.09 s of CPU each."""


def paired_differences(
    first: np.ndarray, other: np.ndarray, members: np.ndarray, fpr: float, seed: int
) -> dict[str, float | list[float] | None]:
    """By how much scores ``other`` of the same records tell more than ``first``: AUC, and TPR at ``fpr``.

    A dict of "auc" and "tpr", differences, and "auc_ci" and "tpr_ci", their 95 % percentile bootstrap intervals.
    Members and non-members are resampled separately, and the same ones for both scores. The rate is None
    where ``fpr`` is less than one of the non-members.
    """
    _check(first, members)
    _check(other, members)
    inside, outside = int(members.sum()), int((~members).sum())
    allowed = _whole_records(fpr, outside)
    ranked = []
    for scores in (first, other):
        distinct, which = np.unique(-scores, return_inverse=True)  # the highest first
        ranked.append((len(distinct), which[members], which[~members]))

    def told(of_members: np.ndarray, of_others: np.ndarray) -> list[float]:
        """AUC and TPR of ``first``, then of ``other``, of records that count so often."""
        found = []
        for size, ours, others in ranked:
            true, false = np.bincount(ours, of_members, size), np.bincount(others, of_others, size)
            above = np.cumsum(false)
            area = ((outside - above) + false / 2) @ true / (inside * outside)
            found += [float(area), float(true[: np.searchsorted(above, allowed, side="right")].sum() / inside)]
        return found

    rng = np.random.default_rng(seed)
    drawn = np.array(
        [
            told(*(np.bincount(rng.integers(0, n, n), minlength=n).astype(float) for n in (inside, outside)))
            for _ in range(PAIRED_RESAMPLES)
        ]
    )
    auc, tpr, other_auc, other_tpr = told(np.ones(inside), np.ones(outside))
    return {
        "auc": other_auc - auc,
        "auc_ci": list(_percentiles(drawn[:, 2] - drawn[:, 0])),
        "tpr": other_tpr - tpr if allowed else None,
        "tpr_ci": list(_percentiles(drawn[:, 3] - drawn[:, 1])) if allowed else None,
    }


def gaps(signals: Signals) -> dict[str, float | None]:
    """What a model does differently on its members; every gap is members minus non-members.

    ``generalization_gap`` of the accuracy, ``confidence_gap`` of the mean posterior of the true class,
    ``sensitivity_gap`` of the mean sensitivity over records and classes (below 0: members less sensitive; None where
    there are no sensitivities).
    """
    measured = signals.sensitivities.size > 0
    return {
        "generalization_gap": _difference(signals.correct, signals.members),
        "confidence_gap": _difference(signals.confidence, signals.members),
        "sensitivity_gap": _difference(signals.sensitivities.mean(axis=1), signals.members) if measured else None,
    }


def gaps_per_class(signals: Signals) -> dict[str, np.ndarray]:
    """Confidence and sensitivity gap within each true class, float64 [C]; NaN where a group is empty."""
    values = {
        "confidence_gap": signals.confidence,
        "sensitivity_gap": signals.sensitivities.mean(axis=1),
    }
    classes = [signals.labels == label for label in range(signals.classes)]
    return {
        name: np.array([_difference(value[here], signals.members[here]) for here in classes])
        for name, value in values.items()
    }


def _check(scores: np.ndarray, members: np.ndarray) -> None:
    inside = np.count_nonzero(members)
    if not 0 < inside < len(members):
        raise ValueError(f"metrics need members and non-members; got {inside} and {len(members) - inside}")
    bad = np.count_nonzero(np.isnan(scores))
    if bad:
        raise ValueError(f"{bad} of {len(scores)} scores are NaN; a score must be a number or infinite")


def _hit_rates(scores: np.ndarray, members: np.ndarray) -> tuple[float, float]:
    """Fractions of members called members and of non-members not called members."""
    _check(scores, members)
    return float(np.mean(scores[members] >= 0)), float(np.mean(scores[~members] < 0))


def _tpr(scores: np.ndarray, members: np.ndarray, fprs: np.ndarray) -> np.ndarray:
    _check(scores, members)
    distinct, which = np.unique(scores, return_inverse=True)
    # For each threshold, from "nobody" to "everybody": the fraction of each group at or above it.
    false, true = (
        np.concatenate([[0], np.bincount(which[group], minlength=len(distinct))[::-1].cumsum()]) / group.sum()
        for group in (~members, members)
    )
    return true[np.searchsorted(false, fprs, side="right") - 1]


def _percentiles(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _difference(values: np.ndarray, members: np.ndarray) -> float:
    """Mean over members minus mean over non-members; NaN if a group is empty."""
    if members.all() or not members.any():
        return float("nan")
    return float(np.mean(values[members], dtype=np.float64) - np.mean(values[~members], dtype=np.float64))
