"""Figures of a report: each function takes tables or signals and returns a figure; `save` writes it.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and never carry a meaning alone: markers and
line styles repeat it. Every figure is seven inches wide, says how many settings, seeds or records stand behind it
and ends with a caption on how to read it. Nothing here touches matplotlib's global state.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import pearsonr, spearmanr

from miaprune import grid, metrics
from miaprune.files import whole
from miaprune.results import undefended
from miaprune.signals import Signals

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE, GREY = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#777777"),
)

WIDTH = 7.0
"""Inches: a printed page's text width."""

STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.0,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # embeds fonts as text that can be searched and edited
    "savefig.dpi": 200,
}

# Marker and colour: one colour per family of attacks, one marker per attack.
ATTACK_MARKS = {
    "samia": ("o", VERMILLION),
    "nn": ("s", BLUE),
    "nn_top3": ("^", BLUE),
    "nn_cls": ("D", BLUE),
    "conf": ("v", GREEN),
    "xent": ("<", GREEN),
    "mentr": (">", GREEN),
    "top1_conf": ("P", ORANGE),
    "conf_global": ("X", ORANGE),
    "corr": ("p", PURPLE),
    "blindmi": ("*", BLACK),
}
DATASET_MARKS = {
    "cifar10": ("o", BLUE),
    "cifar100": ("s", VERMILLION),
    "svhn": ("^", GREEN),
    "chmnist": ("D", ORANGE),
    "location": ("v", PURPLE),
    "texas": ("<", SKY),
    "purchase": (">", BLACK),
    "digits": ("P", GREY),
    "cifar10_jpeg": ("X", SKY),
}
GAPS = {
    "generalization_gap": ("generalization gap (points)", 100.0),
    "confidence_gap": ("confidence gap", 1.0),
    "sensitivity_gap": ("sensitivity gap", 1.0),
}


def save(figure: Figure, path: str | Path) -> None:
    """Write ``path``.pdf and ``path``.png, each whole or not at all; the same figure gives the same bytes."""
    # Files that carry no date and no version of the writer are equal when the figures are.
    metadata = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    for suffix, facts in metadata.items():
        with whole(f"{path}.{suffix}") as temporary, matplotlib.rc_context(STYLE):
            figure.savefig(temporary, format=suffix, metadata=facts)


@matplotlib.rc_context(STYLE)
def accuracy_vs_sparsity(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """Attack accuracy against sparsity, a panel per pruner; undefended victims, matched adversaries.

    ``attacks`` is an attacks table; seeds are averaged. The originals' accuracies are horizontal lines.
    """
    rows = undefended(attacks)
    rows = rows[(rows["dataset"] == dataset) & (rows["model"] == model)]
    pruners = [p for p in grid.PRUNERS if p in set(rows["pruner"])]
    names = [a for a in grid.ATTACKS if a in set(rows["attack"])]
    columns = min(2, max(1, len(pruners)))
    figure, panels = _figure(max(1, math.ceil(len(pruners) / columns)), columns, panel_height=2.4)
    for i, axes in enumerate(panels):
        axes.axhline(50, color=GREY, linewidth=0.8, linestyle=":")
        for name in reversed(names):  # SAMIA last, on top
            marker, color = ATTACK_MARKS[name]
            strong = name == "samia"
            mine = rows[rows["attack"] == name]
            for original in mine.loc[mine["pruner"].isna(), "accuracy"]:
                axes.axhline(
                    100 * original,
                    color=color,
                    linestyle="--",
                    linewidth=1.2 if strong else 0.5,
                    alpha=1 if strong else 0.6,
                )
            line = mine[mine["pruner"] == pruners[i]].sort_values("sparsity") if pruners else mine[:0]
            axes.plot(
                100 * line["sparsity"],
                100 * line["accuracy"],
                color=color,
                marker=marker,
                linewidth=2.2 if strong else 0.8,
                markersize=5 if strong else 3.5,
                clip_on=False,
                zorder=3,
            )
        levels = sorted(set(100 * rows["sparsity"].dropna()))
        axes.set_xticks(levels, [f"{level:g}" for level in levels])
        axes.set_title(pruners[i] if pruners else "no pruned model")
    _label_outer(panels, columns, "sparsity (% of weights or channels)", "attack accuracy (%)")
    handles = [_handle(*ATTACK_MARKS[name], name, strong=name == "samia") for name in names]
    handles.append(Line2D([], [], color=BLACK, linestyle="--", linewidth=0.8, label="its original"))
    handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=0.8, label="chance"))
    figure.legend(handles=handles, loc="outside right center")
    settings = rows.loc[rows["pruner"].notna(), "variant"].nunique()
    _finish(
        figure,
        f"Membership inference on {dataset}/{model}",
        "Accuracy of each attack on the pruned models (solid, one point per sparsity) and on their original "
        "(dashed, same colour); a solid line above its dashed one means that pruning helped that attack. Members "
        f"and non-members weigh the same, so guessing gives 50 % (dotted). {_count(settings, 'pruned setting')}, "
        f"{_seeds(rows)}.",
    )
    return figure


