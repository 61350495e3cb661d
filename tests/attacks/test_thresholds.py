import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miaprune import grid
from miaprune.attacks import thresholds
from miaprune.attacks.thresholds import ATTACKS, best_threshold
from miaprune.signals import Signals

VALUES = {
    "conf": thresholds.confidence,
    "xent": thresholds.negative_entropy,
    "mentr": thresholds.negative_modified_entropy,
    "top1_conf": thresholds.top1,
    "conf_global": thresholds.confidence,
}
PER_CLASS = ("conf", "xent", "mentr")
untimed = settings(deadline=None)


def draw_signals(seed, n=40, classes=4, grain=8):
    """Random signals whose posteriors are multiples of 1/grain, so that ties, zeros and ones are common."""
    rng = np.random.default_rng(seed)
    posteriors = rng.multinomial(grain, rng.dirichlet(np.full(classes, 0.5), n)) / grain
    return Signals(
        posteriors.astype(np.float32),
        np.zeros((n, classes), np.float32),
        rng.integers(0, classes, n),
        rng.random(n) < 0.5,
    )


def one_class(confidences, members, label=0, classes=2):
    """Signals of one class with the given true-class posteriors."""
    n = len(members)
    posteriors = np.zeros((n, classes), np.float32)
    posteriors[:, label] = confidences
    posteriors[:, label - 1] = 1 - np.asarray(confidences)
    return Signals(posteriors, np.zeros_like(posteriors), np.full(n, label), np.array(members))


def join(*parts):
    return Signals(*(np.concatenate([getattr(p, f) for p in parts]) for f in Signals.__dataclass_fields__))


def run(name, shadows, victim):
    return ATTACKS[name].score(ATTACKS[name].fit(shadows, {}, 0, "cpu"), victim, {}, 0, "cpu")


def plain_advantage(values, members, threshold):
    """TPR - FPR of ``value >= threshold``, times members times non-members, by counting."""
    inside = sum(bool(m) for m in members)
    called = [v >= threshold for v in values]
    true = sum(c and m for c, m in zip(called, members, strict=True))
    false = sum(c and not m for c, m in zip(called, members, strict=True))
    return int(true) * (len(members) - inside) - int(false) * inside


def plain_threshold(values, members):
    """The quadratic definition, +inf for "nobody" included: the best, and of several the smallest."""
    candidates = [*values, np.inf]
    best = max(plain_advantage(values, members, t) for t in candidates)
    return min(t for t in candidates if plain_advantage(values, members, t) == best)


records = st.lists(
    st.tuples(st.sampled_from([-3.5, 0.0, 0.1, 0.1 + 1e-17, 0.2, 0.3, 1.0, 7.0]), st.booleans()),
    min_size=2,
    max_size=40,
).filter(lambda rows: len({m for _, m in rows}) == 2)


@untimed
@given(records)
def test_best_threshold_is_the_quadratic_definition(rows):
    values, members = (np.array(column) for column in zip(*rows, strict=True))
    assert best_threshold(values, members) == plain_threshold(values, members)


@untimed
@given(records, st.randoms(use_true_random=False))
def test_best_threshold_ignores_the_order_of_records(rows, random):
    shuffled = random.sample(rows, len(rows))
    before, after = (best_threshold(*map(np.array, zip(*r, strict=True))) for r in (rows, shuffled))
    assert before == after


def test_members_and_non_members_weigh_the_same():
    # 0.1, everybody, is right on 9 of 11 records and 0.9 on 7 only; but 5/9 and 2/2 beat 9/9 and 0/2.
    values = np.array([0.9] * 5 + [0.1] * 4 + [0.1] * 2)
    members = np.array([True] * 9 + [False] * 2)
    assert best_threshold(values, members) == 0.9
    assert best_threshold(values, ~members) == 0.1  # nothing beats a coin: the smallest value, everybody


def test_a_shared_value_shares_a_fate():
    values, members = np.array([1.0, 1.0, 1.0, 0.0]), np.array([True, False, False, True])
    assert best_threshold(values, members) == 0.0


def test_best_threshold_at_the_size_of_the_paper():
    # 270 000 different values: a quadratic search would not come back.
    values = np.random.default_rng(0).permutation(270_000).astype(float)
    assert best_threshold(values, values >= 135_000) == 135_000.0


@pytest.mark.parametrize("members", [[True, True], [False, False]])
def test_best_threshold_needs_both_groups(members):
    with pytest.raises(ValueError, match="needs members and non-members; got"):
        best_threshold(np.array([0.1, 0.2]), np.array(members))


