"""Means over seeds as figures draw them: their 95 % intervals, and of several attacks the strongest."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from miaprune.report.tables import half_width, over_seeds

SEVERAL = 3
"""Of so many results on a mean's interval is drawn."""

VICTIMS = ("victim_train_accuracy", "victim_test_accuracy")


def averaged(attacks: pd.DataFrame) -> pd.DataFrame:
    """`over_seeds`, with the victim's accuracies too over those results alone that have not failed.

    So a point's two coordinates are means over the same victims.
    """
    known = attacks["failed"].isna()
    return over_seeds(attacks.assign(**{name: attacks[name].where(known) for name in VICTIMS}))


def results_behind(rows: pd.DataFrame) -> pd.Series:
    """How many results each mean is over, of a table averaged over seeds."""
    return rows["seeds"] - rows["failures"]


def interval(rows: pd.DataFrame, name: str, *, single: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Both ends, in percent, of the 95 % interval of the means of ``name``: Student's, NaN below `SEVERAL` results.

    Of an attack's measure, ``single`` also has the interval of the one result where there is one. A victim's
    accuracy is that of `averaged`.
    """
    n = results_behind(rows)
    if name in VICTIMS:
        half = half_width(rows[f"{name}_sd"], n)
        low, high = rows[name] - half, rows[name] + half
    else:
        low, high = rows[f"{name}_ci_lo"], rows[f"{name}_ci_hi"]
    shown = n >= (1 if single else SEVERAL)
    return 100 * low.where(shown).to_numpy(float), 100 * high.where(shown).to_numpy(float)


def bars(
    axes: Axes,
    rows: pd.DataFrame,
    at: pd.Series,
    name: str,
    color: str,
    *,
    across: bool = False,
    single: bool = False,
    width: float = 0.8,
) -> None:
    """Upright (or ``across``) error bars of `interval`, behind the marks at these x (or y) of the same rows."""
    low, high = interval(rows, name, single=single)
    there = np.isfinite(low) & at.notna().to_numpy()
    if there.any():
        draw = axes.hlines if across else axes.vlines
        draw(at.to_numpy(float)[there], low[there], high[there], color=color, linewidth=width, zorder=1.9)


def how_often(rows: pd.DataFrame, measure: str) -> str:
    """How often which attack is the largest: "rmia 3 times, conf once"."""
    counted = rows.loc[rows[measure].notna(), "attack"].value_counts().sort_index()
    counted = counted.sort_values(ascending=False, kind="stable")
    return ", ".join(f"{attack} {'once' if count == 1 else f'{count} times'}" for attack, count in counted.items())
