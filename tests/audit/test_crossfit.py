"""No record is scored by what was fitted on it."""

import numpy as np
import pytest
from synthetic import make_signals

from miaprune import metrics
from miaprune.attacks import attack, thresholds
from miaprune.attacks.base import Attack
from miaprune.attacks.thresholds import best_threshold
from miaprune.audit import crossfit


def test_folds_have_each_class_s_members_and_non_members_in_equal_parts():
    rng = np.random.default_rng(0)
    labels, members = rng.integers(0, 7, 1003), rng.random(1003) < 0.8
    fold = crossfit.folds(labels, members, 1)
    assert np.ptp(np.bincount(fold)) <= 1
    for label in range(7):
        for own in (True, False):
            assert np.ptp(np.bincount(fold[(labels == label) & (members == own)], minlength=5)) <= 1


def test_each_fold_has_members_and_non_members_where_there_are_few():
    labels, members = np.zeros(50, np.int64), np.arange(50) < 2
    fold = crossfit.folds(labels, members, 0)
    assert [members[fold == k].sum() for k in range(fold.max() + 1)] == [1, 1]


def test_no_record_is_scored_by_what_was_fitted_on_it():
    signals = make_signals(103, 4, 0)
    signals.posteriors[:, 0] += np.arange(103) * 1e-6  # each record can be told by its first posterior
    fitted_on = []

    def fit(seen, options, seed, device):
        fitted_on.append(set(seen.posteriors[:, 0].tolist()))
        assert seen.members.sum() * 2 == len(seen) <= 40
        return {}

    def score(fitted, asked, options, seed, device):
        assert not fitted_on[-1] & set(asked.posteriors[:, 0].tolist())
        return asked.posteriors[:, 0].astype(float)

    fold = crossfit.folds(signals.labels, signals.members, 0)
    scores, trained = crossfit.network(Attack(fit, score), signals, fold, {}, 0, 40)
    np.testing.assert_array_equal(scores, signals.posteriors[:, 0])  # every record at its own place
    assert len(fitted_on) == crossfit.FOLDS and trained


def test_a_threshold_per_class_is_the_attack_s_fitted_on_the_other_folds():
    signals = make_signals(200, 5, 1, member_boost=1.0)
    fold = crossfit.folds(signals.labels, signals.members, 0)
    for name, value in thresholds.PER_CLASS.items():
        scores = crossfit.threshold_per_class(crossfit.values_of(value, signals), signals, fold)
        for k in range(5):
            fitted = attack(name).fit(signals.at(fold != k), {}, 0, "cpu")
            here = signals.at(fold == k)
            np.testing.assert_array_equal(scores[fold == k], attack(name).score(fitted, here, {}, 0, "cpu"))


def test_values_in_pieces_are_the_values(monkeypatch):
    monkeypatch.setattr(crossfit, "PIECE", 7)
    signals = make_signals(50, 5, 0)
    expected = thresholds.negative_entropy(signals)
    np.testing.assert_array_equal(crossfit.values_of(thresholds.negative_entropy, signals), expected)


def test_an_attack_that_remembers_learns_nothing_of_noise():
    """A threshold for each of 100 classes fits four records of noise each well, and others not at all."""
    signals = make_signals(400, 100, 1)
    fold = crossfit.folds(signals.labels, signals.members, 0)
    conf = attack("conf")
    values = crossfit.values_of(thresholds.confidence, signals)
    crossed = metrics.accuracy(crossfit.threshold_per_class(values, signals, fold), signals.members)
    seen = metrics.accuracy(conf.score(conf.fit(signals, {}, 0, "cpu"), signals, {}, 0, "cpu"), signals.members)
    assert seen > 0.63 and crossed < 0.57


def test_networks_are_fitted_on_as_many_members_as_non_members():
    members = np.arange(1000) < 900
    records = np.arange(0, 1000, 2)
    drawn = crossfit.balanced(records, members, 60, 0)
    assert (members[drawn].sum(), (~members[drawn]).sum()) == (30, 30)
    assert set(drawn) <= set(records) and len(set(drawn)) == 60
    assert len(crossfit.balanced(records, members, 10_000, 0)) == 100  # all 50 non-members


def test_one_threshold_keeps_the_order_of_the_values():
    rng = np.random.default_rng(0)
    members = rng.random(500) < 0.5
    values = rng.normal(size=500) + members
    fold = crossfit.folds(np.zeros(500, np.int64), members, 0)
    scores, called = crossfit.one_threshold(values, members, fold)
    assert metrics.auc(scores, members) == metrics.auc(values, members)
    for k in range(5):
        threshold = best_threshold(values[fold != k], members[fold != k])
        np.testing.assert_array_equal(called[fold == k], values[fold == k] >= threshold)
    assert scores == pytest.approx(values - np.mean(values - scores))
