import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miaprune import metrics
from miaprune.signals import Signals

untimed = settings(deadline=None)
LEVELS = [-math.inf, -1.5, -1e-300, 0.0, 1e-300, 0.5, 2.0, math.inf]
records = st.lists(st.tuples(st.sampled_from(LEVELS), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({m for _, m in rows}) == 2
)


def arrays(rows):
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def plain_rates(rows, threshold):
    """(FPR, TPR) of ``score >= threshold``; a threshold of None calls nobody."""
    called = [(m, threshold is not None and s >= threshold) for s, m in rows]
    return tuple(
        sum(c for m, c in called if m == group) / sum(m == group for m, _ in called) for group in (False, True)
    )


def plain_tpr(rows, fpr):
    rates = [plain_rates(rows, t) for t in [None, *(s for s, _ in rows)]]
    return max(t for f, t in rates if f <= fpr)


@untimed
@given(records)
def test_accuracy_is_the_mean_of_the_two_hit_rates(rows):
    fpr, tpr = plain_rates(rows, 0.0)
    assert metrics.accuracy(*arrays(rows)) == pytest.approx((tpr + 1 - fpr) / 2, abs=1e-15)


def test_accuracy_balances_unequal_groups():
    scores = np.array([1.0, 0.0, 2.0, -1.0, 3.0])
    members = np.array([True, True, True, True, False])
    assert metrics.accuracy(scores, members) == 0.375  # 3 of 4 members, 0 of 1 non-member
    assert metrics.accuracy(np.array([0.0, -0.0, -5e-324]), np.array([True, True, False])) == 1.0


@untimed
@given(records)
def test_auc_is_the_chance_that_a_member_scores_higher(rows):
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, inside in rows if inside for b, out in rows if not out]
    assert metrics.auc(*arrays(rows)) == pytest.approx(np.mean(wins), abs=1e-12)


@untimed
@given(records, st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.2, 1 / 3, 0.5, 0.7, 1.0]))
def test_tpr_at_fpr_is_the_definition(rows, fpr):
    assert metrics.tpr_at_fpr(*arrays(rows), fpr) == plain_tpr(rows, fpr)


@pytest.mark.parametrize("false", range(1, 100))
def test_an_fpr_that_is_just_met_counts(false):
    # One member sits at the value of the false-th non-member from the top: reachable at exactly false / 100.
    scores = np.concatenate([np.arange(100.0), [100.0 - false]])
    members = np.arange(101) == 100
    assert metrics.tpr_at_fpr(scores, members, float(f"0.{false:02d}")) == 1.0
    assert metrics.tpr_at_fpr(scores, members, (false - 0.5) / 100) == 0.0


def test_ties_are_not_interpolated():
    scores, members = np.zeros(4), np.array([True, True, False, False])
    assert metrics.tpr_at_fpr(scores, members, 0.99) == 0.0
    assert metrics.tpr_at_fpr(scores, members, 1.0) == 1.0


@untimed
@given(records)
def test_roc_points_are_tpr_at_fpr_on_the_grid(rows):
    roc = metrics.roc_points(*arrays(rows))
    assert roc["tpr"] == [plain_tpr(rows, f) for f in roc["fpr"]]


def test_roc_points_lie_on_ten_points_per_decade_and_fit_json():
    roc = metrics.roc_points(np.array([1.0, 0.0]), np.array([True, False]))
    assert roc["fpr"][::10] == [0.0001, 0.001, 0.01, 0.1, 1.0]
    np.testing.assert_allclose(np.diff(np.log10(roc["fpr"])), 0.1, atol=1e-5)
    assert json.loads(json.dumps(roc)) == roc


@untimed
@given(records)
def test_ranking_metrics_ignore_a_monotone_change_of_scale(rows):
    scores, members = arrays(rows)
    changed = np.arctan(scores)
    assert metrics.auc(changed, members) == metrics.auc(scores, members)
    assert metrics.roc_points(changed, members) == metrics.roc_points(scores, members)


