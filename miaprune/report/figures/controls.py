"""Is it the pruning? What pruned models leak beside the controls (method, section 15): by sparsity, and by accuracy."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from miaprune import grid
from miaprune.report.effects import versions
from miaprune.report.figures.captions import failures_of_largest, finish, plural, seeds
from miaprune.report.figures.means import SEVERAL, averaged, bars, how_often, interval, results_behind
from miaprune.report.figures.style import (
    BAND,
    BLACK,
    BLUE,
    GREEN,
    GUESSING,
    PURPLE,
    VERMILLION,
    panels,
    styled,
    write_failed,
)
from miaprune.report.tables import PLACE, largest, matched

PRUNED, UNTUNED, RANDOM = "pruned", grid.UNTUNED, grid.RANDOM
LINES: dict[str, dict[str, Any]] = {
    "original": {"color": BLACK, "linestyle": (0, (4, 3)), "linewidth": 1.0},
    grid.FINETUNED: {"color": PURPLE, "linestyle": (0, (6, 2, 1, 2)), "linewidth": 1.4},
    PRUNED: {"color": VERMILLION, "linestyle": "-", "linewidth": 1.6, "marker": "o", "markersize": 4.5},
    UNTUNED: {"color": BLUE, "linestyle": (0, (3, 2)), "linewidth": 1.2, "marker": "s", "markersize": 4.5},
    RANDOM: {"color": GREEN, "linestyle": (0, (1, 1)), "linewidth": 1.4, "marker": "^", "markersize": 5.0},
}
"""Of the two unpruned versions and the three pruned ones, in the order in which they come about."""

THIN: dict[str, Any] = {"linewidth": 0.6, "marker": "", "zorder": 1.8}

UNPRUNED_MARKS = {"original": "*", grid.FINETUNED: "D"}

LABELS = {
    "original": "original",
    grid.FINETUNED: "finetuned,\nnot pruned",
    PRUNED: "pruned,\nfine-tuned",
    UNTUNED: "pruned,\nuntuned",
    RANDOM: "random weights,\nfine-tuned",
}
"""What a legend says of each."""

MEANINGS = {
    UNTUNED: "Untuned: pruned and not trained further.",
    RANDOM: "Random: as many weights as l1 takes, drawn at random.",
}
"""What a caption says of those that it shows."""

MEASURES = {"auc": ("largest AUC (%)", 50), "tpr_at_fpr_0.01": ("largest TPR at 1 % FPR (%)", 1)}
"""How an axis names them, and what guessing gives, in percent."""

VICTIM = {"victim_train_accuracy": "train accuracy (%)", "victim_test_accuracy": "test accuracy (%)"}


@styled()
def effects(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """The largest AUC and TPR at 1 % FPR of any attack against sparsity: pruned models and controls.

    A column of two panels per pruner, with what is not pruned as horizontal lines and random weights in each; thin,
    the same of SAMIA. ``attacks`` is an attacks table: undefended victims and matched adversaries are drawn, seeds
    averaged.
    """
    rows = _undefended(attacks, dataset, model)
    shown = _pruners(rows) or ["no pruned model"]
    columns = len(shown)
    figure, places = panels(2 * columns, columns, 2.1, sharex=True, sharey="row")
    best = {measure: largest(rows, measure) for measure in MEASURES}
    samia = rows[rows["attack"] == "samia"]
    for k, (measure, (label, guessing)) in enumerate(MEASURES.items()):
        row = places[k * columns : (k + 1) * columns]
        row[0].set_ylabel(label)
        for axes, pruner in zip(row, shown, strict=True):
            axes.axhline(guessing, **GUESSING)
            _lines(axes, _versions(best[measure], pruner), measure)
            write_failed(axes, _failed(_versions(best["auc"], pruner)))  # a sound victim may lack the rate
            for name in ("original", grid.FINETUNED, PRUNED):
                _line(axes, _versions(samia, pruner)[name], name, measure, **THIN)
        if best["auc"]["auc"].notna().any() and best[measure][measure].isna().all():
            row[0].set_title("too few non-members: no attack has such a rate", loc="left")
    for upper, lower, pruner in zip(places[:columns], places[columns:], shown, strict=True):
        failed = [
            n for n, those in _versions(best["auc"], pruner).items() if n in UNPRUNED_MARKS and _lost(those).any()
        ]
        title = pruner + (f"; failed: {', '.join(failed)}" if failed else "")
        upper.set_title(textwrap.fill(title, 100 // columns))
        levels = sorted(set(rows["sparsity"].dropna()))  # of all pruners: columns share their axis
        lower.set_xticks(levels, [f"{level:g}" for level in levels])
        lower.set_xlabel("sparsity" + (" (fraction of " if columns < 3 else "\n(of ") + f"{grid.unit(pruner)})")
    handles = [Line2D([], [], label=LABELS[name], **line) for name, line in LINES.items() if name in versions(rows)]
    handles.append(Line2D([], [], label="thin: SAMIA", color=BLACK, **THIN))
    handles.append(Line2D([], [], label="guessing", **GUESSING))
    figure.legend(handles=handles, loc="outside right center", handlelength=3.0, labelspacing=0.9)
    often = how_often(best["auc"], "auc"), how_often(best["tpr_at_fpr_0.01"], "tpr_at_fpr_0.01")
    finish(
        figure,
        f"Is it the pruning? Leak of {dataset}/{model} beside its controls",
        "The largest AUC of any attack, and below it the largest share of members that an attack finds while it "
        "accuses 1 % of the non-members; both in percent, each of the attack that is largest there. From the original "
        "to the finetuned line is what further training does, from there to the pruned marks what pruning does. "
        + "".join(f"{said} " for name, said in MEANINGS.items() if name in versions(rows))
        + f"Strongest by AUC: {often[0] or 'none'}; by TPR: {often[1] or 'none'}. "
        f"{_behind(rows, shown, 'Bars and bands')}.",
    )
    return figure


@styled()
def leak_vs_accuracy(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """The largest AUC of any attack against the victim's train and test accuracy: pruned models and controls.

    A row of two panels per pruner, the original, the finetuned and random weights in each. Versions and seeds as in
    `effects`.
    """
    rows = _undefended(attacks, dataset, model)
    shown = _pruners(rows) or ["no pruned model"]
    figure, places = panels(2 * len(shown), 2, 2.4 if len(shown) < 3 else 1.9, "largest AUC (%)", sharey=True)
    best = largest(rows, "auc")
    levels = sorted(set(best["sparsity"].dropna()))
    for k, axes in enumerate(places):
        pruner, (name, label) = shown[k // 2], list(VICTIM.items())[k % 2]
        mine = _versions(best, pruner)
        axes.axhline(50, **GUESSING)
        for version, those in mine.items():
            _points(axes, those, version, name, levels)
        axes.margins(0.1)
        failed = [_named(version, row) for version, v in mine.items() for row in v[_lost(v)].to_dict("records")]
        title = pruner + (f"; failed: {', '.join(failed)}" if failed else "")
        axes.set_title(textwrap.fill(title, 100) if k % 2 == 0 else "", loc="left")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    handles = [
        Line2D(
            [], [], label=LABELS[version], **_mark(version, 5.0) | {"linewidth": 0.7, "linestyle": line["linestyle"]}
        )
        for version, line in LINES.items()
        if version in versions(rows)
    ]
    handles.append(Line2D([], [], label="guessing", **GUESSING))
    figure.legend(handles=handles, loc="outside right center", handlelength=3.0, labelspacing=0.9)
    finish(
        figure,
        f"Leak against accuracy: {dataset}/{model} beside its controls",
        "The largest AUC of any attack against the accuracy of its victim on its own train data (left) and on test "
        "data (right), in percent. Compare marks that stand one above the other: a pruned model above an unpruned one "
        "(star or diamond) of the same accuracy leaks more than its accuracy explains. Where no unpruned mark is near, "
        "nothing follows. Sparsities are joined in ascending order, a larger mark for a larger one; the largest is "
        f"written. Strongest: {how_often(best, 'auc') or 'none'}. {_behind(rows, shown, 'Bars')}.",
    )
    return figure


def _undefended(attacks: pd.DataFrame, dataset: str, model: str) -> pd.DataFrame:
    """The matched adversary's attacks on one model's undefended versions and controls, averaged over seeds."""
    rows = attacks[(attacks["dataset"] == dataset) & (attacks["model"] == model)]
    return averaged(matched(rows))


def _pruners(rows: pd.DataFrame) -> list[str]:
    """The pruners that get panels of their own: `RANDOM` only where there is no other."""
    there = [p for p in grid.PRUNERS if p in set(rows["pruner"])]
    return [p for p in there if p != RANDOM] or there


def _versions(rows: pd.DataFrame, pruner: str) -> dict[str, pd.DataFrame]:
    """The rows of each of `LINES` that belong beside one pruner, by sparsity."""
    drawn = (rows["pruner"] == RANDOM) & rows["tuning"].isna()
    beside = rows[rows["pruner"].isna() | (rows["pruner"] == pruner) | drawn].sort_values("sparsity")
    kinds = versions(beside)
    return {name: beside[kinds == name] for name in LINES}


def _lost(rows: pd.DataFrame) -> pd.Series:
    """Which versions no attack says anything about, in any seed."""
    return rows["auc"].isna()


def _failed(versions: dict[str, pd.DataFrame]) -> dict[float, list[str]]:
    """The pruned versions that are `_lost`, by sparsity."""
    failed: dict[float, list[str]] = {}
    for name in (PRUNED, UNTUNED, RANDOM):
        for level in versions[name].loc[_lost(versions[name]), "sparsity"]:
            failed.setdefault(level, []).append(name)
    return failed


def _named(version: str, row: dict[Any, Any]) -> str:
    return version if version in UNPRUNED_MARKS else f"{version} {row['sparsity']:g}"


def _lines(axes: Axes, versions: dict[str, pd.DataFrame], measure: str) -> None:
    """The lines of one panel, with their intervals: bands about horizontal ones, else bars."""
    aside = _aside(versions)
    for name, rows in versions.items():
        color = LINES[name]["color"]
        if name in UNPRUNED_MARKS:
            for low, high in zip(*interval(rows, measure, single=True), strict=True):
                if np.isfinite(low):
                    axes.axhspan(low, high, color=color, **BAND)
        else:
            bars(axes, rows, rows["sparsity"] + aside[name], measure, color, single=True)
        _line(axes, rows, name, measure, aside.get(name, 0.0))


def _line(axes: Axes, rows: pd.DataFrame, name: str, measure: str, aside: float = 0.0, **more: Any) -> None:
    """One of `LINES`: horizontal, or over sparsity and so far ``aside``."""
    line = LINES[name] | more
    if name in UNPRUNED_MARKS:
        for value in 100 * rows[measure].dropna():
            axes.axhline(value, **line)
    else:
        axes.plot(rows["sparsity"] + aside, 100 * rows[measure], **line)


def _aside(versions: dict[str, pd.DataFrame]) -> dict[str, float]:
    """How far each version's marks stand beside their sparsity, so that their bars can be told apart."""
    levels = sorted(set(pd.concat([rows["sparsity"] for rows in versions.values()]).dropna()))
    step = (levels[-1] - levels[0]) / (len(levels) - 1) if len(levels) > 1 else 0.1
    return {PRUNED: 0.0, UNTUNED: -0.06 * step, RANDOM: 0.06 * step}


