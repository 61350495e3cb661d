"""bfloat16 training against float32: whether it moves the models' accuracy or an attack's beyond noise.

    python benchmarks/precision.py                     # digits/cnn, whole, on the CPU: half an hour
    python benchmarks/precision.py --dataset cifar10_jpeg --model resnet18 --records 1280 --epochs 8 --device cuda

The workflow trains in bfloat16 on a GPU only. Here a CPU does too, by the same `Autocast` of `miaprune.devices`: it
rounds to the same format, if not in the same order. Signals are taken in float32 after both, as everywhere. Each of a
seed's six models is a victim once, with the other five as its shadows: which epoch's weights a single victim keeps
can move an attack on it by ten points and more. On a CPU take `cnn`: see precision.md for what happened to ResNet-18.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hours
import numpy as np
import ours
from configuration import ConfigError, attack_options, check_device, training_recipe
from scipy.stats import ttest_rel

from miaprune import grid, metrics
from miaprune.attacks import attack
from miaprune.data import datasets, splits
from miaprune.devices import Autocast
from miaprune.files import FileError
from miaprune.signals import pool

PRECISIONS = ("float32", "bfloat16")
"""Of training; the first is compared with."""

ATTACKS = ("samia", "conf")


@dataclass(frozen=True)
class Run:
    """What came of a seed's six models by one precision, each of them a victim once."""

    seconds: float  # of their training
    dead: list[bool]  # whether the victim has learnt nothing: it is no better than a guess of one class
    accuracies: dict[str, list[float]]  # by what was measured, of each victim


Found = dict[str, list[Run]]
"""By precision: a run for each seed."""


def compare(
    data: datasets.Dataset,
    model: str,
    config: Mapping[str, Any],
    records: int,
    epochs: int,
    seeds: Sequence[int],
) -> Found:
    """Train six models on the first ``records`` of each split, once by each precision, and attack each."""
    device = data.inputs.device.type
    found: Found = {precision: [] for precision in PRECISIONS}
    for seed in seeds:
        parts = [_first(splits.of_role(role, len(data), seed), records) for role in grid.ROLES]
        for precision, runs in found.items():
            # The wrapper stands for the recipe's own `precision`, which a CPU does not heed.
            recipe = training_recipe(config, "training", data.name) | {"epochs": epochs, "precision": "float32"}
            wrap = Autocast if precision == "bfloat16" else None
            training = partial(ours.train_models, data, model, parts, recipe, seed, wrap=wrap)
            seconds, (trained, facts) = ours.seconds_of(training)
            seen = ours.measure(trained, data, parts, config, seed)
            accuracies = {"test accuracy": [float(victim.correct[~victim.members].mean()) for victim in seen]}
            for name in ATTACKS:
                options, reached = attack_options(config, name), []
                for i, victim in enumerate(seen):
                    fitted = attack(name).fit(pool(seen[:i] + seen[i + 1 :]), options, seed, device)
                    scores = attack(name).score(fitted, victim, options, seed, device)
                    reached.append(metrics.accuracy(scores, victim.members))
                accuracies[f"accuracy of {name}"] = reached
            runs.append(Run(seconds, [f["test_accuracy"] <= f["majority_accuracy"] for f in facts], accuracies))
            print(f"seed {seed}, {precision}: {runs[-1]}", flush=True)
    return found


def table(found: Found, records: int, epochs: int) -> list[str]:
    """A row per precision: seconds of training, and each accuracy's mean and difference from float32's."""
    dead = {precision: np.array([run.dead for run in runs]) for precision, runs in found.items()}
    out = np.any(list(dead.values()), axis=0)  # [seeds, victims]
    learnt = (
        f"{len(out)} seeds; each of {len(grid.ROLES)} models is a victim in turn, the others its shadows. Of those "
        f"{out.size} victims {' and '.join(f'{each.sum()} with {precision}' for precision, each in dead.items())} had "
        f"learnt nothing: such a victim is left out of both, but stays among the others' shadows; {(~out).sum()} are "
        "left."
    )
    if (~out.all(axis=1)).sum() < 2:
        return [f"{learnt} Too few to compare."]

    def means(precision: str, name: str) -> np.ndarray:
        """Of each seed with a victim left."""
        victims = np.array([run.accuracies[name] for run in found[precision]])
        return np.ma.array(victims, mask=out).mean(axis=1).compressed()

    names = list(found["float32"][0].accuracies)
    rows = [f"| training | s | {' | '.join(f'{name}, %: mean, difference' for name in names)} |"]
    rows += ["| --- | ---: |" + " --- |" * len(names)]
    for precision, runs in found.items():
        cells = " | ".join(_difference(means(precision, name), means("float32", name)) for name in names)
        rows.append(f"| {precision} | {min(run.seconds for run in runs):.1f} | {cells} |")
    return [
        *rows,
        "",
        f"{learnt} {records} training records for each model, {epochs} epochs at most; differences from float32 in "
        "points, of the seeds' means, paired by seed, with a 95 % interval: noise if it holds 0. Seconds of the six "
        "models' training, the quickest seed's.",
    ]


def _difference(values: np.ndarray, others: np.ndarray) -> str:
    mean = f"{100 * np.mean(values):.2f}"
    if np.array_equal(values, others):
        return f"{mean}, none"
    interval = ttest_rel(values, others).confidence_interval(0.95)
    verdict = "noise" if interval.low <= 0 <= interval.high else "**not noise**"
    return f"{mean}, {100 * interval.low:+.2f} to {100 * interval.high:+.2f} ({verdict})"


def _first(split: splits.Split, records: int) -> splits.Split:
    """A split's first ``records`` training records, and of the other parts as large a share."""
    records, of = min(records, len(split.train)), len(split.train)
    return splits.Split(*(part[: max(1, len(part) * records // of)] for part in (split.train, split.dev, split.test)))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="digits", choices=grid.MODEL_DATASETS["cnn"])
    parser.add_argument("--model", default="cnn", choices=[m for m in grid.MODELS if m != "fc"])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--data-dir", type=Path, default=ours.ROOT / "data")
    parser.add_argument("--records", type=int, default=10**9, help="of training, of each model, at most (default: all)")
    parser.add_argument("--epochs", type=int, default=100, help="at most: training stops as the workflow's does")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(6))
    parser.add_argument("--out", type=Path, help="a Markdown file; default: none")
    options = parser.parse_args(arguments)
    if options.records < 20 or options.epochs < 1 or len(options.seeds) < 2:
        parser.error("20 records, 1 epoch and 2 seeds or more are needed")
    ours.writable(parser, "--out", options.out)
    ours.each_once(parser, "--seeds", options.seeds)
    if not all(0 <= seed < 2**31 for seed in options.seeds):
        parser.error(f"--seeds: from 0 to {2**31 - 1}")
    try:
        check_device(options.device)
        data = datasets.load(ours.prepared(options.dataset, options.data_dir)).to(options.device)
    except (ConfigError, FileError) as error:
        sys.exit(f"error: {error}")
    hours.as_jobs_do()
    machine = ours.machine(options.device)
    how = data, options.model, ours.configuration(), options.records, options.epochs, options.seeds
    records = min(options.records, len(splits.of_role("victim", len(data), 0).train))
    lines = table(compare(*how), records, options.epochs)
    title = f"bfloat16 against float32: {options.dataset}/{options.model}"
    called = sys.argv[1:] if arguments is None else arguments
    ours.write_page(title, "precision.py", called, machine, lines, options.out)


if __name__ == "__main__":
    main()
