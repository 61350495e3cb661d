"""Every record's score: which victims leak most, and which records the strongest attack is surest about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from miaprune import grid
from miaprune.data import splits
from miaprune.files import FileError, check_facts, load_arrays

SUREST = 0.01
"""The share of a victim's records that is listed and compared: those that an attack is surest about."""

COLUMNS = (
    *("dataset", "model", "pruner", "sparsity", "defense", "strength", "attack", "auc", "overlap_with_original"),
    *("rank", "record", "score", "member"),
)


@dataclass(frozen=True)
class Scores:
    """What attacks say of a victim's records.

    Attributes
    ----------
    by_attack : dict[str, np.ndarray]
        float32 [n] by attack; 0 or more: called a member.
    records : np.ndarray
        int64 [n], the records' places in the data set.
    members : np.ndarray
        bool [n].
    """

    by_attack: dict[str, np.ndarray]
    records: np.ndarray
    members: np.ndarray


def load(path: str | Path, setting: str, seed: int) -> Scores:
    """Read a setting's scores; raises `miaprune.files.FileError` if they are another's, damaged or of other records."""
    arrays, about = load_arrays(path)
    check_facts(path, about, {"setting": setting, "seed": seed})
    try:
        records, members, n = arrays.pop("records"), arrays.pop("members"), int(about["of"])
    except KeyError as error:
        raise FileError(f"{path}: lacks {error}; delete it and run again") from None
    if {array.shape for array in (members, *arrays.values())} != {records.shape}:
        raise FileError(f"{path}: scores of different numbers of records; delete it and run again")
    split = splits.victim_split(n, seed)
    if not np.array_equal(records, np.concatenate([split.train, split.test])):
        raise FileError(f"{path}: scores of other records than seed {seed} attacks; delete it and run again")
    return Scores(arrays, records, members)


def exposed(attacks: pd.DataFrame, scores: Mapping[grid.Setting, Scores]) -> pd.DataFrame:
    """The records that the strongest matched attack is surest about, a row each, by setting.

    ``attacks`` is an attacks table of one seed, ``scores`` those of its settings. The strongest attack on a setting has
    the largest AUC. ``overlap_with_original`` is the share of these records that are also among those of the original,
    by the strongest attack there; NaN where there is no original.
    """
    rows, surest = [], {}
    for setting, of_setting in scores.items():
        found = strongest(attacks, setting)
        if found is None or found[0] not in of_setting.by_attack:
            continue
        values = of_setting.by_attack[found[0]]
        # Ties fall as the records are shuffled, by setting: members come first in the file.
        shuffled = np.random.default_rng(grid.derive_seed(0, setting.name)).permutation(len(values))
        order = np.lexsort((shuffled, -values))[: max(1, round(SUREST * len(values)))]
        surest[setting] = set(of_setting.records[order].tolist())
        rows += [
            {
                **{key: getattr(setting, key) for key in ("dataset", "model", "pruner")},
                "sparsity": None if setting.sparsity is None else float(setting.sparsity),
                "defense": setting.defense,
                "strength": None if setting.strength is None else float(setting.strength),
                "attack": found[0],
                "auc": found[1],
                "overlap_with_original": setting,
                "rank": rank,
                "record": int(of_setting.records[place]),
                "score": float(values[place]),
                "member": bool(of_setting.members[place]),
            }
            for rank, place in enumerate(order, start=1)
        ]
    for row in rows:
        own, original = surest[row["overlap_with_original"]], surest.get(row["overlap_with_original"].original)
        row["overlap_with_original"] = len(own & original) / len(own) if original else None
    return pd.DataFrame(rows, columns=list(COLUMNS))


def sound(scores: Scores, attacks: pd.DataFrame, setting: grid.Setting) -> Scores:
    """Those of the attacks that an attacks table has for a setting and that did not fail there."""
    rows = attacks[_of(attacks, setting) & attacks["failed"].isna()]
    return replace(scores, by_attack={a: s for a, s in scores.by_attack.items() if a in set(rows["attack"])})


def most_exposed(scores: Mapping[grid.Setting, Scores], attacks: pd.DataFrame) -> dict[grid.Setting, Scores]:
    """Of one model the original, and of its pruned and of its defended settings the one with the largest AUC each."""
    kinds: dict[str, list[tuple[float, grid.Setting]]] = {"original": [], "pruned": [], "defended": []}
    for setting in scores:
        if found := strongest(attacks, setting):
            kind = "original" if setting.pruner is None else "defended" if setting.defense else "pruned"
            kinds[kind].append((found[1], setting))
    chosen = [max(of_kind, key=lambda pair: pair[0])[1] for of_kind in kinds.values() if of_kind]
    return {setting: scores[setting] for setting in chosen}


def strongest(attacks: pd.DataFrame, setting: grid.Setting) -> tuple[str, float] | None:
    """The matched attack on a setting with the largest AUC, and that; None where no attack says anything."""
    areas = attacks[_of(attacks, setting) & attacks["failed"].isna()].set_index("attack")["auc"]
    return (str(areas.idxmax()), float(areas.max())) if len(areas) else None


def _of(attacks: pd.DataFrame, setting: grid.Setting) -> pd.Series:
    """Which rows of an attacks table are of a setting's matched adversary."""
    here = attacks["adversary"] == "matched"
    for key in ("dataset", "model", "pruner", "tuning", "defense"):
        here &= attacks[key].isna() if getattr(setting, key) is None else attacks[key] == getattr(setting, key)
    for key in ("sparsity", "strength"):
        here &= attacks[key].isna() if getattr(setting, key) is None else attacks[key] == float(getattr(setting, key))
    return here
