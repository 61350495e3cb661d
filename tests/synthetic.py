"""Signals made up for tests."""

import numpy as np

from miaprune.signals import Signals


def make_signals(n, classes, seed, member_boost=0.0):
    """Random signals, half of them members; ``member_boost`` raises the logit of a member's true class."""
    rng = np.random.default_rng(seed)
    labels, members = rng.integers(0, classes, n), np.arange(n) < n // 2
    logits = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[labels]
    logits[np.arange(n), labels] += member_boost * members
    posteriors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sensitivities = posteriors * (1 - posteriors) * rng.uniform(0.5, 1.5, (n, classes))
    return Signals(posteriors.astype("f4"), sensitivities.astype("f4"), labels, members)
