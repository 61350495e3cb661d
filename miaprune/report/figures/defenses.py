"""What defences do: privacy against utility, and accuracy by sparsity with and without PPB."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from miaprune import grid
from miaprune.grid import PPB_STRENGTH
from miaprune.report.figures.captions import counts, failures, failures_of_largest, finish
from miaprune.report.figures.means import averaged, bars, how_often, interval
from miaprune.report.figures.style import (
    BAND,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    GUESSING,
    ORANGE,
    PURPLE,
    marks_of,
    panels,
    styled,
    write_failed,
)
from miaprune.report.tables import controls, largest

DEFENSE_MARKS = {"ppb": ("o", BLUE), "adv": ("s", ORANGE), "dp": ("^", GREEN)}
STRENGTHS = {"ppb": "λ", "adv": "θ", "dp": "σ"}
"""What the strength of each defence is called (method, section 9)."""
ORIGINAL_MARK = ("*", BLACK)
UNDEFENDED_MARK = ("D", PURPLE)


def frontier(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """SAMIA's accuracy against the victim's test accuracy, by defence and strength: privacy against utility.

    As `frontier_strongest`.
    """
    read = "Accuracy of SAMIA (the attack of the paper's claims)"
    return _frontier(_samia(attacks, dataset, model), "SAMIA accuracy (%)", f"{dataset}/{model}", read)


def frontier_strongest(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """The largest AUC of any attack against the victim's test accuracy, by defence and strength.

    A panel per sparsity, and a row of panels per pruner if there are several. Of the pruners those with the most
    defended versions are drawn: where one was swept over strengths, the others have nothing to compare.
    """
    rows, read = _versions(attacks, dataset, model), "Largest AUC of any attack (the strongest: {})"
    return _frontier(rows, "largest AUC (%)", f"{dataset}/{model}", read, "AUC")


@styled()
def _frontier(rows: pd.DataFrame, ylabel: str, where: str, read: str, measure: str = "accuracy") -> Figure:
    """A frontier of the ``rows`` with the largest ``measure``, which stands as ``accuracy`` from then on.

    ``read`` is how the caption begins, with a place for how often which attack is drawn, if it says that.
    """
    versions = rows[rows["defense"].notna()].drop_duplicates(["pruner", "defense", "strength"])["pruner"].value_counts()
    pruners = [p for p in grid.PRUNERS if p in versions and versions[p] == versions.max()]
    rows = rows[rows["pruner"].isna() | rows["pruner"].isin(pruners)]
    defended = rows[rows["defense"].notna()]
    levels = sorted(set(defended["sparsity"]))
    every = rows[rows["pruner"].isna() | rows["sparsity"].isin(levels)]
    name = measure.lower()
    rows = largest(every, name)
    rows = rows.assign(**{f"accuracy{end}": rows[f"{name}{end}"] for end in ("", "_ci_lo", "_ci_hi")})
    shown = [(p, s) for p in pruners for s in levels]
    columns = max(1, min(3, len(levels)) if len(pruners) < 2 else len(levels))
    height, without = 2.2 if columns < 4 else 1.5, "no defended model"
    figure, places = panels(len(shown), columns, height, ylabel, without, sharey=True, sharex=True)
    for axes, (pruner, level) in zip(places, shown, strict=True):
        of_panel = rows["pruner"].isna() | ((rows["pruner"] == pruner) & (rows["sparsity"] == level))
        here = rows[of_panel & rows["pruner"].notna()]
        axes.axhline(50, **GUESSING)
        for name, mark in marks_of(DEFENSE_MARKS, grid.DEFENSES).items():
            mine = here[here["defense"] == name].sort_values("strength")
            for adversary in ("unaware", "matched"):
                _victims(axes, mine[mine["adversary"] == adversary], *mark, filled=adversary == "matched")
            _name_strongest(axes, mine, mark[1])
        _victims(axes, here[here["defense"].isna()], *UNDEFENDED_MARK, filled=True)
        _victims(axes, rows[rows["pruner"].isna()], *ORIGINAL_MARK, filled=True)
        axes.margins(0.12)
        failed = [_named(row) for row in rows[of_panel & rows["accuracy"].isna()].to_dict("records")]
        names = "all" if len(failed) == of_panel.sum() else ", ".join(failed)
        title = f"sparsity {level:g}" + (f"; failed: {names}" if failed else "")
        axes.set_title(textwrap.fill(title, 84 // columns))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(labelbottom=True)
    for first, pruner in zip(places[::columns], pruners if len(pruners) > 1 else [], strict=False):
        first.set_ylabel(f"{pruner}\n{ylabel}")
    for axes in places[-columns:]:
        axes.set_xlabel("test accuracy (%)" if columns < 4 else "test acc. (%)")
    handles = [Line2D([], [], label="original", **_victim(*ORIGINAL_MARK, filled=True) | {"linestyle": ""})]
    handles.append(Line2D([], [], label="pruned only", **_victim(*UNDEFENDED_MARK, filled=True) | {"linestyle": ""}))
    for name, mark in marks_of(DEFENSE_MARKS, grid.DEFENSES).items():
        strengths = sorted(set(defended.loc[defended["defense"] == name, "strength"]))
        if strengths:
            label = f"{name}, {STRENGTHS.get(name, 'strength')} = {', '.join(f'{s:g}' for s in strengths)}"
            handles.append(Line2D([], [], label=label, **_victim(*mark, filled=True)))
    handles += [
        Line2D([], [], label=label, **_victim("o", GREY, filled=filled))
        for label, filled in (("adaptive adversary", True), ("unaware adversary", False))
    ]
    handles.append(Line2D([], [], label="guessing", **GUESSING))
    figure.legend(handles=handles, loc="outside right center")
    place = "/".join((where, *(pruners if len(pruners) == 1 else [])))
    finish(
        figure,
        f"Privacy against utility: defences on {place}",
        f"{read.format(how_often(rows, 'accuracy') or 'none')} against the test accuracy of its victim: the lower and "
        "the further right, the better the defence. A defence's strengths are joined in ascending order; the strongest "
        "is named. Filled: the adaptive adversary, whose shadow models are defended alike; hollow, above or below it: "
        "the unaware one, who attacks the same victim with undefended shadows. "
        f"{counts(rows, measure)}{failures_of_largest(every)}.",
    )
    return figure


@styled()
def defense_effect(attacks: pd.DataFrame, dataset: str, model: str) -> Figure:
    """SAMIA's accuracy against sparsity, without and with PPB at the claims' strength: a panel per pruner."""
    rows = _samia(attacks, dataset, model)
    ppb = (rows["defense"] == "ppb") & (rows["strength"] == PPB_STRENGTH)
    pruners = [p for p in grid.PRUNERS if p in set(rows.loc[ppb, "pruner"])]
    rows = rows[(rows["defense"].isna() | ppb) & (rows["pruner"].isna() | rows["pruner"].isin(pruners))]
    without = "no model defended by PPB"
    figure, places = panels(len(pruners), min(2, len(pruners) or 1), 2.1, "SAMIA accuracy (%)", without, sharey=True)
    lines = {
        "undefended": (rows["defense"].isna(), _line_of(*UNDEFENDED_MARK, filled=True)),
        "PPB, unaware adversary": (rows["adversary"] == "unaware", _line_of(*DEFENSE_MARKS["ppb"], filled=False)),
        "PPB, adaptive adversary": (
            rows["defense"].notna() & (rows["adversary"] == "matched"),
            _line_of(*DEFENSE_MARKS["ppb"], filled=True),
        ),
    }
    originals: dict[str, Any] = {"color": BLACK, "linewidth": 1.0, "linestyle": (0, (4, 3))}
    for axes, pruner in zip(places, pruners, strict=True):
        axes.axhline(50, **GUESSING)
        its_original = rows.loc[rows["pruner"].isna(), "accuracy"]
        for original in 100 * its_original.dropna():
            axes.axhline(original, **originals)
        for low, high in zip(*interval(rows[rows["pruner"].isna()], "accuracy"), strict=True):
            if np.isfinite(low):
                axes.axhspan(low, high, **BAND | {"color": BLACK})
        failed: dict[float, list[str]] = {}
        for name, (here, line) in lines.items():
            mine = rows[here & (rows["pruner"] == pruner)].sort_values("sparsity")
            axes.plot(mine["sparsity"], 100 * mine["accuracy"], **line)
            bars(axes, mine, mine["sparsity"], "accuracy", line["color"])
            for level in mine.loc[mine["accuracy"].isna(), "sparsity"]:
                failed.setdefault(level, []).append(name.removeprefix("PPB, ").removesuffix(" adversary"))
        write_failed(axes, failed)
        axes.set(
            title=f"{pruner}; failed: its original" if its_original.isna().any() else pruner,
            xlabel=f"sparsity (fraction of {grid.unit(pruner)})",
            xticks=sorted(set(rows["sparsity"].dropna())),
        )
    handles = [Line2D([], [], label=label, **line) for label, (_, line) in lines.items()]
    handles.append(Line2D([], [], label="its original", **originals))
    handles.append(Line2D([], [], label="guessing", **GUESSING))
    figure.legend(handles=handles, loc="outside right center")
    finish(
        figure,
        f"What PPB (λ = {PPB_STRENGTH:g}) does to SAMIA on {dataset}/{model}",
        "Accuracy of SAMIA on pruned models without a defence and with PPB in fine-tuning. The adaptive adversary "
        "defends the shadow models alike, the unaware one doesn't. PPB helps where the round marks are below the "
        "diamonds; below the dashed line SAMIA is less accurate than on the original. Guessing gives 50 %. "
        f"{counts(rows, bars='Bars and band')}{failures(rows)}.",
    )
    return figure


def _victims(axes: Axes, rows: pd.DataFrame, marker: Any, color: str, filled: bool) -> None:
    """Points of `frontier`, joined in the order of ``rows``."""
    x, y = 100 * rows["victim_test_accuracy"], 100 * rows["accuracy"]
    axes.plot(x, y, **_victim(marker, color, filled))
    bars(axes, rows, x, "accuracy", color, width=0.5)
    bars(axes, rows, y, "victim_test_accuracy", color, across=True, width=0.5)


def _name_strongest(axes: Axes, rows: pd.DataFrame, color: str) -> None:
    """Write the greatest strength, if there are several, below its points in `frontier`, or dp's left of them."""
    strongest = rows[(rows["strength"] == rows["strength"].max()) & rows["accuracy"].notna()]
    if rows["strength"].nunique() > 1 and len(strongest):
        at = (100 * strongest["victim_test_accuracy"].iloc[0], 100 * strongest["accuracy"].min())
        below: dict[str, Any] = {"xytext": (0, -4), "ha": "center", "va": "top"}
        left: dict[str, Any] = {"xytext": (-4, 0), "ha": "right", "va": "center"}  # near ppb's at low sparsities
        place = left if strongest["defense"].iloc[0] == "dp" else below
        text = f"{strongest['strength'].iloc[0]:g}"
        axes.annotate(text, at, **place, textcoords="offset points", color=color, fontsize=7)


def _named(row: Mapping[Any, Any]) -> str:
    """What of a panel has failed: "original", "pruned only", or the defence, its strength and the adversary."""
    if pd.isna(row["defense"]):
        return "original" if pd.isna(row["pruner"]) else "pruned only"
    return f"{row['defense']} {row['strength']:g} {'adaptive' if row['adversary'] == 'matched' else 'unaware'}"


def _victim(marker: Any, color: str, filled: bool) -> dict[str, Any]:
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


def _samia(attacks: pd.DataFrame, dataset: str, model: str) -> pd.DataFrame:
    """SAMIA's row of each victim and adversary."""
    return _versions(attacks[attacks["attack"] == "samia"], dataset, model)


def _versions(attacks: pd.DataFrame, dataset: str, model: str) -> pd.DataFrame:
    """The adaptive and the unaware adversary's attacks on one model, averaged over seeds, controls left out."""
    rows = attacks[(attacks["dataset"] == dataset) & (attacks["model"] == model) & ~controls(attacks)]
    return averaged(rows[rows["adversary"].isin(["matched", "unaware"])])