@matplotlib.rc_context(STYLE)
def samia_vs_others(attacks: pd.DataFrame) -> Figure:
    """SAMIA's accuracy against every other attack's, a panel each and a point per setting, seeds averaged."""
    rows = undefended(attacks)
    table = rows.pivot(index=["dataset", "model", "variant"], columns="attack", values="accuracy") * 100
    names = [a for a in grid.ATTACKS if a in table and a != "samia"] if "samia" in table else []
    columns = min(4, max(2, len(names)))
    figure, panels = _figure(max(1, math.ceil(len(names) / columns)), columns, panel_height=1.75)
    low, high = _limits(table.to_numpy().ravel())
    datasets = [d for d in grid.DATASETS if d in set(rows["dataset"])]
    for axes, name in zip(panels, names, strict=False):
        both = table[[name, "samia"]].dropna()
        axes.axline((low, low), (high, high), color=GREY, linewidth=0.8)
        for dataset in datasets:
            for pruned in (True, False):
                here = both[
                    (both.index.get_level_values("dataset") == dataset)
                    & ((both.index.get_level_values("variant") != "original") == pruned)
                ]
                axes.plot(here[name], here["samia"], **_point(dataset, pruned))
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel=f"{name} (%)")
        axes.set_title(f"above in {(both['samia'] > both[name]).sum()} of {len(both)}")
    for axes in panels[::columns]:
        axes.set_ylabel("samia (%)")
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    handles = [_handle(*DATASET_MARKS[d], d, line=False) for d in datasets]
    figure.legend(handles=[*handles, *_filled_and_hollow()], loc="outside upper center", ncols=6)
    originals = rows.loc[rows["pruner"].isna(), ["dataset", "model"]].drop_duplicates()
    _finish(
        figure,
        "SAMIA against each other attack",
        "Attack accuracy; each point is one model. Above the diagonal SAMIA is the more accurate of the two; the "
        "title counts those points. "
        f"{_count(len(table) - len(originals), 'pruned setting')} (filled), "
        f"{_count(len(originals), 'original')} (hollow), {_seeds(rows)}.",
    )
    return figure


@matplotlib.rc_context(STYLE)
def signal_distributions(original: Signals | None, pruned: Mapping[str, Signals], title: str) -> Figure:
    """Cumulative distributions of confidence and sensitivity, members against non-members.

    A column for the original (None if there is none) and for each sparsity of ``pruned``. A record's sensitivity
    is its mean over classes.
    """
    models = _models(original, pruned)
    figure, panels = _figure(2, max(1, len(models)), panel_height=1.8, sharey=True)
    readings = {
        "confidence": lambda s: np.clip(s.confidence.astype(float), *CONFIDENCES),
        "sensitivity": lambda s: s.sensitivities.mean(axis=1, dtype=float),
    }
    ...
    return figure
