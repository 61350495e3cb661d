"""Signals made up for tests."""

import numpy as np

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
