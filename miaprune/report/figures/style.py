"""How figures look: their colours, their settings, their size, and how one is written."""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miaprune.files import whole, write_text

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
    "svg.hashsalt": "miaprune",  # else ids are drawn anew each time
}

GUESSING: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "linestyle": ":"}
"""A line at what guessing gives."""

BAND: dict[str, Any] = {"alpha": 0.15, "linewidth": 0}
"""An interval about a line, in the line's colour."""

Mark = tuple[str | tuple[int, int, int], str]
"""Marker and colour."""


@contextmanager
def styled() -> Iterator[None]:
    """Draw as we do, from matplotlib's defaults on, whatever the user's own settings are; theirs come back after it."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def panels(
    count: int,
    columns: int,
    height: float,
    ylabel: str = "",
    without: str = "",
    *,
    sharex: bool = False,
    sharey: bool | Literal["row"] = False,
) -> tuple[Figure, list[Axes]]:
    """A figure and its ``count`` panels in reading order; the layout makes room for title, legend and caption.

    ``ylabel`` is each row's. Without a panel the figure says ``without``, in an empty one.
    """
    rows = max(1, math.ceil(count / columns))
    figure = Figure((WIDTH, rows * height + 1.1), layout="constrained")
    places = list(figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False).flat)
    for axes in places[::columns]:
        axes.set_ylabel(ylabel)
    for axes in places[count:]:
        axes.set_axis_off()
    if not count:
        places[0].set_title(without, loc="left")
    return figure, places[:count]


NEW_MARKS: list[Mark] = [(marker, GREY) for marker in "hdH8p*"]
"""In turn of what the grid knows and has no mark of its own, such as what users add; the first also of all else."""


def marks_of(own: Mapping[str, Mark], names: Iterable[str]) -> dict[str, Mark]:
    """The marks of all ``names``: their own, else new ones in turn."""
    return {**own, **dict(zip((name for name in names if name not in own), itertools.cycle(NEW_MARKS), strict=False))}


def write_failed(axes: Axes, names: Mapping[float, Sequence[str]]) -> None:
    """Write "failed" and ``names`` upright at the foot of a panel, at each x: nothing to be taken for an accuracy."""
    for x, here in names.items():
        place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        said = textwrap.fill(f"failed: {', '.join(here)}", 26)
        text = axes.text(x, 0.04, said, **place, rotation=90, fontsize=7)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        text.set_in_layout(False)  # a long one is not to squeeze the panel


def save(figure: Figure, path: str | Path) -> None:
    """Write ``path``.pdf, .png and .svg, each whole or not at all; the same figure gives the same bytes.

    The SVG, which is for a web page, has the panels alone: `miaprune.report.page.picture` finds title and caption in
    its metadata.
    """
    with styled():
        for suffix, facts in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
            with whole(f"{path}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, metadata=facts)
    write_text(f"{path}.svg", as_svg(figure))


def as_svg(figure: Figure) -> str:
    """A figure's panels as SVG, drawn the larger for its title and its caption, which stand in the metadata only."""
    title, caption = figure.get_suptitle(), figure.get_supxlabel()
    facts: Any = {"Title": title, "Description": " ".join(caption.split()), "Date": None}
    text = io.StringIO()
    with styled():
        figure.suptitle("", in_layout=False)
        figure.supxlabel("", in_layout=False)
        figure.savefig(text, format="svg", metadata=facts)
        figure.suptitle(title, in_layout=True)
        figure.supxlabel(caption, in_layout=True)
    return text.getvalue()
