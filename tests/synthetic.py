"""Signals made up for tests."""

import numpy as np

from miaprune.audit import of_logits, references
from miaprune.signals import Signals

TRUE = 2.0  # by which the logit of the true class is higher, of a non-member


def make_signals(n, classes, seed, member_boost=0.0):
    """Random signals, half of them members; ``member_boost`` raises the logit of a member's true class."""
    rng = np.random.default_rng(seed)
    labels, members = rng.integers(0, classes, n), np.arange(n) < n // 2
    logits = rng.normal(size=(n, classes)) + TRUE * np.eye(classes)[labels]
    logits[np.arange(n), labels] += member_boost * members
    posteriors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sensitivities = posteriors * (1 - posteriors) * rng.uniform(0.5, 1.5, (n, classes))
    return Signals(posteriors.astype("f4"), sensitivities.astype("f4"), labels, members)


def best_scores(signals, member_boost, labels=True):
    """Scores of `make_signals` that no attack can beat but by chance: their likelihood ratio, rising in it.

    Posteriors tell the logits up to a constant, so let z be the logits less their mean: normal with variance 1 around
    the centred means. Given the true class y its likelihood is exp(a z_y) times what no class changes, where a is 2, of
    a member 2 + ``member_boost``; without ``labels`` it is the mean of that over the classes. The sensitivities add
    nothing: given the posteriors they do not depend on membership.
    """
    z = np.log(signals.posteriors.astype(np.float64))
    z -= z.mean(axis=1, keepdims=True)
    if labels:
        return z[np.arange(len(z)), signals.labels]
    return np.logaddexp.reduce((TRUE + member_boost) * z, axis=1) - np.logaddexp.reduce(TRUE * z, axis=1)


class Evidence:
    """Logits of records, some harder than others; those of a model's members are higher for the label by ``gain``."""

    def __init__(self, n=400, classes=4, k=8, seed=0):
        self.rng = np.random.default_rng(seed)
        self.labels, self.hard = self.rng.integers(0, classes, n), self.rng.normal(0, 2, n)
        self.members, self.theirs = self.rng.random(n) < 0.5, self.rng.random((k, n)) < 0.5
        self.classes = classes

    def logits(self, members, gain):
        said = self.rng.normal(size=(len(members), self.classes))
        said[np.arange(len(members)), self.labels] += 2 + self.hard + gain * members
        return said

    def version(self, gain):
        return of_logits(self.logits(self.members, gain), self.labels, self.members)

    def references(self, gain, members=None):
        theirs = self.theirs if members is None else members
        return references(np.stack([self.logits(own, gain) for own in theirs]), self.labels, theirs)
