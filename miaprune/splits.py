"""Who trains on what: the victim's and the shadows' records (method, section 2).

The records fall 50/50 into the victim's half and the adversary's; each half is 45 % test, and 18.18 % of the
rest is dev. Members are *train*, non-members are *test*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import train_test_split

from miaprune.grid import ROLES, known

TEST, DEV_OF_REST = 0.45, 0.1818


@dataclass(frozen=True)
class Split:
    """Disjoint int64 index arrays into a dataset, each in shuffled order."""

    train: np.ndarray
    dev: np.ndarray
    test: np.ndarray


def _halves(n: int, seed: int) -> list[np.ndarray]:
    """The victim's and the adversary's records, of n."""
    return train_test_split(np.arange(n, dtype=np.int64), test_size=0.5, random_state=seed)


def _split(records: np.ndarray, seed: int) -> Split:
    rest, test = train_test_split(records, test_size=TEST, random_state=seed)
    train, dev = train_test_split(rest, test_size=DEV_OF_REST, random_state=seed)
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
    """The split of one of `miaprune.grid.ROLES`; raises `miaprune.grid.GridError` on any other name."""
    if known("role", role, ROLES) == "victim":
        return victim_split(n, seed)
    return shadow_split(n, seed, int(role.removeprefix("shadow_")))
