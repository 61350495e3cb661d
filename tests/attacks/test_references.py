"""Attacks with reference models against plain definitions, and on margins of which the best possible test is known."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from miaprune import grid, metrics
from miaprune.attacks import attack, references
from miaprune.attacks.references import Told
from miaprune.margins import DEV, TEST, TRAIN, UNSEEN, Margins

NAMES = grid.REFERENCE_ATTACKS


def made_margins(n=4000, k=5, gain=1.0, seed=0, spread=2.0, noise=1.0):
    """Normal margins: a record's own mean, noise, and ``gain`` more where the model was trained on it.

    As in a run: the second half is the adversary's, of which each reference has trained on some; the victim's records
    are the first half, members first.
    """
    rng = np.random.default_rng(seed)
    own = rng.normal(0, spread, n)
    parts = np.zeros((k, n), np.int8)
    parts[:, n // 2 :] = rng.choice([TRAIN, DEV, TEST], (k, n - n // 2), p=[0.45, 0.1, 0.45])
    members = np.arange(n) < n // 4
    victim = own + gain * members + noise * rng.normal(size=n)
    told = own + gain * (parts == TRAIN) + noise * rng.normal(size=(k, n))
    return Margins(victim.astype("f4"), told.astype("f4"), parts, np.arange(n // 2)), members[: n // 2]


def scores_of(name, seen):
    chosen = attack(name)
    return chosen.score(chosen.fit(seen, {}, 0, "cpu"), seen, {}, 0, "cpu")


def plain(name, margins, told, out, fixed):
    """A record's score, from the papers' formulas; ``told`` and ``out`` are of its K references."""
    sigmoid = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    heard = [float(m) for m, o in zip(told, out, strict=True) if o]
    p, mean_p, mean = sigmoid(margins), np.mean([sigmoid(m) for m in heard]), np.mean(heard)
    if name == "base":
        return math.log(p) - math.log(mean_p)
    if name == "rmia":
        return math.log(p / (0.5 * ((1 + fixed["a"]) * mean_p + (1 - fixed["a"]))))
    if name == "lira":
        return (margins - mean) / fixed["sd"]
    k = len(heard)
    own = np.var(heard, ddof=1) if k > 1 else 0.0
    shrunk = (fixed["degrees"] * fixed["common"] + (k - 1) * own) / (fixed["degrees"] + k - 1)
    quantile = stats.t(fixed["degrees"] + k - 1).cdf((margins - mean) / math.sqrt(shrunk * (1 + 1 / k)))
    return stats.norm.ppf(quantile)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_the_papers_formula(name):
    rng = np.random.default_rng(1)
    told = Told(rng.normal(0, rng.uniform(0.2, 3, 300), (6, 300)), rng.random((6, 300)) < 0.8)
    told.heard[0] = True
    victim = rng.normal(0, 2, 300)
    known = told.count > 1
    degrees, common = references.prior(told.variance[known], told.count[known] - 1)
    assert 1 < degrees < 20, "records differ in variance, so their own one counts"
    squares = [np.var(m[o]) * o.sum() for m, o in zip(told.margins.T, told.heard.T, strict=True)]
    fixed = {"a": 0.3, "sd": math.sqrt(sum(squares) / (told.count - 1).sum()), "degrees": degrees, "common": common}
    prepare, score = {
        "base": (references._posteriors, references.base_score),
        "rmia": (references._posteriors, references.rmia_score),
        "lira": (references._one_variance, references.lira_score),
        "lira_t": (references._own_variances, references.lira_t_score),
    }[name]
    found = score(prepare(told, {"a": np.array(0.3)} if name == "rmia" else {}), victim)
    expected = [plain(name, *record, fixed) for record in zip(victim, told.margins.T, told.heard.T, strict=True)]
    # Wallace's quantile is an approximation; the rest are the same numbers.
    near = np.abs(expected) < 4
    np.testing.assert_allclose(found[near], np.array(expected)[near], atol=0.05 if name == "lira_t" else 1e-9)


def test_rmia_ranks_as_the_share_of_population_records_that_it_exceeds():
    """The published score, a pair (record, population record) at a time, for several gamma."""
    seen, _ = made_margins(200, 4, seed=2)
    fitted = attack("rmia").fit(seen, {}, 0, "cpu")
    ours = attack("rmia").score(fitted, seen, {}, 0, "cpu")
    a = float(fitted["a"])
    p = 1 / (1 + np.exp(-seen.victim.astype("f8")))
    told = 1 / (1 + np.exp(-seen.references.astype("f8")))
    population = np.flatnonzero((seen.parts != UNSEEN).all(axis=0) & seen.out.any(axis=0))

    def ratio(x):
        mean = np.mean([told[k, x] for k in range(4) if seen.out[k, x]])
        return p[x] / (0.5 * ((1 + a) * mean + 1 - a))

    for gamma in (0.5, 1.0, 2.0):
        share = np.array([np.mean([ratio(x) / ratio(z) >= gamma for z in population]) for x in seen.records])
        in_order = share[np.argsort(ours, kind="stable")]
        assert (np.diff(in_order) >= 0).all() and len(set(share)) > 10


def normal_auc(gain, k):
    """Of the best test on normal margins of unit variance, each record's mean estimated from k references."""
    return stats.norm.cdf(gain / math.sqrt(2 * (1 + 1 / k)))