def test_interval_covers_the_true_accuracy_as_often_as_it_says():
    # True accuracy (0.8 + 0.6) / 2. Of 500 intervals 95 % cover it, with a standard deviation of 1 %; the
    # percentile bootstrap is within a point of nominal at these sizes: at most 1 seed in 300 fails.
    rng = np.random.default_rng(1)
    members = np.arange(500) < 300
    hit = np.where(members, 0.8, 0.6)
    covered = 0
    for seed in range(500):
        right = rng.random(500) < hit
        low, high = metrics.bootstrap_interval(np.where(right == members, 1.0, -1.0), members, seed)
        covered += low <= 0.7 <= high
    assert 0.91 <= covered / 500 <= 0.98


def test_interval_is_that_of_resampled_records():
    rng = np.random.default_rng(2)
    members = np.arange(230) < 150
    scores = rng.normal(np.where(members, 0.5, -0.2))
    ours = metrics.bootstrap_interval(scores, members, 0)
    draws = []
    for _ in range(4000):
        inside, outside = rng.choice(scores[members], 150), rng.choice(scores[~members], 80)
        draws.append((np.mean(inside >= 0) + np.mean(outside < 0)) / 2)
    # A 2.5 % quantile of 4000 draws has a standard deviation of 0.001: four of them, and a step's width.
    np.testing.assert_allclose(ours, np.percentile(draws, [2.5, 97.5]), atol=0.006)
    assert ours[0] < metrics.accuracy(scores, members) < ours[1]


@untimed
@given(records, st.sampled_from([0.001, 0.01, 0.1, 0.2, 1 / 3, 0.5, 0.7]))
def test_a_rate_is_tpr_at_fpr_with_its_false_positives_or_none_on_less_than_a_record(rows, fpr):
    scores, members = arrays(rows)
    found = metrics.at_fpr(scores, members, fpr, 0)
    others = scores[~members]
    called = [k for t in set(others) if (k := int((others > t).sum())) / len(others) <= fpr]
    if max(called) == 0:
        assert found == {"tpr": None, "ci": None, "false_positives": 0}
    else:
        assert found["tpr"] == metrics.tpr_at_fpr(scores, members, fpr)
        assert found["false_positives"] == max(called)
        assert 0 <= found["ci"][0] <= found["ci"][1] <= 1


def test_a_rates_interval_is_that_of_resampled_records():
    rng = np.random.default_rng(3)
    members = np.arange(900) < 400
    scores = rng.normal(np.where(members, 1.0, 0.0))
    ours = metrics.at_fpr(scores, members, 0.05, 0)["ci"]
    draws = []
    for _ in range(4000):
        drawn = np.concatenate([rng.choice(scores[members], 400), rng.choice(scores[~members], 500)])
        draws.append(metrics.tpr_at_fpr(drawn, members, 0.05))
    # A 2.5 % quantile of 4000 draws has a standard deviation of 0.002 here: four of them, and a step's width.
    np.testing.assert_allclose(ours, np.percentile(draws, [2.5, 97.5]), atol=0.011)


def test_an_aucs_interval_covers_the_true_one_as_often_as_it_says():
    # Normal scores a standard deviation apart: AUC = Phi(1 / sqrt 2) = 0.7602. As above, at most 1 seed in 300 fails.
    rng = np.random.default_rng(4)
    members = np.arange(200) < 120
    covered = 0
    for _ in range(500):
        low, high = metrics.auc_interval(rng.normal(np.where(members, 1.0, 0.0)), members)
        covered += low <= 0.760250 <= high
    assert 0.91 <= covered / 500 <= 0.98


def test_an_aucs_interval_stays_within_0_and_1():
    members = np.arange(6) < 3
    assert metrics.auc_interval(np.arange(6.0)[::-1], members) == (1.0, 1.0)
    low, high = metrics.auc_interval(np.array([1.0, 2.0, 9.0, 0.0, 3.0, -np.inf]), members)
    assert 0 <= low < high == 1.0


def test_interval_depends_on_the_seed_alone():
    scores, members = np.random.default_rng(0).normal(size=90), np.arange(90) < 40
    assert metrics.bootstrap_interval(scores, members, 5) == metrics.bootstrap_interval(scores, members, 5)
    seeds = {metrics.bootstrap_interval(scores, members, seed) for seed in range(20)}
    assert len(seeds) > 1


