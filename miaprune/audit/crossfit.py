"""Attacks without shadow models, fitted on the audited records themselves: no record is scored by what saw it.

An auditor knows who the members are. So the records fall into folds, and each fold is attacked by what was fitted on
the others (Stone, JRSS B 1974).
"""

from __future__ import annotations

import logging

import numpy as np

from miaprune.attacks.base import Attack, Options
from miaprune.attacks.checks import trained
from miaprune.attacks.thresholds import Value, best_threshold, class_thresholds
from miaprune.grid import derive_seed
from miaprune.signals import Signals

FOLDS = 5

PIECE = 100_000
"""Records whose values are computed at a time."""

logger = logging.getLogger(__name__)


def folds(labels: np.ndarray, members: np.ndarray, seed: int, count: int = FOLDS) -> np.ndarray:
    """The fold of each record, int64 [n]: drawn, with each class's members and non-members spread evenly.

    There are ``count``, or as many as the smaller of members and non-members has records.
    """
    inside = int(members.sum())
    count = min(count, inside, len(members) - inside)
    drawn = np.random.default_rng(seed).permutation(len(labels))
    order = drawn[np.lexsort((labels[drawn], members[drawn]))]
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % count
    return fold


def network(
    attack: Attack, signals: Signals, fold: np.ndarray, options: Options, seed: int, most: int
) -> tuple[np.ndarray, bool]:
    """Scores float64 [n] by networks fitted on the other folds, and whether each of them is trained.

    Each is fitted on as many members as non-members of those, together at most ``most``, drawn.
    """
    scores, learnt = np.empty(len(signals)), True
    for k in range(fold.max() + 1):
        of_fold = derive_seed(seed, "fold", str(k))
        others = balanced(np.flatnonzero(fold != k), signals.members, most, of_fold)
        fitted = attack.fit(signals.at(others), options, of_fold, "cpu")
        learnt &= trained(fitted)
        here = np.flatnonzero(fold == k)
        scores[here] = attack.score(fitted, signals.at(here), options, of_fold, "cpu")
    return scores, learnt


def balanced(records: np.ndarray, members: np.ndarray, most: int, seed: int) -> np.ndarray:
    """As many members as non-members of ``records``, int64, at most ``most`` together, drawn and in order."""
    groups = [records[members[records]], records[~members[records]]]
    size = min(most // 2, *map(len, groups))
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.choice(group, size, replace=False) for group in groups]))


def values_of(value: Value, signals: Signals) -> np.ndarray:
    """Values float64 [n], in pieces: of a million records of 100 classes an entropy takes gigabytes at once."""
    pieces = range(0, len(signals), PIECE)
    return np.concatenate([value(signals.at(slice(first, first + PIECE))) for first in pieces])


def threshold_per_class(values: np.ndarray, signals: Signals, fold: np.ndarray) -> np.ndarray:
    """Scores float64 [n] of values float64 [n], larger for members: less what is best on the class's other folds."""
    scores = np.empty(len(values))
    for k in range(fold.max() + 1):
        others, here = fold != k, fold == k
        thresholds = class_thresholds(values[others], signals.labels[others], signals.members[others], signals.classes)
        scores[here] = values[here] - thresholds[signals.labels[here]]
    return scores


def one_threshold(values: np.ndarray, members: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of values float64 [n], larger for members: scores float64 [n], and who is called a member, bool [n].

    Each fold has the threshold that is best on the others. A score is the value less the mean of the thresholds: so
    scores have the values' order, whatever thresholds vary.
    """
    thresholds = np.array([best_threshold(values[fold != k], members[fold != k]) for k in range(fold.max() + 1)])
    return values - thresholds.mean(), values >= thresholds[fold]
