"""Figures of a report: each function takes tables or signals and returns a figure; `save` writes it.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and never carry a meaning alone: markers
and line styles repeat it. Every figure is as wide as a page's text, says how many settings, seeds or records
stand behind it, and ends with a caption on how to read it. Nothing here touches matplotlib's global state.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from scipy.stats import pearsonr, spearmanr

from miaprune import grid, metrics
from miaprune.files import whole
from miaprune.grid import PPB_STRENGTH
from miaprune.report.tables import PLACE, over_seeds, precision, undefended
from miaprune.signals import Signals

WIDTH = 7.0
"""Inches: the width of a printed page's text."""

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#777777"

STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,  # text in the PDF can be searched and edited
    "savefig.dpi": 200,
}

# Marker and colour. Attacks of one family share a colour; no two share both.
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
    "digits": ("p", GREY),
}
GROUP_LINES: dict[str, dict[str, Any]] = {
    "members": {"color": VERMILLION, "linestyle": "-", "linewidth": 1.4},
    "non-members": {"color": BLUE, "linestyle": "--", "linewidth": 1.2},
}
NEW_MARKS = [(marker, GREY) for marker in "hdH8p*"]
"""Of data sets and attacks that the grid knows and that have no mark above, in its order; the first also of others."""

DEFENSE_MARKS = {"ppb": ("o", BLUE), "adv": ("s", ORANGE), "dp": ("^", GREEN)}
STRENGTHS = {"ppb": "λ", "adv": "θ", "dp": "σ"}
"""What the strength of each defence is called (method, section 9)."""

MODEL_MARKERS = "os^v<>PXp"

GAPS = {
    "generalization_gap": "generalization gap\n(points of accuracy)",
    "confidence_gap": "confidence gap\n(posterior, 0 to 1)",
    "sensitivity_gap": "sensitivity gap\n(posterior per unit noise)",
}
ORIGINAL_MARK = ("*", BLACK)
UNDEFENDED_MARK = ("D", PURPLE)
HEAT = matplotlib.colormaps["Blues"]
"""Of one hue, from light to dark: it keeps its order in grey print."""

CONFIDENCES = (1e-3, 1 - 1e-5)
"""Ends of the confidence axis; what lies beyond is drawn at the end."""

FEW_CLASSES = 30
"""Up to here a class has room for its name and for one mark per model side by side."""

Marks = dict[str, tuple[str, str]]


def save(figure: Figure, path: str | Path) -> None:
    """Write ``path``.pdf and ``path``.png, each whole or not at all; the same figure gives the same bytes."""
    metadata: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
    for suffix, facts in metadata.items():
        with whole(f"{path}.{suffix}") as temporary, matplotlib.rc_context(STYLE):
            figure.savefig(temporary, format=suffix, metadata=facts)