def _points(axes: Axes, rows: pd.DataFrame, version: str, accuracy: str, levels: list[float]) -> None:
    """One version's models by sparsity, joined, with bars both ways, the largest sparsity written beside its mark."""
    rows = rows[~_lost(rows)]
    line = LINES[version]
    x, y = 100 * rows[accuracy], 100 * rows["auc"]
    axes.plot(x, y, color=line["color"], linestyle=line["linestyle"], linewidth=0.7)
    bars(axes, rows, x, "auc", line["color"], single=True, width=0.6)
    bars(axes, rows, y, accuracy, line["color"], across=True, width=0.6)
    sizes = dict(zip(levels, np.linspace(3.0, 6.5, len(levels)), strict=True))
    for at, value, sparsity in zip(x, y, rows["sparsity"], strict=True):
        axes.plot(at, value, linestyle="", **_mark(version, sizes.get(sparsity, 6.0)))
    if version not in UNPRUNED_MARKS and len(rows):
        offsets = {PRUNED: (4, 4, "left", "bottom"), UNTUNED: (4, -4, "left", "top"), RANDOM: (-4, -4, "right", "top")}
        dx, dy, ha, va = offsets[version]
        said: dict[str, Any] = {
            "textcoords": "offset points",
            "ha": ha,
            "va": va,
            "fontsize": 7,
            "color": line["color"],
        }
        axes.annotate(f"{rows['sparsity'].iloc[-1]:g}", (x.iloc[-1], y.iloc[-1]), (dx, dy), **said)


