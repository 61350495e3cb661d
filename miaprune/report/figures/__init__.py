"""Figures of a report: each function takes tables or signals and returns a figure; `save` writes it.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and never carry a meaning alone: markers
and line styles repeat it. Every figure is as wide as a page's text, says how many settings, seeds or records
stand behind it, and ends with a caption on how to read it. Figures are drawn off screen, by settings of ours:
the user's own neither show in them nor are changed.
"""

import contextlib
import os
import sys

if "matplotlib" not in sys.modules:
    # Its import stops at a MPLBACKEND that is not installed here, such as a notebook names to all that it starts. We
    # need none: it is set after the import, where it is one, for others' plots.
    backend = os.environ.pop("MPLBACKEND", "")
    import matplotlib

    if backend:
        os.environ["MPLBACKEND"] = backend
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend

from miaprune.report.figures.accuracy import (
    ATTACK_MARKS,
    DATASET_MARKS,
    accuracy_vs_sparsity,
    gaps_vs_accuracy,
    samia_vs_others,
)
from miaprune.report.figures.controls import effects, leak_vs_accuracy
from miaprune.report.figures.defenses import defense_effect, frontier, frontier_strongest
from miaprune.report.figures.mismatch import transfer
from miaprune.report.figures.roc import roc
from miaprune.report.figures.signals import gaps_per_class, margin_distributions, signal_distributions
from miaprune.report.figures.style import as_svg, save

__all__ = [
    "ATTACK_MARKS",
    "DATASET_MARKS",
    "accuracy_vs_sparsity",
    "as_svg",
    "defense_effect",
    "effects",
    "frontier",
    "frontier_strongest",
    "gaps_per_class",
    "gaps_vs_accuracy",
    "leak_vs_accuracy",
    "margin_distributions",
    "roc",
    "samia_vs_others",
    "save",
    "signal_distributions",
    "transfer",
]