@matplotlib.rc_context(STYLE)
def accuracy_vs_sparsity(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """Attack accuracy against sparsity, a panel per pruner and a line per attack; the original's stand on the left.

    ``attacks`` is an attacks table: undefended victims and matched adversaries are drawn, seeds averaged.
    """
    rows = undefended(attacks)
    rows = rows[(rows["dataset"] == dataset) & (rows["model"] == model)]
    pruners = [p for p in grid.PRUNERS if p in set(rows["pruner"])]
    names = [a for a in grid.ATTACKS if a in set(rows["attack"])]
    columns = min(2, max(1, len(pruners)))
    figure, panels = _figure(max(1, math.ceil(len(pruners) / 2)), columns, panel_height=2.3, sharey=True)
    levels = sorted(set(rows["sparsity"].dropna()))
    # The original has no sparsity on this axis: it stands one step before the first.
    step = (levels[-1] - levels[0]) / (len(levels) - 1) if len(levels) > 1 else 0.1
    start = levels[0] - step if levels else 0.0
    places = {start: "original"} if rows["pruner"].isna().any() else {}
    places |= {level: f"{level:g}" for level in levels}
    # Where no lines tell the attacks' marks apart, they stand side by side.
    aside = dict(zip(names, np.linspace(-0.3, 0.3, len(names)) * step, strict=True))
    single = len(levels) == 1
    pruned = "filled marks, side by side to be told apart" if single else "a line, with a mark per sparsity"
    for axes, pruner in zip(panels, pruners or ["no pruned model"], strict=False):
        axes.axhline(50, color=GREY, linewidth=0.9, linestyle=":")
        for name in reversed(names):  # SAMIA last, on top
            mine, line = rows[rows["attack"] == name], _line(name)
            for original in 100 * mine.loc[mine["pruner"].isna(), "accuracy"]:
                axes.plot(start + aside[name], original, **_dashed(line))
                if name == "samia":
                    axes.axhline(original, **_dashed(line) | {"marker": ""})
            mine = mine[mine["pruner"] == pruner].sort_values("sparsity")
            axes.plot(mine["sparsity"] + single * aside[name], 100 * mine["accuracy"], **line)
        axes.set_xticks(list(places), places.values(), rotation=90 if len(levels) > 6 else 0)
        axes.set(title=pruner, xlabel=f"sparsity (fraction of {grid.unit(pruner)})")
    _blank(panels[len(pruners) or 1 :])
    _label_rows(panels, columns, "attack accuracy (%)")
    handles = [Line2D([], [], label=name, **_line(name)) for name in names]
    handles.append(
        Line2D([], [], label="its original", **_dashed(_line("blindmi") | {"marker": "o"}) | {"linestyle": ""})
    )
    handles.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=":", label="guessing"))
    figure.legend(handles=handles, loc="outside right center")
    _finish(
        figure,
        f"Attacks on {dataset}/{model} by sparsity",
        f"Accuracy of each attack on the pruned models ({pruned}) and on the original (hollow marks on the left, side "
        "by side; SAMIA's with a dashed line). Where an attack is higher than its hollow mark, it gained accuracy by "
        f"the pruning. Members and non-members weigh the same: guessing gives 50 %. {_counts(rows)}.",
    )
    return figure


@matplotlib.rc_context(STYLE)
def samia_vs_others(attacks: pd.DataFrame) -> Figure:
    """SAMIA's accuracy against each other attack's: a panel per attack, a point per setting."""
    rows = undefended(attacks)
    table = rows.pivot(index=PLACE, columns="attack", values="accuracy") * 100
    names = [a for a in grid.ATTACKS if a in table and a != "samia"] if "samia" in table else []
    columns = min(5, max(3, len(names)))
    rows_of_panels = max(1, math.ceil(len(names) / columns))
    figure, panels = _figure(rows_of_panels, columns, panel_height=1.55 if columns > 3 else 2.4, sharey=True)
    low, high = _limits(table.to_numpy())
    for axes, name in zip(panels, names, strict=False):
        both = table[[name, "samia"]].dropna()
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.8)
        _scatter(axes, both[name], both["samia"])
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel=f"{name} (%)")
        axes.set_title(f"{(both['samia'] > both[name]).sum()} of {len(both)} above")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _blank(panels[len(names) :])
    if not names:
        panels[0].set_title("no other attack to compare with", loc="left")
    _label_rows(panels, columns, "SAMIA (%)")
    _dataset_legend(figure, rows)
    _finish(
        figure,
        "SAMIA against every other attack",
        "Attack accuracy; each point is one victim model. Above the diagonal SAMIA is the more accurate of "
        f"the two; each panel's title counts those points. {_counts(rows)}.",
    )
    return figure


