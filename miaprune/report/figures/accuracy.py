"""Attack accuracies on undefended models: by sparsity, attack against attack, and against the victims' gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from miaprune import grid
from miaprune.report.figures.captions import GAPS, counts, failures, finish, number
from miaprune.report.figures.means import bars, interval
from miaprune.report.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    GUESSING,
    NEW_MARKS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Mark,
    marks_of,
    panels,
    styled,
    write_failed,
)
from miaprune.report.results import SETTING_KEYS
from miaprune.report.tables import PLACE, undefended

# Marker and colour. Attacks of one family share a colour; no two share both.
ATTACK_MARKS: dict[str, Mark] = {
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
    "base": ("h", SKY),
    "rmia": ("d", SKY),
    "lira": ((4, 1, 0), SKY),
    "lira_t": ((4, 1, 45), SKY),
}
DATASET_MARKS: dict[str, Mark] = {
    "cifar10": ("o", BLUE),
    "cifar100": ("s", VERMILLION),
    "svhn": ("^", GREEN),
    "chmnist": ("D", ORANGE),
    "location": ("v", PURPLE),
    "texas": ("<", SKY),
    "purchase": (">", BLACK),
    "digits": ("p", GREY),
}


@styled()
def accuracy_vs_sparsity(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """Attack accuracy against sparsity, a panel per pruner and a line per attack; the original's stand on the left.

    ``attacks`` is an attacks table: undefended victims and matched adversaries are drawn, seeds averaged.
    """
    rows = undefended(attacks)
    rows = rows[(rows["dataset"] == dataset) & (rows["model"] == model)]
    pruners = [p for p in grid.PRUNERS if p in set(rows["pruner"])]
    names = [a for a in grid.ATTACKS if a in set(rows["attack"])]
    shown = pruners or ["no pruned model"]
    figure, places = panels(len(shown), min(2, len(shown)), 2.3, "attack accuracy (%)", sharey=True)
    levels = sorted(set(rows["sparsity"].dropna()))
    # The original has no sparsity on this axis: it stands one step before the first.
    step = (levels[-1] - levels[0]) / (len(levels) - 1) if len(levels) > 1 else 0.1
    start = levels[0] - step if levels else 0.0
    ticks = {start: "original"} if rows["pruner"].isna().any() else {}
    ticks |= {level: f"{level:g}" for level in levels}
    # Where no lines tell the attacks' marks apart, they stand side by side.
    aside = dict(zip(names, np.linspace(-0.3, 0.3, len(names)) * step, strict=True))
    single = len(levels) == 1
    pruned = "filled marks, side by side to be told apart" if single else "a line, with a mark per sparsity"
    for axes, pruner in zip(places, shown, strict=True):
        axes.axhline(50, **GUESSING)
        for name in reversed(names):  # SAMIA last, on top
            mine, line = rows[rows["attack"] == name], _line(name)
            width = 0.4 * line["linewidth"] + 0.2
            unpruned = mine[mine["pruner"].isna()]
            bars(
                axes, unpruned, unpruned["sparsity"].fillna(start) + aside[name], "accuracy", line["color"], width=width
            )
            for original in 100 * unpruned["accuracy"].dropna():
                axes.plot(start + aside[name], original, **_dashed(line))
                if name == "samia":
                    axes.axhline(original, **_dashed(line) | {"marker": ""})
            mine = mine[mine["pruner"] == pruner].sort_values("sparsity")
            x = mine["sparsity"] + single * aside[name]
            axes.plot(x, 100 * mine["accuracy"], **line)
            bars(axes, mine, x, "accuracy", line["color"], width=width)
        failed = rows[rows["accuracy"].isna() & (rows["pruner"].isna() | (rows["pruner"] == pruner))]
        by_sparsity = failed.groupby(failed["sparsity"].fillna(start))["attack"]
        write_failed(axes, {float(x): ["all"] if set(a) >= set(names) else list(a) for x, a in by_sparsity})
        axes.set_xticks(list(ticks), ticks.values(), rotation=90 if len(levels) > 6 else 0)
        axes.set(title=pruner, xlabel=f"sparsity (fraction of {grid.unit(pruner)})")
    handles = [Line2D([], [], label=name, **_line(name)) for name in names]
    handles.append(
        Line2D([], [], label="its original", **_dashed(_line("blindmi") | {"marker": "o"}) | {"linestyle": ""})
    )
    handles.append(Line2D([], [], label="guessing", **GUESSING))
    figure.legend(handles=handles, loc="outside right center")
    finish(
        figure,
        f"Attacks on {dataset}/{model} by sparsity",
        f"Accuracy of each attack on the pruned models ({pruned}) and on the original (hollow marks on the left, side "
        "by side; SAMIA's with a dashed line). Where an attack is higher than its hollow mark, it gained accuracy by "
        "the pruning. Members and non-members weigh the same: guessing gives 50 %. "
        f"{counts(rows)}{failures(rows)}.",
    )
    return figure


@styled()
def samia_vs_others(attacks: pd.DataFrame) -> Figure:
    """SAMIA's accuracy against each other attack's: a panel per attack, a point per setting.

    Both are means over the seeds in which neither failed: other seeds have other victims.
    """
    rows = undefended(attacks)
    pairs = {a: undefended(_beside_samia(attacks, a)) for a in grid.ATTACKS if a in set(rows["attack"]) - {"samia"}}
    names = [name for name, pair in pairs.items() if len(pair)]
    drawn = pd.concat([rows[:0], *(pairs[name] for name in names)])
    columns = min(5, max(3, len(names)))
    height, without = 1.55 if columns > 3 else 2.4, "no other attack to compare with"
    figure, places = panels(len(names), columns, height, "SAMIA (%)", without, sharey=True)
    low, high = _limits(np.concatenate([100 * drawn["accuracy"], *interval(drawn, "accuracy")]))
    for axes, name in zip(places, names, strict=True):
        pair = pairs[name].set_index(PLACE)
        compared = 100 * pair.pivot(columns="attack", values="accuracy")
        both = compared.dropna()
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.8)
        theirs, ours = (pair[pair["attack"] == attack].loc[both.index] for attack in (name, "samia"))
        bars(axes, theirs, both["samia"], "accuracy", GREY, across=True, width=0.4)
        bars(axes, ours, both[name], "accuracy", GREY, width=0.4)
        _scatter(axes, both[name], both["samia"])
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel=f"{name} (%)")
        above = f"{(both['samia'] > both[name]).sum()} of {len(both)} above"
        axes.set_title(above + _and_failed(len(compared) - len(both)))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _dataset_legend(figure, rows)
    finish(
        figure,
        "SAMIA against every other attack",
        "Attack accuracy; each point is one victim model. Above the diagonal SAMIA is the more accurate of "
        f"the two; each panel's title counts those points. {counts(drawn)}{failures(rows)}.",
    )
    return figure


@styled()
def gaps_vs_accuracy(attacks: pd.DataFrame) -> Figure:
    """SAMIA's accuracy against the victim's three gaps, a point per setting, with the correlations."""
    known = attacks["failed"].isna()  # both means of a point are over the same victims
    rows = undefended(attacks.assign(**{f"victim_{key}": attacks[f"victim_{key}"].where(known) for key in GAPS}))
    rows = rows[rows["attack"] == "samia"].set_index(PLACE)
    figure, places = panels(len(GAPS), len(GAPS), 2.3, "SAMIA accuracy (%)", sharey=True)
    for axes, (key, label) in zip(places, GAPS.items(), strict=True):
        scale = 100 if key == "generalization_gap" else 1
        both = (rows[[f"victim_{key}", "accuracy"]] * [scale, 100]).dropna()
        gap, accuracy = both[f"victim_{key}"], both["accuracy"]
        bars(axes, rows.loc[both.index], gap, "accuracy", GREY, width=0.4)
        _scatter(axes, gap, accuracy)
        axes.set(xlabel=label, title=_correlations(gap, accuracy) + _and_failed(rows["accuracy"].isna().sum()))
        axes.xaxis.set_major_locator(MaxNLocator(4))
    _dataset_legend(figure, rows.reset_index())
    finish(
        figure,
        "Accuracy of SAMIA against the gaps of its victims",
        "Attack accuracy against how differently the victim treats its members: mean over members minus mean "
        "over non-members of being right, of the confidence, and of the sensitivity. Each point is one "
        "victim model; r is Pearson's, ρ Spearman's correlation over n points. "
        f"{counts(rows.reset_index())}{failures(rows)}.",
    )
    return figure


def _beside_samia(attacks: pd.DataFrame, other: str) -> pd.DataFrame:
    """SAMIA's and another's results where both have one; where one failed both are marked."""
    pair = attacks[attacks["attack"].isin(["samia", other])]
    victims = pair.groupby([*SETTING_KEYS, "seed"], dropna=False)
    return pair.assign(failed=victims["failed"].transform("first"))[victims["seed"].transform("size") == 2]


def _line(attack: str) -> dict[str, Any]:
    marker, color = marks_of(ATTACK_MARKS, grid.ATTACKS).get(attack, NEW_MARKS[0])
    width, size = (2.0, 5.5) if attack == "samia" else (0.8, 3.5)
    return {"marker": marker, "color": color, "linewidth": width, "markersize": size, "markeredgewidth": 0.8}


def _dashed(line: Mapping[str, Any]) -> dict[str, Any]:
    thin = {"linewidth": 0.6 * line["linewidth"], "linestyle": (0, (4, 3)), "markerfacecolor": "white"}
    return {**line, **thin}


def _scatter(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    """Points by (dataset, model, variant): a dataset's mark, filled if pruned, hollow if an original."""
    datasets, variants = (x.index.get_level_values(name) for name in ("dataset", "variant"))
    marks = marks_of(DATASET_MARKS, grid.DATASETS)
    for dataset in dict.fromkeys(datasets):
        for is_original in (False, True):
            here = (datasets == dataset) & ((variants == "original") == is_original)
            axes.plot(x[here], y[here], **_point(*marks.get(dataset, NEW_MARKS[0]), filled=not is_original))


