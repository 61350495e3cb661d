"""ROC curves with both axes logarithmic: what an attacker finds who may accuse hardly anybody wrongly."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from miaprune import grid, metrics
from miaprune.report.figures.captions import failures, finish
from miaprune.report.figures.style import BLACK, BLUE, GREEN, GREY, GUESSING, ORANGE, VERMILLION, panels, styled
from miaprune.report.scores import Scores

KINDS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "reference models": ((*grid.REFERENCE_ATTACKS, "lira_online", "rmia_online"), {"color": BLACK, "linestyle": "-"}),
    "SAMIA": (("samia",), {"color": VERMILLION, "linestyle": "--"}),
    "other networks": (("nn", "nn_top3", "nn_cls"), {"color": BLUE, "linestyle": "-."}),
    "thresholds": (grid.THRESHOLD_ATTACKS, {"color": GREEN, "linestyle": ":"}),
    "BlindMI": (("blindmi",), {"color": ORANGE, "linestyle": (0, (5, 1, 1, 1, 1, 1))}),
}
"""Kinds of attacks, of which the one with the largest AUC is drawn; so is that of what users add, in grey."""


CAPTION = (
    "The share of members that an attack finds against the share of non-members that it accuses wrongly, both axes "
    "logarithmic: the further left, the surer it must be. Of attacks with reference models, of SAMIA, of other "
    "networks, of thresholds and of BlindMI the one with the largest AUC is drawn, its AUC beside its name, with a "
    "95 % bootstrap band. Dotted diagonal: guessing. Curves begin at one false positive."
)
"""How to read the curves."""

OF_A_RUN = "The matched adversary's. Of pruned and of defended models: the one that leaks most by AUC. One seed"
"""Whose curves a run draws."""


@styled()
def roc(
    victims: Mapping[str, Scores], title: str, failed: Mapping[str, Sequence[str]], whose: str = OF_A_RUN
) -> Figure:
    """True against false positive rate, a panel per victim (by its label) and a curve per kind of attack.

    ``failed`` has by label the attacks on a victim that failed and whose scores it lacks, to be named. A victim without
    any other has no panel: the caption names it. ``whose`` is in the caption, followed by the number of records.
    """
    without = "all results failed" if any(failed.values()) else "no victim"
    figure, places = panels(len(victims), 3, 2.3, "true positive rate", without, sharey=True)
    lowest = 1.0
    for axes, (label, scores) in zip(places, victims.items(), strict=True):
        others = int((~scores.members).sum())
        fprs = np.array([fpr for fpr in metrics.FPR_GRID if 1 / others <= fpr < 1])
        lowest = min(lowest, 1 / others)
        added = tuple(name for name, entry in grid.ATTACKS.items() if entry.extension)
        for names, line in (*KINDS.values(), (added, {"color": GREY, "linestyle": "-"})):
            areas = {a: metrics.auc(scores.by_attack[a], scores.members) for a in names if a in scores.by_attack}
            if not areas:
                continue
            name = max(areas, key=lambda each: areas[each])
            rates = [metrics.at_fpr(scores.by_attack[name], scores.members, float(fpr), 0) for fpr in fprs]
            found = np.array([(np.nan, np.nan, np.nan) if r["tpr"] is None else (r["tpr"], *r["ci"]) for r in rates])
            low, high = found[:, 1], found[:, 2]
            axes.fill_between(fprs, low, high, color=line["color"], alpha=0.12, linewidth=0)
            axes.plot(fprs, found[:, 0], label=f"{name} {areas[name]:.3f}", linewidth=1.2, **line)
        axes.plot([1e-5, 1], [1e-5, 1], **GUESSING)
        lines = [label.replace(" + ", "\n+ ")]
        if failed.get(label):
            lines += textwrap.wrap(f"failed: {', '.join(failed[label])}", 34)
        axes.set(xscale="log", yscale="log", title="\n".join(lines), xlabel="false positive rate")
        axes.legend(loc="lower right", handlelength=2.2, borderaxespad=0.1)
    for axes in places:
        axes.set(xlim=(lowest, 1), ylim=(lowest, 1))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.tick_params(labelleft=True)
    sizes = {(int(s.members.sum()), int((~s.members).sum())) for s in victims.values()}
    records = "; " * bool(sizes) + " or ".join(f"{m} members and {n} non-members" for m, n in sorted(sizes))
    n_failed, n_sound = sum(map(len, failed.values())), sum(len(scores.by_attack) for scores in victims.values())
    left_out = failures(pd.DataFrame({"failures": [n_failed], "seeds": [n_failed + n_sound]}))
    unseen = [label for label, names in failed.items() if names and label not in victims]
    all_failed = f". All failed: {', '.join(unseen)}" if unseen else ""
    finish(figure, title, f"{CAPTION} {whose}{records}{left_out}{all_failed}.")
    return figure