@matplotlib.rc_context(STYLE)
def frontier(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """SAMIA's accuracy against the victim's test accuracy, by defence and strength: privacy against utility.

    A panel per sparsity, and a row of panels per pruner if there are several. Of the pruners those with the most
    defended versions are drawn: where one was swept over strengths, the others have nothing to compare.
    """
    rows = _samia(attacks, dataset, model)
    versions = rows[rows["defense"].notna()].drop_duplicates(["pruner", "defense", "strength"])["pruner"].value_counts()
    pruners = [p for p in grid.PRUNERS if p in versions and versions[p] == versions.max()]
    rows = rows[rows["pruner"].isna() | rows["pruner"].isin(pruners)]
    defended = rows[rows["defense"].notna()]
    levels = sorted(set(defended["sparsity"]))
    rows = rows[rows["pruner"].isna() | rows["sparsity"].isin(levels)]
    places = [(p, s) for p in pruners for s in levels]
    columns = max(1, min(3, len(levels)) if len(pruners) < 2 else len(levels))
    rows_of_panels = max(1, math.ceil(len(places) / columns))
    figure, panels = _figure(rows_of_panels, columns, 2.2 if columns < 4 else 1.5, sharey=True, sharex=True)
    for axes, (pruner, level) in zip(panels, places, strict=False):
        here = rows[(rows["pruner"] == pruner) & (rows["sparsity"] == level)]
        axes.axhline(50, color=GREY, linewidth=0.9, linestyle=":")
        for name, mark in DEFENSE_MARKS.items():
            mine = here[here["defense"] == name].sort_values("strength")
            for adversary in ("unaware", "matched"):
                _victims(axes, mine[mine["adversary"] == adversary], *mark, filled=adversary == "matched")
            _name_strongest(axes, mine, mark[1])
        _victims(axes, here[here["defense"].isna()], *UNDEFENDED_MARK, filled=True)
        _victims(axes, rows[rows["pruner"].isna()], *ORIGINAL_MARK, filled=True)
        axes.margins(0.12)
        axes.set_title(f"sparsity {level:g}")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(labelbottom=True)
    _blank(panels[len(places) :])
    if not places:
        panels[0].set_title("no defended model", loc="left")
    _label_rows(panels, columns, "SAMIA accuracy (%)")
    for first, pruner in zip(panels[::columns], pruners if len(pruners) > 1 else [], strict=False):
        first.set_ylabel(f"{pruner}\nSAMIA accuracy (%)")
    for axes in panels[max(0, len(places) - columns) : len(places)]:
        axes.set_xlabel("test accuracy (%)" if columns < 4 else "test acc. (%)")
    handles = [Line2D([], [], label="original", **_victim(*ORIGINAL_MARK, filled=True) | {"linestyle": ""})]
    handles.append(Line2D([], [], label="pruned only", **_victim(*UNDEFENDED_MARK, filled=True) | {"linestyle": ""}))
    for name, mark in DEFENSE_MARKS.items():
        strengths = sorted(set(defended.loc[defended["defense"] == name, "strength"]))
        if strengths:
            label = f"{name}, {STRENGTHS[name]} = {', '.join(f'{s:g}' for s in strengths)}"
            handles.append(Line2D([], [], label=label, **_victim(*mark, filled=True)))
    handles += [
        Line2D([], [], label=label, **_victim("o", GREY, filled=filled))
        for label, filled in (("adaptive adversary", True), ("unaware adversary", False))
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=":", label="guessing"))
    figure.legend(handles=handles, loc="outside right center")
    place = "/".join((dataset, model, *(pruners if len(pruners) == 1 else [])))
    _finish(
        figure,
        f"Privacy against utility: defences on {place}",
        "Accuracy of SAMIA (the attack of the claims) against the test accuracy of its victim: the lower and the "
        "further right, the better the defence. A defence's strengths are joined in ascending order; the strongest is "
        "named. Filled: the adaptive adversary, whose shadow models are defended alike; hollow, above or below it: "
        f"the unaware one, who attacks the same victim with undefended shadows. {_counts(rows)}.",
    )
    return figure