def _point(marker: Any, color: str, filled: bool) -> dict[str, Any]:
    face = color if filled else "white"
    return {
        "linestyle": "",
        "marker": marker,
        "color": color,
        "markerfacecolor": face,
        "markersize": 3.0,
        "alpha": 0.8,
    }


def _dataset_legend(figure: Figure, rows: pd.DataFrame) -> None:
    handles = [
        Line2D([], [], label=name, **_point(*mark, filled=True))
        for name, mark in marks_of(DATASET_MARKS, grid.DATASETS).items()
        if name in set(rows["dataset"])
    ]
    kinds = (("pruned", True), ("original", False))
    handles += [Line2D([], [], label=name, **_point("o", GREY, filled)) for name, filled in kinds]
    figure.legend(handles=handles, loc="outside right center", handletextpad=0.1)


def _correlations(x: pd.Series, y: pd.Series) -> str:
    if len(x) < 3 or any(np.allclose(values, values.iloc[0], rtol=1e-9, atol=0) for values in (x, y)):
        return f"r n/a, ρ n/a, n = {len(x)}"
    # Spearman's is Pearson's of the ranks: scipy's own takes longer to import than all figures' other needs.
    r, rho = number(x.corr(y), ".2f"), number(x.rank().corr(y.rank()), ".2f")
    return f"r = {r}, ρ = {rho}, n = {len(x)}"


def _and_failed(count: int) -> str:
    """The second line of a panel's title: how many of its points are not there."""
    return f"\n{count} failed" if count else ""


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Limits that hold all finite values, in percent, with a margin."""
    shown = values[np.isfinite(values)] if np.isfinite(values).any() else np.array([0.0, 100.0])
    margin = max(1.0, 0.05 * np.ptp(shown))
    return float(shown.min() - margin), float(shown.max() + margin)