def _mark(version: str, size: float) -> dict[str, Any]:
    marker = LINES[version].get("marker") or UNPRUNED_MARKS[version]
    size = size + 2 if marker == "*" else size
    return {"color": LINES[version]["color"], "marker": marker, "markersize": size, "markeredgewidth": 0.5}


def _behind(rows: pd.DataFrame, shown: list[str], bars: str) -> str:
    """How many models and seeds stand behind such a figure, and what its ``bars`` are."""
    beside = [_versions(rows.drop_duplicates(PLACE), pruner) for pruner in shown]
    numbers = {name: len(pd.concat([each[name] for each in beside]).drop_duplicates(PLACE)) for name in LINES}
    listed = ", ".join(f"{number} {name}" for name, number in numbers.items() if number)
    models = plural(sum(numbers.values()), "victim model") + (f" ({listed})" if listed else "")
    n = results_behind(rows)
    kinds = {"of the one result": n == 1, "of the mean over seeds (Student's t)": n >= SEVERAL}
    of = " or ".join(kind for kind, there in kinds.items() if there.any())
    exact = f". {bars}: 95 % interval {of}" if of else ". Of two seeds no interval is drawn" * bool((n == 2).any())
    return f"{models}; each point is {seeds(rows)}{exact}{failures_of_largest(rows)}"