def test_values_by_hand():
    signals = Signals(
        np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]], np.float32),
        np.zeros((2, 3), np.float32),
        np.array([0, 2]),
        np.array([True, False]),
    )
    half, quarter, three = np.log(0.5), np.log(0.25), np.log(0.75)
    assert thresholds.confidence(signals).tolist() == [0.5, 0.25]
    assert thresholds.top1(signals).tolist() == [0.5, 0.5]
    np.testing.assert_allclose(thresholds.negative_entropy(signals), 0.5 * half + 0.5 * quarter, rtol=1e-15)
    np.testing.assert_allclose(
        thresholds.negative_modified_entropy(signals),
        [0.5 * half + 0.5 * three, 0.75 * quarter + 0.5 * half + 0.25 * three],
        rtol=1e-15,
    )


def test_certain_posteriors_give_finite_ordered_values():
    right_wrong = one_class([1.0, 0.0], [True, False])
    assert thresholds.negative_entropy(right_wrong).tolist() == [0.0, 0.0]
    right, wrong = thresholds.negative_modified_entropy(right_wrong)
    assert right == 0.0
    assert wrong == pytest.approx(2 * np.log(thresholds.SMALLEST))


@untimed
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_values_follow_a_renaming_of_the_classes(seed, names):
    signals = draw_signals(seed)
    names = np.array(names)
    renamed = Signals(
        signals.posteriors[:, names.argsort()],
        signals.sensitivities[:, names.argsort()],
        names[signals.labels],
        signals.members,
    )
    for value in VALUES.values():
        np.testing.assert_allclose(value(renamed), value(signals), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", VALUES)
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_fit_and_score_are_the_definition(name, seed):
    shadows, victim = draw_signals(seed), draw_signals(seed + 1)
    shadow_values, values = VALUES[name](shadows), VALUES[name](victim)
    scores = run(name, shadows, victim)
    assert scores.dtype == np.float64
    for label in range(victim.classes):
        chosen = shadows.labels == label
        if name not in PER_CLASS or len(set(shadows.members[chosen])) < 2:
            chosen[:] = True
        threshold = plain_threshold(shadow_values[chosen], shadows.members[chosen])
        here = victim.labels == label
        np.testing.assert_array_equal(scores[here], values[here] - threshold)
        np.testing.assert_array_equal(scores[here] >= 0, values[here] >= threshold)


def test_each_class_has_its_own_threshold():
    easy = one_class([0.9, 0.8], [True, False], label=0)
    hard = one_class([0.4, 0.3], [True, False], label=1)
    victim = join(one_class([0.85, 0.9], [True, True], 0), one_class([0.35, 0.4], [True, True], 1))
    assert (run("conf", join(easy, hard), victim) >= 0).tolist() == [False, True, False, True]
    assert run("conf", join(easy, hard), victim)[[1, 3]].tolist() == [0.0, 0.0]
    assert (run("conf_global", join(easy, hard), victim) >= 0).tolist() == [True, True, False, True]


@pytest.mark.parametrize("name", PER_CLASS)
def test_a_class_without_both_groups_takes_the_global_threshold(name):
    both = one_class([0.9, 0.7, 0.2], [True, True, False], label=0, classes=3)
    members_only = one_class([0.99], [True], label=1, classes=3)
    shadows = join(both, members_only)  # and nothing of class 2
    fitted = ATTACKS[name].fit(shadows, {}, 0, "cpu")["thresholds"]
    values = VALUES[name](shadows)
    assert fitted[0] == plain_threshold(values[:3], shadows.members[:3])
    assert fitted[1] == fitted[2] == plain_threshold(values, shadows.members)


def test_thresholds_do_not_see_who_the_victims_members_are():
    shadows, victim = draw_signals(1), draw_signals(2)
    flipped = Signals(victim.posteriors, victim.sensitivities, victim.labels, ~victim.members)
    for name in ATTACKS:
        np.testing.assert_array_equal(run(name, shadows, victim), run(name, shadows, flipped))


def test_corr_calls_the_correctly_classified_members():
    victim = one_class([0.9, 0.2, 0.6], [True, False, False])
    assert (run("corr", draw_signals(0), victim) >= 0).tolist() == [True, False, True]
    assert ATTACKS["corr"].fit(draw_signals(0), {}, 0, "cpu") == {}


def test_every_threshold_attack_of_the_grid_is_there():
    assert tuple(ATTACKS) == grid.THRESHOLD_ATTACKS
