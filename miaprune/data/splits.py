"""Who trains on what: the victim's and the shadows' records (method, section 2).

The records fall 50/50 into the victim's half and the adversary's; each half is 45 % test, and 18.18 % of the
rest is dev. Members are *train*, non-members are *test*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from miaprune.grid import MAX_REFERENCES, known, reference

TEST, DEV_OF_REST = 0.45, 0.1818


@dataclass(frozen=True)
class Split:
    """Disjoint int64 index arrays into a dataset, each in shuffled order.

    Attributes
    ----------
    train : np.ndarray
        The members: what a model is trained on.
    dev : np.ndarray
        What its early stopping looks at.
    test : np.ndarray
        The non-members.
    """

    train: np.ndarray
    dev: np.ndarray
    test: np.ndarray


def _drawn(records: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rest of ``records``, and a share of them drawn at random, both shuffled.

    What scikit-learn's ``train_test_split`` gives, whose import takes every job seconds.
    """
    order = np.random.RandomState(seed).permutation(len(records))
    drawn = math.ceil(share * len(records))
    return records[order[drawn:]], records[order[:drawn]]


def _halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The victim's and the adversary's records, of n."""
    return _drawn(np.arange(n, dtype=np.int64), 0.5, seed)


def _split(records: np.ndarray, seed: int) -> Split:
    rest, test = _drawn(records, TEST, seed)
    train, dev = _drawn(rest, DEV_OF_REST, seed)
    if not len(train):
        raise ValueError(f"{len(records)} records in a half: its train part would be empty; use 8 or more")
    return Split(train, dev, test)


def victim_split(n: int, seed: int) -> Split:
    """The victim's half of a dataset of ``n`` records, split with the seed itself.

    Raises
    ------
    ValueError : if a part would be empty (fewer than 8 records).
    """
    return _split(_halves(n, seed)[0], seed)


def shadow_split(n: int, seed: int, i: int) -> Split:
    """The adversary's half, split anew for shadow ``i`` (0-based) with seed + i; raises as `victim_split`."""
    return _split(_halves(n, seed)[1], seed + i)


def of_role(role: str, n: int, seed: int) -> Split:
    """The split of one of `miaprune.grid.ROLES` or of another reference model, such as reference_5.

    Raises `miaprune.grid.GridError` on any other name.
    """
    if role == "victim":
        return victim_split(n, seed)
    roles = tuple(map(reference, range(MAX_REFERENCES)))
    return shadow_split(n, seed, roles.index(known("role", role, roles)))
