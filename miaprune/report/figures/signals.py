"""What an attack sees: the signals of members and of non-members, over all records and class by class."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from miaprune import metrics
from miaprune.attacks.references import Told
from miaprune.margins import Margins
from miaprune.report.figures.captions import GAPS, finish, number, plural
from miaprune.report.figures.style import BLACK, BLUE, GREY, STYLE, VERMILLION, Mark, panels, styled
from miaprune.signals import Signals

GROUP_LINES: dict[str, dict[str, Any]] = {
    "members": {"color": VERMILLION, "linestyle": "-", "linewidth": 1.4},
    "non-members": {"color": BLUE, "linestyle": "--", "linewidth": 1.2},
}
MODEL_MARKERS = "os^v<>PXp"

T = TypeVar("T")

CONFIDENCES = (1e-3, 1 - 1e-5)
"""Ends of the confidence axis; what lies beyond is drawn at the end."""

FEW_CLASSES = 30
"""Up to here a class has room for its name and for one mark per model side by side."""


@styled()
def signal_distributions(original: Signals, pruned: Mapping[str, Signals], title: str) -> Figure:
    """Cumulative distributions of confidence and sensitivity, members against non-members.

    A column for the original and one per pruned model, whose label is its sparsity ("0.7"), with a defence after a plus
    where there is one ("0.7 + ppb 4"), as `_pairs_of_panels` lays them out. A record's sensitivity is its mean over the
    classes.
    """
    models = _models(original, pruned)
    figure, pairs = _pairs_of_panels(models)
    sensitivities = [s.sensitivities.mean(axis=1, dtype=float) for s in models.values()]
    # A sensitivity of exactly 0 (a saturated softmax) has no place on a log axis: draw it at the left end.
    positive = np.concatenate([s[s > 0] for s in sensitivities])
    low, high = (positive.min() / 1.5, positive.max() * 1.5) if len(positive) else (0.1, 1.0)
    for (upper, lower), sensitivity, signals in zip(pairs, sensitivities, models.values(), strict=True):
        _cumulative(upper, "confidence", signals.confidence.astype(float), signals.members, CONFIDENCES)
        upper.set_xscale("logit")
        upper.set(xlim=CONFIDENCES)
        upper.set_xticks([0.01, 0.5, 0.999], [".01", ".5", ".999"])
        _cumulative(lower, "sensitivity", sensitivity, signals.members, (low, high))
        lower.set_xscale("log")
        lower.set(xlim=(low, high))
        lower.xaxis.set_major_locator(LogLocator(numticks=4))
        for axes in (upper, lower):
            axes.xaxis.set_minor_locator(NullLocator())
    finish(
        figure,
        title,
        "Share of members and of non-members whose confidence (posterior of the true class; axis stretched "
        "towards 0 and 1) or sensitivity (mean absolute change of a posterior per unit of input noise; log axis) is "
        "at or below a value. d is the largest vertical distance between the curves: 0 if the signal tells nothing "
        f"about membership, 1 if one threshold tells all. {_records(models)}.{_plus(models)}",
    )
    return figure


@styled()
def margin_distributions(
    original: tuple[Margins, np.ndarray], pruned: Mapping[str, tuple[Margins, np.ndarray]], title: str
) -> Figure:
    """Cumulative distributions of the margin, and of the margin less the mean of the reference models' that are OUT.

    Columns and labels as in `signal_distributions`; each model's margins come with bool [n], who of the records is a
    member.
    """
    models = _models(original, pruned)
    figure, pairs = _pairs_of_panels(models)
    for (upper, lower), (margins, members) in zip(pairs, models.values(), strict=True):
        own = margins.victim[margins.records].astype(float)
        mean = Told(margins.references[:, margins.records], margins.out[:, margins.records]).mean
        for axes, label, values in ((upper, "margin", own), (lower, "margin − refs", own - mean)):
            low, high = np.percentile(values, [0.5, 99.5])
            _cumulative(axes, label, values, members, (low, high))
    (first, members), *_ = models.values()
    finish(
        figure,
        title,
        "Share of members and of non-members whose margin (logit of the true class less the logsumexp of the others) "
        "is at or below a value; below it the margin less what models say on average that never saw the record "
        f"({len(first.references)} of them). d is the largest vertical distance between the curves: 0 if it tells "
        "nothing about membership, 1 if one threshold tells all. The outer 0.5 % on either side are drawn at the ends. "
        f"{plural(len(models), 'victim model')} (one seed), each with {int(members.sum())} members and "
        f"{int((~members).sum())} non-members.{_plus(models)}",
    )
    return figure


@styled()
def gaps_per_class(original: Signals, pruned: Mapping[str, Signals], title: str) -> Figure:
    """Confidence and sensitivity gap per class: the original beside the pruned models.

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
    figure, places = panels(2, 1, 1.8)
    for axes, key in zip(places, ("confidence_gap", "sensitivity_gap"), strict=True):
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
                label=f"{name}: mean {number(finite.mean(), '+#.2g')}" if len(finite) else f"{name}: n/a",
            )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.1)
        axes.set(xlim=(-0.6, classes - 0.4), ylabel=GAPS[key])
        axes.set_xticks(np.arange(classes) if few else [], order.astype(str) if few else [])
        for edge in np.arange(0.5, classes - 1) if few else []:
            axes.axvline(edge, color=STYLE["grid.color"], linewidth=0.5)
    shown = "class (0-based label)" if few else f"{classes} classes"
    places[1].set_xlabel(f"{shown}, sorted by confidence gap ({reference})")
    finish(
        figure,
        title,
        "Mean over a class's members minus mean over its non-members, of the confidence (posterior of the "
        "true class) and of the sensitivity (mean absolute change of a posterior per unit of input noise). The "
        "further from 0, the more that class gives its members away. A class keeps its place in both panels; the means "
        "weigh all classes alike. "
        f"{_records(models)}.{_plus(models)}",
    )
    return figure


