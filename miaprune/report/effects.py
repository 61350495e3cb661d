"""Differences between versions of a model: what the claims and the table of effects are made of.

Versions are compared seed by seed: each seed has other members, weights and shadow models. "The strongest attack" is
the best of those that are sound on both sides, so that a network that learnt nothing on one side decides nothing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from miaprune.grid import FINETUNED, RANDOM, UNTUNED
from miaprune.report.tables import PLACE, half_width, matched, sound

AT = [*PLACE, "seed"]
"""What names an undefended setting of one seed."""

ORIGINAL = ["dataset", "model", "seed"]
"""What names an original: settings that share one are not independent (method, section 16)."""

EFFECT_COLUMNS = ["dataset", "model", "pruner", "sparsity", "effect", "measure", "mean", "lo", "hi", "seeds"]


def versions(rows: pd.DataFrame) -> np.ndarray:
    """What each row's victim is: "original", "pruned", `FINETUNED`, `UNTUNED` or `RANDOM`."""
    pruner, tuning = rows["pruner"], rows["tuning"]
    return np.select([tuning.notna(), pruner.isna(), pruner == RANDOM], [tuning, "original", RANDOM], "pruned")


def reached(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """What each attack reaches, as a fraction: a row by `AT`, a column per attack, NaN where it decides nothing.

    ``rows`` are `miaprune.report.tables.sound`, of one adversary on victims with one defence or none.
    """
    return rows.pivot(index=AT, columns="attack", values=measure)


def of_the_same_original(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """For each row of ``after`` the row of its data set, model and seed in ``before``, which has one of each."""
    wanted = pd.MultiIndex.from_frame(after.index.to_frame()[ORIGINAL])
    return before.droplevel("variant").reindex(wanted).set_axis(after.index)


def strongest(after: pd.DataFrame, before: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The most that an attack reaches in each row of two tables with the same rows, of those sound in both."""
    after, before = after.align(before, join="inner", axis=1)
    both = after.notna() & before.notna()
    return after.where(both).max(axis=1), before.where(both).max(axis=1)


def effects(attacks: pd.DataFrame) -> pd.DataFrame:
    """What fine-tuning, pruning and the choice of weights do to the leak (method, section 15), by data set and model.

    A row per setting, effect and measure, which is "auc" or "tpr_at_fpr_0.01", each of the strongest attack by it.
    ``mean`` is that of the difference over seeds, as a fraction, ``lo`` and ``hi`` Student's 95 % interval from three
    seeds on, else empty. "finetuned - original" has neither pruner nor sparsity.
    """
    rows = sound(matched(attacks))
    kinds, places = versions(rows), rows.drop_duplicates("variant").set_index("variant")[["pruner", "sparsity"]]
    parts = []
    for measure in ("auc", "tpr_at_fpr_0.01"):
        original, pruned, finetuned, untuned, drawn = (
            reached(rows[kinds == kind], measure) for kind in ("original", "pruned", FINETUNED, UNTUNED, RANDOM)
        )
        at = drawn.index.to_frame()
        as_l1 = pd.MultiIndex.from_frame(at.assign(variant=at["variant"].str.replace(RANDOM, "l1")))
        for effect, after, before in (
            ("finetuned - original", finetuned, of_the_same_original(original, finetuned)),
            ("pruned - original", pruned, of_the_same_original(original, pruned)),
            ("pruned - finetuned", pruned, of_the_same_original(finetuned, pruned)),
            ("untuned - original", untuned, of_the_same_original(original, untuned)),
            ("l1 - random", pruned.reindex(as_l1).set_axis(drawn.index), drawn),
        ):
            more, less = strongest(after, before)
            parts.append((more - less).dropna().rename("mean").reset_index().assign(effect=effect, measure=measure))
    differences = pd.concat(parts, ignore_index=True)
    groups = differences.groupby([*PLACE, "effect", "measure"], sort=False)["mean"]
    table = pd.DataFrame({"mean": groups.mean(), "seeds": groups.count()})
    half = half_width(groups.std(), table["seeds"])
    table = table.assign(lo=table["mean"] - half, hi=table["mean"] + half).reset_index()
    return table.join(places, on="variant")[EFFECT_COLUMNS]
