"""What it costs an attack not to know how its victim was pruned."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from miaprune import grid
from miaprune.report.figures.captions import failures, finish, plural, precision, seeds
from miaprune.report.figures.means import interval
from miaprune.report.figures.style import BLACK, VERMILLION, panels, styled
from miaprune.report.tables import controls, over_seeds

HEAT = matplotlib.colormaps["Blues"]
"""Of one hue, from light to dark: it keeps its order in grey print."""


@styled()
def transfer(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """SAMIA's accuracy by how the shadows (rows) and the victim (columns) were pruned: a heat map per family.

    First a panel per pruner with several sparsities, then one per sparsity with several pruners; panels without
    a mismatched adversary are left out.
    """
    rows = attacks[(attacks["dataset"] == dataset) & (attacks["model"] == model) & (attacks["attack"] == "samia")]
    rows = over_seeds(rows[rows["pruner"].notna() & rows["defense"].isna() & ~controls(rows)])
    shadows = rows["variant"].where(rows["adversary"] == "matched", rows["adversary"].str.removeprefix("shadows_"))
    accuracies = dict(zip(zip(shadows, rows["variant"], strict=True), 100 * rows["accuracy"], strict=True))
    low, high = interval(rows, "accuracy")
    halves = dict(zip(accuracies, (high - low) / 2, strict=True))
    failed = {pair for pair, accuracy in accuracies.items() if math.isnan(accuracy)}
    variants = list(dict.fromkeys(zip(rows["pruner"], rows["sparsity"], strict=True)))
    pruners = [p for p in grid.PRUNERS if p in {p for p, _ in variants}]
    levels = [grid.written(sparsity) for sparsity in sorted({s for _, s in variants})]
    families = [(p, "sparsity", {f"{p}_{s}": s for s in levels}) for p in pruners]
    families += [(f"sparsity {s}", "pruner", {f"{p}_{s}": p for p in pruners}) for s in levels]
    maps = []
    for title, by, names in families:
        if any(a != b and (a, b) in accuracies for a in names for b in names):
            values, exact = (
                np.array([[cells.get((a, b), math.nan) for b in names] for a in names])
                for cells in (accuracies, halves)
            )
            blanks = {(i, j) for i, a in enumerate(names) for j, b in enumerate(names) if (a, b) in failed}
            maps.append((title, by, list(names.values()), values, exact, blanks))
    figure, places = panels(len(maps), min(3, len(maps) or 1), 2.1, without="no mismatched adversary")
    # One scale for all panels, from guessing or below up: a shade means the same everywhere.
    shown = 100 * rows["accuracy"].dropna() if rows["accuracy"].notna().any() else pd.Series([50.0])
    norm = Normalize(min(50.0, shown.min()), max(60.0, shown.max()))  # a point or two is not to look like much
    for axes, (title, by, labels, values, exact, blanks) in zip(places, maps, strict=True):
        _heat_map(axes, values, exact, labels, norm, blanks)
        axes.set(title=title, xlabel=f"victim's {by}", ylabel=f"shadow models' {by}")
    victims = plural(rows["variant"].nunique(), "victim model")
    finish(
        figure,
        f"Mismatched adversaries on {dataset}/{model}",
        "Accuracy of SAMIA in percent, when the shadow models were pruned otherwise (row) than the victim (column). "
        "The framed diagonal is the matched adversary: how far a cell is below the framed one of its column is what "
        "not knowing how the victim was pruned costs the attack. The darker, the more accurate; guessing gives 50 %. "
        f"{victims}; each cell is {seeds(rows)}{precision(rows, bars='±')}{failures(rows)}.",
    )
    return figure


def _heat_map(
    axes: Axes,
    values: np.ndarray,
    halves: np.ndarray,
    names: Sequence[str],
    norm: Normalize,
    failed: Collection[tuple[int, int]],
) -> None:
    """Percentages [n, n] with a number in each cell and the diagonal framed; a missing one is blank.

    ``halves`` [n, n] are half their intervals, NaN where there is none.
    """
    axes.imshow(values, cmap=HEAT, norm=norm)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            light = norm(value) < 0.55
            said = f"{value:.1f}" + (f"\n±{halves[i, j]:.1f}" if np.isfinite(halves[i, j]) else "")
            axes.text(j, i, said, ha="center", va="center", fontsize=7, color=BLACK if light else "white")
        elif (i, j) in failed:
            axes.text(j, i, "failed", ha="center", va="center", fontsize=7, rotation=30)
        if i == j:
            axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, color=VERMILLION, clip_on=False))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks(range(len(names)), names)
    slanted: dict[str, Any] = {"rotation": 30, "rotation_mode": "anchor", "ha": "right"}
    axes.set_xticks(range(len(names)), names, **(slanted if max(map(len, names)) > 4 else {}))