@matplotlib.rc_context(STYLE)
def defense_effect(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """SAMIA's accuracy against sparsity, without and with PPB at the claims' strength: a panel per pruner."""
    rows = _samia(attacks, dataset, model)
    ppb = (rows["defense"] == "ppb") & (rows["strength"] == PPB_STRENGTH)
    pruners = [p for p in grid.PRUNERS if p in set(rows.loc[ppb, "pruner"])]
    rows = rows[(rows["defense"].isna() | ppb) & (rows["pruner"].isna() | rows["pruner"].isin(pruners))]
    columns = min(2, max(1, len(pruners)))
    figure, panels = _figure(max(1, math.ceil(len(pruners) / 2)), columns, panel_height=2.1, sharey=True)
    lines = {
        "undefended": (rows["defense"].isna(), _line_of(*UNDEFENDED_MARK, filled=True)),
        "PPB, unaware adversary": (rows["adversary"] == "unaware", _line_of(*DEFENSE_MARKS["ppb"], filled=False)),
        "PPB, adaptive adversary": (
            rows["defense"].notna() & (rows["adversary"] == "matched"),
            _line_of(*DEFENSE_MARKS["ppb"], filled=True),
        ),
    }
    originals: dict[str, Any] = {"color": BLACK, "linewidth": 1.0, "linestyle": (0, (4, 3))}
    for axes, pruner in zip(panels, pruners, strict=False):
        axes.axhline(50, color=GREY, linewidth=0.9, linestyle=":")
        for original in 100 * rows.loc[rows["pruner"].isna(), "accuracy"]:
            axes.axhline(original, **originals)
        for here, line in lines.values():
            mine = rows[here & (rows["pruner"] == pruner)].sort_values("sparsity")
            axes.plot(mine["sparsity"], 100 * mine["accuracy"], **line)
        axes.set(
            title=pruner,
            xlabel=f"sparsity (fraction of {grid.unit(pruner)})",
            xticks=sorted(set(rows["sparsity"].dropna())),
        )
    _blank(panels[len(pruners) :])
    if not pruners:
        panels[0].set_title("no model defended by PPB", loc="left")
    _label_rows(panels, columns, "SAMIA accuracy (%)")
    handles = [Line2D([], [], label=label, **line) for label, (_, line) in lines.items()]
    handles.append(Line2D([], [], label="its original", **originals))
    handles.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=":", label="guessing"))
    figure.legend(handles=handles, loc="outside right center")
    _finish(
        figure,
        f"What PPB (λ = {PPB_STRENGTH:g}) does to SAMIA on {dataset}/{model}",
        "Accuracy of SAMIA on pruned models without a defence and with PPB in fine-tuning. The adaptive adversary "
        "defends the shadow models alike, the unaware one doesn't. PPB helps where the round marks are below the "
        "diamonds; below the dashed line SAMIA is less accurate than on the original. Guessing gives 50 %. "
        f"{_counts(rows)}.",
    )
    return figure


