import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from miaprune import grid
from miaprune.catalog import DATASETS
from miaprune.data import splits

# The victim's train, dev and test sizes (method, section 2).
SIZES = {
    "cifar10": (13_500, 3_000, 13_500),
    "cifar100": (13_500, 3_000, 13_500),
    "svhn": (22_340, 4_964, 22_340),
    "chmnist": (1_125, 250, 1_125),
    "location": (1_126, 251, 1_128),
    "texas": (15_148, 3_367, 15_150),
    "purchase": (44_398, 9_866, 44_398),
    "digits": (403, 90, 405),
    "noisy_digits": (403, 90, 405),
}
few = settings(deadline=None, max_examples=50)
counts, seeds = st.integers(8, 400), st.integers(0, 2**31)


def parts(split):
    return np.concatenate([split.train, split.dev, split.test])


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_every_dataset_has_known_sizes():
    assert SIZES.keys() <= DATASETS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_victim_sizes(name):
    split = splits.victim_split(DATASETS[name].records, seed=7)
    assert (len(split.train), len(split.dev), len(split.test)) == SIZES[name]
    assert split.train.dtype == split.dev.dtype == split.test.dtype == np.int64


@few
@given(counts, seeds)
def test_victim_and_adversary_share_no_record_and_cover_all(n, seed):
    victim, shadow = splits.victim_split(n, seed), splits.shadow_split(n, seed, 0)
    assert sorted([*parts(victim), *parts(shadow)]) == list(range(n))
    assert len(parts(victim)) == n // 2


@few
@given(counts, seeds)
def test_shadows_share_the_adversarys_half(n, seed):
    halves = [set(parts(splits.shadow_split(n, seed, i))) for i in range(grid.SHADOWS)]
    assert all(half == halves[0] for half in halves)


def test_shadows_differ_in_their_members():
    members = {tuple(sorted(splits.shadow_split(5_010, 7, i).train)) for i in range(grid.SHADOWS)}
    assert len(members) == grid.SHADOWS


def test_parts_are_shuffled():
    split = splits.victim_split(5_010, 7)
    assert not np.array_equal(split.train, np.sort(split.train))


@few
@given(counts, seeds)
def test_same_seed_same_split(n, seed):
    assert same(splits.victim_split(n, seed), splits.victim_split(n, seed))
    assert same(splits.shadow_split(n, seed, 3), splits.shadow_split(n, seed, 3))


def test_another_seed_another_split():
    assert not same(splits.victim_split(5_010, 7), splits.victim_split(5_010, 8))


@few
@given(counts, st.integers(0, 2**31))
@example(1_797, 7)
@example(99_289, 7)
def test_splits_are_scikit_learns(n, seed):
    """The method's recipe, written with scikit-learn's function."""
    from sklearn.model_selection import train_test_split

    victim, adversary = train_test_split(np.arange(n), test_size=0.5, random_state=seed)
    for got, half, own_seed in (
        (splits.victim_split(n, seed), victim, seed),
        (splits.shadow_split(n, seed, 4), adversary, seed + 4),
    ):
        rest, test = train_test_split(half, test_size=0.45, random_state=own_seed)
        train, dev = train_test_split(rest, test_size=0.1818, random_state=own_seed)
        assert same(got, splits.Split(train, dev, test))


def test_roles():
    assert same(splits.of_role("victim", 100, 7), splits.victim_split(100, 7))
    assert same(splits.of_role("shadow_3", 100, 7), splits.shadow_split(100, 7, 3))
    assert same(splits.of_role("reference_9", 100, 7), splits.shadow_split(100, 7, 9))
    for role in ("shadow_5", "reference_4", "reference_261"):
        with pytest.raises(grid.GridError, match=rf"{role}.*did you mean"):
            splits.of_role(role, 100, 7)


def test_too_few_records():
    with pytest.raises(ValueError, match="empty"):
        splits.victim_split(5, 7)
