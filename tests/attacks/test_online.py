"""Online attacks against the papers' formulas, a record at a time, and on margins whose best test is known."""

import math

import numpy as np
import pytest
from scipy import stats

from miaprune import metrics
from miaprune.attacks import online, references


def made(n=300, k=8, seed=0, gain=1.0, noise=1.0):
    """Margins and members of k references and of a victim: a record's own mean, noise, and ``gain`` where trained."""
    rng = np.random.default_rng(seed)
    own, members = rng.normal(0, 2, n), rng.random((k + 1, n)) < 0.5
    margins = own + gain * members + noise * rng.normal(size=(k + 1, n))
    return margins[1:], members[1:], margins[0], members[0]


def both(members):
    return members.any(axis=0) & ~members.all(axis=0)


def log_ratio(heard, members, margin, of_in, of_out):
    """Equation 3, with the normal distributions of equation 4."""
    density = lambda said, variance: stats.norm(np.mean(said), math.sqrt(variance)).logpdf(margin)  # noqa: E731
    return density(heard[members], of_in) - density(heard[~members], of_out)


def pooled(margins, members):
    """One variance within records, by its definition."""
    said = [column[own] for column, own in zip(margins.T, members.T, strict=True)]
    return sum(((s - s.mean()) ** 2).sum() for s in said) / sum(len(s) - 1 for s in said)


def test_lira_with_common_variances_is_the_papers_ratio():
    margins, members, victim, _ = made()
    here = both(members)
    margins, members, victim = margins[:, here], members[:, here], victim[here]
    variances = pooled(margins, members), pooled(margins, ~members)
    scores = online.lira(*online.told(margins, members), victim)
    expected = [log_ratio(margins[:, i], members[:, i], victim[i], *variances) for i in range(len(victim))]
    np.testing.assert_allclose(scores, expected, atol=1e-9)


def test_from_64_references_on_each_record_has_its_own_variances():
    margins, members, victim, _ = made(n=20, k=64)
    scores = online.lira(*online.told(margins, members), victim)
    expected = []
    for i, own in enumerate(members.T):
        variances = margins[own, i].var(ddof=1), margins[~own, i].var(ddof=1)
        expected.append(log_ratio(margins[:, i], own, victim[i], *variances))
    np.testing.assert_allclose(scores, expected, atol=1e-9)


def test_rmia_is_the_papers_ratio():
    margins, members, victim, _ = made()
    here = both(members)
    margins, members, victim = margins[:, here], members[:, here], victim[here]
    scores = online.rmia(*online.told(margins, members), victim)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    for i, own in enumerate(members.T):
        p = sigmoid(margins[:, i])
        p_x = (p[own].mean() + p[~own].mean()) / 2
        assert scores[i] == pytest.approx(math.log(sigmoid(victim[i]) / p_x))


def test_what_no_reference_saw_or_left_out_is_stood_in_for_by_the_mean_difference():
    margins = np.array([[1.0, 5.0, 2.0], [4.0, 6.0, 9.0]])
    members = np.array([[False, False, True], [True, False, True]])  # both kinds, none saw it, none left it out
    inside, outside = online.told(margins, members)
    np.testing.assert_allclose(inside.mean, [4.0, 5.5 + 3.0, 5.5])
    np.testing.assert_allclose(outside.mean, [1.0, 5.5, 5.5 - 3.0])


def test_without_a_record_of_both_kinds_there_is_no_difference():
    with pytest.raises(ValueError, match="no record"):
        online.told(np.zeros((2, 3)), np.zeros((2, 3), bool))


def test_with_many_references_lira_reaches_the_best_test():
    margins, members, victim, own = made(n=4000, k=60)
    reached = metrics.auc(online.lira(*online.told(margins, members), victim), own)
    best = stats.norm.cdf(1.0 / math.sqrt(2))  # two normal distributions a gain of 1 apart, of variance 1
    assert reached == pytest.approx(best, abs=0.03)


@pytest.mark.parametrize("name", online.ATTACKS)
def test_an_attack_that_knows_both_kinds_finds_members_and_nothing_where_there_is_nothing(name):
    attack = online.ATTACKS[name]
    for gain, low, high in ((2.0, 0.8, 1.0), (0.0, 0.45, 0.55)):
        margins, members, victim, own = made(n=4000, gain=gain)
        assert low < metrics.auc(attack(*online.told(margins, members), victim), own) < high


def test_in_turn_each_reference_is_attacked_by_the_others():
    margins, members, _, _ = made(n=200, k=4)
    turns = online.in_turn(margins, members)
    assert len(turns) == 4
    inside, _, victim, own = turns[1]
    here = both(members[[0, 2, 3]])
    np.testing.assert_array_equal(victim, margins[1, here])
    np.testing.assert_array_equal(own, members[1, here])
    np.testing.assert_array_equal(inside.margins, margins[[0, 2, 3]][:, here])
    assert isinstance(inside, references.Told)


def test_two_references_cannot_attack_each_other():
    margins, members, _, _ = made(k=2)
    assert online.in_turn(margins, members) == []