def five_records():
    """Class 0: two members and a non-member; class 1: a member and a non-member; class 2: nothing."""
    posteriors = np.array([[0.75, 0.25, 0], [0.5, 0.25, 0.25], [0.25, 0.75, 0], [0, 1, 0], [0.5, 0.5, 0]], np.float32)
    means = np.array([1, 2, 4, 3, 8], np.float32)
    return Signals(
        posteriors,
        means[:, None] * np.array([0.5, 1.0, 1.5], np.float32),
        np.array([0, 0, 0, 1, 1]),
        np.array([True, True, False, True, False]),
    )


def test_gaps_are_members_minus_non_members():
    assert metrics.gaps(five_records()) == {
        "generalization_gap": 1.0,  # 3 of 3 against 0 of 2: ties go to the first class
        "confidence_gap": 0.75 - 0.375,
        "sensitivity_gap": 2.0 - 6.0,
    }


def test_gaps_per_class():
    gaps = metrics.gaps_per_class(five_records())
    np.testing.assert_array_equal(gaps["confidence_gap"], [0.625 - 0.25, 1.0 - 0.5, np.nan])
    np.testing.assert_array_equal(gaps["sensitivity_gap"], [1.5 - 4.0, 3.0 - 8.0, np.nan])


@pytest.mark.parametrize(
    "metric",
    [metrics.accuracy, metrics.auc, metrics.roc_points, lambda s, m: metrics.bootstrap_interval(s, m, 0)],
)
def test_bad_input_is_refused_in_one_line(metric):
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        metric(np.array([np.nan, 1.0]), np.array([True, False]))
    with pytest.raises(ValueError, match="members and non-members; got 2 and 0"):
        metric(np.array([0.0, 1.0]), np.array([True, True]))


def test_paired_differences_are_those_of_the_metrics():
    rng = np.random.default_rng(0)
    members = rng.random(400) < 0.4
    first, other = (np.round(rng.normal(size=400) + gain * members, 1) for gain in (0.5, 1.5))  # with ties
    found = metrics.paired_differences(first, other, members, 0.05, 0)
    assert found["auc"] == pytest.approx(metrics.auc(other, members) - metrics.auc(first, members))
    assert found["tpr"] == pytest.approx(
        metrics.tpr_at_fpr(other, members, 0.05) - metrics.tpr_at_fpr(first, members, 0.05)
    )
    assert found["auc_ci"][0] > 0


def test_paired_intervals_are_those_of_a_plain_bootstrap(monkeypatch):
    monkeypatch.setattr(metrics, "PAIRED_RESAMPLES", 2000)
    rng = np.random.default_rng(1)
    members = np.arange(120) < 50
    shared = rng.normal(size=120) + members
    first, other = shared + 0.3 * rng.normal(size=120), shared + 0.3 * rng.normal(size=120)
    found = metrics.paired_differences(first, other, members, 0.1, 0)
    aucs, tprs = [], []
    for _ in range(2000):
        index = np.concatenate([rng.integers(0, 50, 50), rng.integers(50, 120, 70)])
        aucs.append(metrics.auc(other[index], members[index]) - metrics.auc(first[index], members[index]))
        tprs.append(
            metrics.tpr_at_fpr(other[index], members[index], 0.1)
            - metrics.tpr_at_fpr(first[index], members[index], 0.1)
        )
    assert found["auc_ci"] == pytest.approx(np.percentile(aucs, [2.5, 97.5]), abs=0.006)
    assert found["tpr_ci"] == pytest.approx(np.percentile(tprs, [2.5, 97.5]), abs=0.04)
    unpaired = np.hypot(*(np.subtract(*metrics.auc_interval(each, members)) for each in (first, other)))
    assert np.ptp(found["auc_ci"]) < unpaired / 1.5  # the same records for both: closer than two intervals


def test_a_difference_that_is_none_is_none():
    members = np.arange(60) < 30
    scores = np.random.default_rng(0).normal(size=60)
    found = metrics.paired_differences(scores, 2 * scores + 1, members, 0.01, 0)
    assert found == {"auc": 0.0, "auc_ci": [0.0, 0.0], "tpr": None, "tpr_ci": None}
