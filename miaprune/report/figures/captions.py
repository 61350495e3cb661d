"""What a figure says below its panels: how to read it, and how many settings, seeds or records stand behind it."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from miaprune.report import tables
from miaprune.report.figures.means import SEVERAL, results_behind
from miaprune.report.tables import PLACE

GAPS = {
    "generalization_gap": "generalization gap\n(points of accuracy)",
    "confidence_gap": "confidence gap\n(posterior, 0 to 1)",
    "sensitivity_gap": "sensitivity gap\n(posterior per unit noise)",
}
"""How an axis names them."""


def finish(figure: Figure, title: str, caption: str) -> None:
    """Write the title above all panels and the caption below."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
    figure.supxlabel(
        "\n".join(textwrap.wrap(caption, 126, break_on_hyphens=False)), x=0.01, ha="left", fontsize=7, linespacing=1.3
    )


def counts(rows: pd.DataFrame, measure: str = "accuracy", bars: str = "Bars") -> str:
    """How many models and seeds stand behind a figure of an attack's measure, and what its ``bars`` are."""
    settings = rows.drop_duplicates([*PLACE, "defense", "strength"])
    originals, defended = int(settings["pruner"].isna().sum()), int(settings["defense"].notna().sum())
    pruned = plural(len(settings) - originals - defended, "pruned setting")
    if defended:
        pruned += f", {plural(defended, 'defended one')}"
    said = f"each point is {seeds(rows)}{precision(rows, measure, bars)}"
    return f"{pruned}, {plural(originals, 'original')}; {said}"


def failures(rows: pd.DataFrame) -> str:
    """The next sentence: how many results are not drawn, if any."""
    said = tables.failures(rows)
    return f". {said}" if said else ""


def failures_of_largest(rows: pd.DataFrame) -> str:
    """`failures` where of these ``rows`` each victim's largest is drawn: what failed is not to pass for a defence."""
    victims = rows.groupby([*PLACE, "defense", "strength", "adversary"], dropna=False)
    failed, of = victims["failures"].sum(), victims["seeds"].sum()
    some = (failed > 0) & (failed < of) & (victims.size() > 1)
    said = ". Where only some of a point's results failed, the largest of the others is drawn: it may be too low"
    return failures(rows) + said * bool(some.any())


def precision(rows: pd.DataFrame, measure: str = "accuracy", bars: str = "Bars") -> str:
    """The next sentences: how exact one seed's measure is, if that is known, and what a mean's ``bars`` are."""
    n = results_behind(rows)
    known = rows["accuracy_ci_hi"] > rows["accuracy_ci_lo"]  # one of no width is of calls that are all the same
    width = tables.precision(rows[known & (n == 1)])
    said = f". The 95 % interval of a single seed's {measure} is {width}" if width else ""
    return said + f". {bars}: 95 % interval of the mean over seeds (Student's t)" * bool((n >= SEVERAL).any())


def seeds(rows: pd.DataFrame) -> str:
    """What one point or cell is, of a table averaged over seeds: of those whose result had not failed."""
    seeds = sorted({int(n) for n in results_behind(rows) if n})
    return "a single seed" if seeds == [1] else f"the mean over {' or '.join(map(str, seeds)) or 'no'} seeds"


def number(value: float, spec: str) -> str:
    """A number with a minus sign as long as its plus."""
    return format(value, spec).replace("-", "−")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