@matplotlib.rc_context(STYLE)
def transfer(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """SAMIA's accuracy by how the shadows (rows) and the victim (columns) were pruned: a heat map per family.

    First a panel per pruner with several sparsities, then one per sparsity with several pruners; panels without
    a mismatched adversary are left out.
    """
    rows = _samia(attacks, dataset, model, mismatched=True)
    rows = rows[rows["pruner"].notna() & rows["defense"].isna()]
    shadows = rows["variant"].where(rows["adversary"] == "matched", rows["adversary"].str.removeprefix("shadows_"))
    accuracies = dict(zip(zip(shadows, rows["variant"], strict=True), 100 * rows["accuracy"], strict=True))
    variants = list(dict.fromkeys(zip(rows["pruner"], rows["sparsity"], strict=True)))
    pruners = [p for p in grid.PRUNERS if p in {p for p, _ in variants}]
    levels = sorted({s for _, s in variants})
    families = [(p, "sparsity", {f"{p}_{s:g}": f"{s:g}" for s in levels}) for p in pruners]
    families += [(f"sparsity {s:g}", "pruner", {f"{p}_{s:g}": p for p in pruners}) for s in levels]
    maps = []
    for title, by, names in families:
        values = np.array([[accuracies.get((a, b), math.nan) for b in names] for a in names])
        if np.isfinite(values[~np.eye(len(names), dtype=bool)]).any():
            maps.append((title, by, list(names.values()), values))
    columns = min(3, max(1, len(maps)))
    figure, panels = _figure(max(1, math.ceil(len(maps) / 3)), columns, panel_height=2.1)
    # One scale for all panels, from guessing or below up: a shade means the same everywhere.
    shown = np.concatenate([values[np.isfinite(values)] for *_, values in maps] or [np.array([50.0])])
    norm = Normalize(min(50.0, shown.min()), max(60.0, shown.max()))  # a point or two is not to look like much
    for axes, (title, by, labels, values) in zip(panels, maps, strict=False):
        _heat_map(axes, values, labels, norm)
        axes.set(title=title, xlabel=f"victim's {by}", ylabel=f"shadow models' {by}")
    _blank(panels[len(maps) :])
    if not maps:
        panels[0].set_title("no mismatched adversary", loc="left")
    victims = _plural(rows["variant"].nunique(), "victim model")
    _finish(
        figure,
        f"Mismatched adversaries on {dataset}/{model}",
        "Accuracy of SAMIA in percent, when the shadow models were pruned otherwise (row) than the victim (column). "
        "The framed diagonal is the matched adversary: how far a cell is below the framed one of its column is what "
        "not knowing how the victim was pruned costs the attack. The darker, the more accurate; guessing gives 50 %. "
        f"{victims}; each cell is {_seeds(rows)}{_precision(rows)}.",
    )
    return figure


@matplotlib.rc_context(STYLE)
def signal_distributions(original: Signals | None, pruned: Mapping[str, Signals], title: str) -> Figure:
    """Cumulative distributions of confidence and sensitivity, members against non-members.

    A column for the original (None if there is none) and one per pruned model, whose label is its sparsity ("0.7"),
    with a defence after a plus where there is one ("0.7 + ppb 4"). More than six models go over several pairs of
    rows, the last one flush right: a family's defended models stand below the undefended ones. A record's
    sensitivity is its mean over the classes.
    """
    models = _models(original, pruned)
    pairs = math.ceil(len(models) / 6)
    columns = math.ceil(len(models) / pairs)
    figure, panels = _figure(2 * pairs, columns, panel_height=1.6, sharey=True)
    empty = pairs * columns - len(models)
    places = [(k // columns, k % columns) for k in range((pairs - 1) * columns)]
    places += [(pairs - 1, column) for column in range(empty, columns)]
    sensitivities = [s.sensitivities.mean(axis=1, dtype=float) for s in models.values()]
    # A sensitivity of exactly 0 (a saturated softmax) has no place on a log axis: draw it at the left end.
    positive = np.concatenate([s[s > 0] for s in sensitivities])
    low, high = (positive.min() / 1.5, positive.max() * 1.5) if len(positive) else (0.1, 1.0)
    for (pair, column), sensitivity, (name, signals) in zip(places, sensitivities, models.items(), strict=True):
        upper, lower = (panels[(2 * pair + row) * columns + column] for row in (0, 1))
        confidence = np.clip(signals.confidence.astype(float), *CONFIDENCES)
        _cumulative(upper, "confidence", confidence, signals.members, CONFIDENCES)
        upper.set_xscale("logit")
        upper.set(xlim=CONFIDENCES, title=name.replace(" + ", "\n+ "))
        upper.set_xticks([0.01, 0.5, 0.999], [".01", ".5", ".999"])
        _cumulative(lower, "sensitivity", np.maximum(sensitivity, low), signals.members, (low, high))
        lower.set_xscale("log")
        lower.set(xlim=(low, high))
        lower.xaxis.set_major_locator(LogLocator(numticks=4))
        for axes in (upper, lower):
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set(ylim=(-0.02, 1.02), yticks=[0, 0.5, 1])
            if column == (empty if pair == pairs - 1 else 0):
                axes.tick_params(labelleft=True)
                axes.set_ylabel("share at or below")
    for row in (-2, -1):
        _blank(panels[len(panels) + row * columns :][:empty])
    handles = [Line2D([], [], label=group, **line) for group, line in GROUP_LINES.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    _finish(
        figure,
        title,
        "Share of members and of non-members whose confidence (posterior of the true class; axis stretched "
        "towards 0 and 1) or sensitivity (mean absolute change of a posterior per unit of input noise; log axis) is "
        "at or below a value. d is the largest vertical distance between the curves: 0 if the signal tells nothing "
        f"about membership, 1 if one threshold tells all. {_records(models)}.{_plus(models)}",
    )
    return figure


@matplotlib.rc_context(STYLE)
def gaps_per_class(original: Signals | None, pruned: Mapping[str, Signals], title: str) -> Figure:
    """Confidence and sensitivity gap per class: the original (None if there is none) beside the pruned models.

    Labels as in `signal_distributions`; a defended model has the mark of its undefended one, hollow.
    """
    models = _models(original, pruned)
    gaps = {name: metrics.gaps_per_class(signals) for name, signals in models.items()}
    reference, first = next(iter(gaps.items()))
    classes = len(first["confidence_gap"])
    # One order for both panels, so that a class keeps its place; classes without a gap (NaN) come last.
    order = np.argsort(first["confidence_gap"], kind="stable")
    few = classes <= FEW_CLASSES
    offsets = (
        np.linspace(-0.35, 0.35, len(models)) * (1 - 1 / len(models))
        if few and len(models) > 1
        else np.zeros(len(models))
    )
    marks = _model_marks(dict.fromkeys(name.partition(" + ")[0] for name in models))
    figure, panels = _figure(2, 1, panel_height=1.8)
    for axes, key in zip(panels, ("confidence_gap", "sensitivity_gap"), strict=True):
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.grid(axis="x", visible=False)
        for (name, gap), offset in zip(gaps.items(), offsets, strict=True):
            finite = gap[key][np.isfinite(gap[key])]
            marker, color = marks[name.partition(" + ")[0]]
            axes.plot(
                np.arange(classes) + offset,
                gap[key][order],
                marker,
                color=color,
                markersize=3.5 if few else 2.5,
                markerfacecolor="white" if " + " in name else color,
                markeredgewidth=0.7,
                label=f"{name}: mean {_number(finite.mean(), '+#.2g')}" if len(finite) else f"{name}: n/a",
            )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.1)
        axes.set(xlim=(-0.6, classes - 0.4), ylabel=GAPS[key])
        axes.set_xticks(np.arange(classes) if few else [], order.astype(str) if few else [])
        for edge in np.arange(0.5, classes - 1) if few else []:
            axes.axvline(edge, color=STYLE["grid.color"], linewidth=0.5)
    places = "class (0-based label)" if few else f"{classes} classes"
    panels[1].set_xlabel(f"{places}, sorted by confidence gap ({reference})")
    _finish(
        figure,
        title,
        "Mean over a class's members minus mean over its non-members, of the confidence (posterior of the "
        "true class) and of the sensitivity (mean absolute change of a posterior per unit of input noise). The "
        "further from 0, the more that class gives its members away. A class keeps its place in both panels; the means "
        "weigh all classes alike. "
        f"{_records(models)}.{_plus(models)}",
    )
    return figure


@matplotlib.rc_context(STYLE)
def gaps_vs_accuracy(attacks: pd.DataFrame, attack: str = "samia") -> Figure:
    """One attack's accuracy against the victim's three gaps, a point per setting, with the correlations."""
    rows = undefended(attacks)
    rows = rows[rows["attack"] == attack].set_index(PLACE)
    figure, panels = _figure(1, len(GAPS), panel_height=2.3, sharey=True)
    for axes, (key, label) in zip(panels, GAPS.items(), strict=True):
        scale = 100 if key == "generalization_gap" else 1
        both = (rows[[f"victim_{key}", "accuracy"]] * [scale, 100]).dropna()
        gap, accuracy = both[f"victim_{key}"], both["accuracy"]
        _scatter(axes, gap, accuracy)
        axes.set(xlabel=label, title=_correlations(gap.to_numpy(), accuracy.to_numpy()))
        axes.xaxis.set_major_locator(MaxNLocator(4))
    name = "SAMIA" if attack == "samia" else attack
    _label_rows(panels, len(GAPS), f"{name} accuracy (%)")
    _dataset_legend(figure, rows.reset_index())
    _finish(
        figure,
        f"Accuracy of {name} against the gaps of its victims",
        "Attack accuracy against how differently the victim treats its members: mean over members minus mean "
        "over non-members of being right, of the confidence, and of the sensitivity. Each point is one "
        "victim model; r is Pearson's, ρ Spearman's correlation over n points. "
        f"{_counts(rows.reset_index())}.",
    )
    return figure


def _figure(
    rows: int, columns: int, panel_height: float, sharey: bool = False, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels in reading order; the layout makes room for title, legend and caption."""
    figure = Figure((WIDTH, rows * panel_height + 1.1), layout="constrained")
    return figure, list(figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False).flat)


def _finish(figure: Figure, title: str, caption: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
    figure.supxlabel(
        "\n".join(textwrap.wrap(caption, 126, break_on_hyphens=False)), x=0.01, ha="left", fontsize=7, linespacing=1.3
    )


def _label_rows(panels: Sequence[Axes], columns: int, ylabel: str) -> None:
    for axes in panels[::columns]:
        axes.set_ylabel(ylabel)


def _blank(panels: Sequence[Axes]) -> None:
    for axes in panels:
        axes.set_axis_off()


def _marks(own: Mapping[str, tuple[str, str]], names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The marks of all ``names``: their own, else new ones in turn."""
    return {**own, **dict(zip((name for name in names if name not in own), itertools.cycle(NEW_MARKS), strict=False))}


def _line(attack: str) -> dict[str, Any]:
    marker, color = _marks(ATTACK_MARKS, grid.ATTACKS).get(attack, NEW_MARKS[0])
    width, size = (2.0, 5.5) if attack == "samia" else (0.8, 3.5)
    return {"marker": marker, "color": color, "linewidth": width, "markersize": size, "markeredgewidth": 0.8}


def _dashed(line: Mapping[str, Any]) -> dict[str, Any]:
    thin = {"linewidth": 0.6 * line["linewidth"], "linestyle": (0, (4, 3)), "markerfacecolor": "white"}
    return {**line, **thin}


def _scatter(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    """Points by (dataset, model, variant): a dataset's mark, filled if pruned, hollow if an original."""
    datasets, variants = (x.index.get_level_values(name) for name in ("dataset", "variant"))
    marks = _marks(DATASET_MARKS, grid.DATASETS)
    for dataset in dict.fromkeys(datasets):
        for is_original in (False, True):
            here = (datasets == dataset) & ((variants == "original") == is_original)
            axes.plot(x[here], y[here], **_point(*marks.get(dataset, NEW_MARKS[0]), filled=not is_original))


def _point(marker: str, color: str, filled: bool) -> dict[str, Any]:
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
        for name, mark in _marks(DATASET_MARKS, grid.DATASETS).items()
        if name in set(rows["dataset"])
    ]
    kinds = (("pruned", True), ("original", False))
    handles += [Line2D([], [], label=name, **_point("o", GREY, filled)) for name, filled in kinds]
    figure.legend(handles=handles, loc="outside right center", handletextpad=0.1)


def _samia(attacks: pd.DataFrame, dataset: str, model: str, mismatched: bool = False) -> pd.DataFrame:
    """SAMIA's rows on one model, averaged over seeds, without the mismatched adversaries unless asked for."""
    rows = attacks[(attacks["dataset"] == dataset) & (attacks["model"] == model) & (attacks["attack"] == "samia")]
    return over_seeds(rows if mismatched else rows[rows["adversary"].isin(["matched", "unaware"])])


def _victims(axes: Axes, rows: pd.DataFrame, marker: str, color: str, filled: bool) -> None:
    """Points of `frontier`, joined in the order of ``rows``."""
    axes.plot(100 * rows["victim_test_accuracy"], 100 * rows["accuracy"], **_victim(marker, color, filled))


def _name_strongest(axes: Axes, rows: pd.DataFrame, color: str) -> None:
    """Write the greatest strength, if there are several, below its points in `frontier`, or dp's left of them."""
    strongest = rows[rows["strength"] == rows["strength"].max()]
    if rows["strength"].nunique() > 1:
        at = (100 * strongest["victim_test_accuracy"].iloc[0], 100 * strongest["accuracy"].min())
        below: dict[str, Any] = {"xytext": (0, -4), "ha": "center", "va": "top"}
        left: dict[str, Any] = {"xytext": (-4, 0), "ha": "right", "va": "center"}  # near ppb's at low sparsities
        place = left if strongest["defense"].iloc[0] == "dp" else below
        text = f"{strongest['strength'].iloc[0]:g}"
        axes.annotate(text, at, **place, textcoords="offset points", color=color, fontsize=7)


def _victim(marker: str, color: str, filled: bool) -> dict[str, Any]:
    return _line_of(marker, color, filled) | {"linewidth": 0.6, "markersize": 4.0}


def _line_of(marker: str, color: str, filled: bool) -> dict[str, Any]:
    """A line of one adversary: filled marks and solid, or hollow marks and dashed."""
    face, style = (color, "-") if filled else ("white", (0, (3, 2)))
    return {
        "marker": marker,
        "color": color,
        "markerfacecolor": face,
        "markersize": 5.0,
        "markeredgewidth": 0.9,
        "linewidth": 1.4,
        "linestyle": style,
    }


def _heat_map(axes: Axes, values: np.ndarray, names: Sequence[str], norm: Normalize) -> None:
    """Percentages [n, n] with a number in each cell and the diagonal framed; a missing one is blank."""
    axes.imshow(values, cmap=HEAT, norm=norm)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            light = norm(value) < 0.55
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=7, color=BLACK if light else "white")
        if i == j:
            axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, color=VERMILLION, clip_on=False))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks(range(len(names)), names)
    slanted: dict[str, Any] = {"rotation": 30, "rotation_mode": "anchor", "ha": "right"}
    axes.set_xticks(range(len(names)), names, **(slanted if max(map(len, names)) > 4 else {}))


def _cumulative(axes: Axes, name: str, values: np.ndarray, members: np.ndarray, ends: tuple[float, float]) -> None:
    """Cumulative shares of both groups; their largest distance (Kolmogorov and Smirnov's) below the signal's name."""
    steps = np.unique(values)
    shares = {}
    for (group, line), here in zip(GROUP_LINES.items(), (members, ~members), strict=True):
        shares[group] = np.searchsorted(np.sort(values[here]), steps, side="right") / here.sum()
        # A thousand points look like a hundred thousand, in a file of a hundredth the size.
        kept = np.unique(np.linspace(0, len(steps) - 1, 1000).round().astype(int))
        axes.plot([ends[0], *steps[kept], ends[1]], [0, *shares[group][kept], 1], drawstyle="steps-post", **line)
    distance = np.abs(np.subtract(*shares.values())).max()
    axes.set_xlabel(f"{name}\nd = {distance:.2f}")


def _models(original: Signals | None, pruned: Mapping[str, Signals]) -> dict[str, Signals]:
    models = {} if original is None else {"original": original}
    return models | {f"sparsity {sparsity}": signals for sparsity, signals in pruned.items()}


def _plus(models: Mapping[str, Signals]) -> str:
    return " After a plus: a defence in fine-tuning." if any(" + " in name for name in models) else ""


def _model_marks(models: Collection[str]) -> Marks:
    """Black circles for the original, then colours from dark to light in the order given, and markers."""
    ramp = matplotlib.colormaps["plasma"](np.linspace(0.15, 0.85, len(models)))
    colors = [
        BLACK if name == "original" else matplotlib.colors.to_hex(c) for name, c in zip(models, ramp, strict=True)
    ]
    return {name: (MODEL_MARKERS[i % len(MODEL_MARKERS)], colors[i]) for i, name in enumerate(models)}


def _correlations(x: np.ndarray, y: np.ndarray) -> str:
    if len(x) < 3 or any(np.allclose(values, values[0], rtol=1e-9, atol=0) for values in (x, y)):
        return f"r n/a, ρ n/a, n = {len(x)}"
    r, rho = (_number(correlation(x, y)[0], ".2f") for correlation in (pearsonr, spearmanr))
    return f"r = {r}, ρ = {rho}, n = {len(x)}"


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Limits that hold all finite values, in percent, with a margin."""
    shown = values[np.isfinite(values)] if np.isfinite(values).any() else np.array([0.0, 100.0])
    margin = max(1.0, 0.05 * np.ptp(shown))
    return float(shown.min() - margin), float(shown.max() + margin)


def _counts(rows: pd.DataFrame) -> str:
    """How many models and seeds stand behind a figure of attack accuracies."""
    settings = rows.drop_duplicates([*PLACE, "defense", "strength"])
    originals, defended = int(settings["pruner"].isna().sum()), int(settings["defense"].notna().sum())
    pruned = _plural(len(settings) - originals - defended, "pruned setting")
    if defended:
        pruned += f", {_plural(defended, 'defended one')}"
    return f"{pruned}, {_plural(originals, 'original')}; each point is {_seeds(rows)}{_precision(rows)}"


def _precision(rows: pd.DataFrame) -> str:
    width = precision(rows)
    return f". The 95 % interval of a single seed's accuracy is {width}" if width else ""


def _seeds(rows: pd.DataFrame) -> str:
    seeds = sorted(set(rows["seeds"]))
    return "a single seed" if seeds == [1] else f"the mean over {' or '.join(map(str, seeds)) or 'no'} seeds"


def _records(models: Mapping[str, Signals]) -> str:
    sizes = {(int(s.members.sum()), int((~s.members).sum())) for s in models.values()}
    sizes_text = " or ".join(f"{m} members and {n} non-members" for m, n in sorted(sizes))
    return f"{_plural(len(models), 'victim model')} (one seed), each queried with {sizes_text}"


def _number(value: float, spec: str) -> str:
    """A number with a minus sign as long as its plus."""
    return format(value, spec).replace("-", "−")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