def _pairs_of_panels(models: Collection[str]) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure of cumulative shares, and an upper and a lower panel for each model.

    More than six go over several pairs of rows, the last one flush right: a family's defended models stand below the
    undefended ones.
    """
    rows = math.ceil(len(models) / 6)
    columns = math.ceil(len(models) / rows)
    figure, places = panels(2 * rows * columns, columns, 1.6, sharey=True)
    empty, in_last = rows * columns - len(models), (rows - 1) * columns
    for axes in places:
        axes.set_axis_off()
    pairs = []
    for k, name in enumerate(models):
        row, column = divmod(k if k < in_last else k + empty, columns)
        upper, lower = (places[(2 * row + below) * columns + column] for below in (0, 1))
        for axes in (upper, lower):
            axes.set_axis_on()
            axes.set(ylim=(-0.02, 1.02), yticks=[0, 0.5, 1])
            if not column or k == in_last:
                axes.tick_params(labelleft=True)
                axes.set_ylabel("share at or below")
        upper.set_title(name.replace(" + ", "\n+ "))
        pairs.append((upper, lower))
    handles = [Line2D([], [], label=group, **line) for group, line in GROUP_LINES.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure, pairs


def _cumulative(axes: Axes, name: str, values: np.ndarray, members: np.ndarray, ends: tuple[float, float]) -> None:
    """Cumulative shares of both groups; their largest distance (Kolmogorov and Smirnov's) below the signal's name."""
    steps = np.unique(values)
    shares = {}
    for (group, line), here in zip(GROUP_LINES.items(), (members, ~members), strict=True):
        shares[group] = np.searchsorted(np.sort(values[here]), steps, side="right") / here.sum()
        # A thousand points look like a hundred thousand, in a file of a hundredth the size.
        kept = np.unique(np.linspace(0, len(steps) - 1, 1000).round().astype(int))
        drawn = np.clip(steps[kept], *ends)
        axes.plot([ends[0], *drawn, ends[1]], [0, *shares[group][kept], 1], drawstyle="steps-post", **line)
    distance = np.abs(np.subtract(*shares.values())).max()
    axes.set_xlabel(f"{name}\nd = {distance:.2f}")


def _models(original: T, pruned: Mapping[str, T]) -> dict[str, T]:
    return {"original": original} | {f"sparsity {sparsity}": each for sparsity, each in pruned.items()}


def _plus(models: Collection[str]) -> str:
    return " After a plus: a defence in fine-tuning." if any(" + " in name for name in models) else ""


def _model_marks(models: Collection[str]) -> dict[str, Mark]:
    """Black circles for the original, then colours from dark to light in the order given, and markers."""
    ramp = matplotlib.colormaps["plasma"](np.linspace(0.15, 0.85, len(models)))
    colors = [
        BLACK if name == "original" else matplotlib.colors.to_hex(c) for name, c in zip(models, ramp, strict=True)
    ]
    return {name: (MODEL_MARKERS[i % len(MODEL_MARKERS)], colors[i]) for i, name in enumerate(models)}


def _records(models: Mapping[str, Signals]) -> str:
    sizes = {(int(s.members.sum()), int((~s.members).sum())) for s in models.values()}
    sizes_text = " or ".join(f"{m} members and {n} non-members" for m, n in sorted(sizes))
    return f"{plural(len(models), 'victim model')} (one seed), each queried with {sizes_text}"