@pytest.mark.parametrize("k", [5, 64])
def test_lira_is_the_best_test_on_normal_margins(k):
    seen, members = made_margins(8000, k, seed=3)
    # 2 000 and 2 000 records: an AUC's standard error is 0.007.
    for name in ("lira", "lira_t"):
        assert metrics.auc(scores_of(name, seen), members) == pytest.approx(normal_auc(1.0, k), abs=0.025), name


def test_a_variance_of_its_own_helps_where_records_differ_in_it():
    rng = np.random.default_rng(4)
    noise = np.exp(rng.normal(0, 1, 8000))
    seen, members = made_margins(8000, 32, seed=4, noise=noise)
    of_one, of_own = (metrics.auc(scores_of(name, seen), members) for name in ("lira", "lira_t"))
    assert of_own > of_one + 0.02


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_where_there_is_nothing(name):
    """Of ten draws at most two miss 50 % by their 95 % intervals: more happens by chance once in 90."""
    missed = 0
    for seed in range(10):
        seen, members = made_margins(2000, 5, gain=0.0, seed=seed)
        low, high = metrics.bootstrap_interval(scores_of(name, seen), members, 0)
        missed += not low <= 0.5 <= high
    assert missed <= 2


@pytest.mark.parametrize("name", NAMES)
def test_the_threshold_found_on_the_shadows_is_near_the_best(name):
    seen, members = made_margins(8000, 5, gain=1.5, seed=5)
    scores = scores_of(name, seen)
    best = max(((scores[members] >= t).mean() + (scores[~members] < t).mean()) / 2 for t in np.unique(scores)[::20])
    assert metrics.accuracy(scores, members) > best - 0.03


@pytest.mark.parametrize("k", [1, 2, 5, 64])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_references_and_the_largest_margins(name, k):
    seen, members = made_margins(400, k, seed=6)
    seen.victim[:3] = [1000, -1000, 1000]
    seen.references[:, :3] = 1000
    seen.references[:, 3:6] = 0.25  # ties
    scores = scores_of(name, seen)
    assert np.isfinite(scores).all() and len(scores) == len(members)
    assert scores[1] < scores[0] <= scores.max()
    assert metrics.auc(scores, members) > 0.55


@pytest.mark.parametrize("name", NAMES)
def test_all_margins_equal_tell_nothing(name):
    seen, members = made_margins(400, 5, seed=7)
    seen = Margins(np.full(400, 2.0, "f4"), np.full((5, 400), 2.0, "f4"), seen.parts, seen.records)
    assert metrics.auc(scores_of(name, seen), members) == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_what_a_reference_says_that_was_selected_on_a_record_is_not_heard(name):
    seen, _ = made_margins(400, 5, seed=8)
    seen.parts[0, :50], seen.parts[3, 20:90] = DEV, DEV
    scores = scores_of(name, seen)
    other = seen.references.copy()
    other[0, :50], other[3, 20:90] = 77.0, -77.0
    np.testing.assert_array_equal(scores_of(name, Margins(seen.victim, other, seen.parts, seen.records)), scores)


@pytest.mark.parametrize("name", NAMES)
def test_the_victims_membership_is_used_for_nothing(name):
    """Fitted on the references alone: another victim's margins leave what is fitted as it is."""
    seen, _ = made_margins(400, 5, seed=9)
    fitted = attack(name).fit(seen, {}, 0, "cpu")
    other = attack(name).fit(Margins(seen.victim[::-1].copy(), seen.references, seen.parts, seen.records), {}, 0, "cpu")
    assert fitted.keys() == other.keys()
    for key, array in fitted.items():
        np.testing.assert_array_equal(array, other[key])


@settings(deadline=None, max_examples=50)
@given(st.floats(0.2, 200), st.floats(0.01, 100))
def test_a_prior_is_recovered_from_the_variances_that_it_makes(degrees, common):
    rng = np.random.default_rng(10)
    m, freedom = 20_000, 4.0
    true = common * degrees / rng.chisquare(degrees, m)
    found, variance = references.prior(true * rng.chisquare(freedom, m) / freedom, np.full(m, freedom))
    assert variance == pytest.approx(common, rel=0.5 if degrees < 1 else 0.15)
    assert found == pytest.approx(degrees, rel=0.2) or (degrees > 15 and found > 10)


def test_rmias_parameter_is_the_best_on_the_shadows():
    seen, _ = made_margins(2000, 5, seed=11)
    turns = references.in_turn(seen)
    reached = []
    for a in references.A_GRID:
        of_turn = []
        for told, margins, members in turns:
            fitted = {"log_mean_posterior": told.log_mean_posterior, "a": np.array(a)}
            of_turn.append(metrics.auc(references.rmia_score(fitted, margins), members))
        reached.append(np.mean(of_turn))
    assert references.best_a(turns) == references.A_GRID[int(np.argmax(reached))]


def test_each_shadow_is_attacked_with_the_others_that_are_out():
    seen, _ = made_margins(400, 5, seed=12)
    turns = references.in_turn(seen)
    assert len(turns) == 5
    for i, (told, margins, members) in enumerate(turns):
        asked = [x for x in range(400) if seen.parts[i, x] in (TRAIN, TEST)]
        heard = [x for x in asked if any(seen.parts[k, x] in (UNSEEN, TEST) for k in range(5) if k != i)]
        np.testing.assert_array_equal(margins, seen.references[i, heard])
        np.testing.assert_array_equal(members, seen.parts[i, heard] == TRAIN)
        assert told.margins.shape == (4, len(heard)) and (told.count >= 1).all()
