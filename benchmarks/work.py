"""The grid's work: floating-point operations of every setting, counted, and what card its time limits need.

    python benchmarks/work.py

Counted are matrix products and convolutions, all that takes long, of one record through the real networks and attacks;
the rest is the data set's number of records and the configured epochs: the most there can be, as training stops early.
Nothing is trained. Writes work.md beside this.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ours
import torch
from configuration import attack_options, training_recipe
from needs import minutes
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from miaprune import grid
from miaprune.attacks.neural import NETWORKS, epochs_of, train
from miaprune.data import splits
from miaprune.data.datasets import SPECS
from miaprune.files import write_text
from miaprune.networks import models
from miaprune.signals import Signals

STAGES = {"originals": "training", "pruned": "finetuning"}
NEEDS = {**STAGES, "signals": "signals", "samia": "samia", "nn": "nn"}
"""What needs calls a phase."""


def flops(compute: Callable[[], Any]) -> float:
    """Floating-point operations of matrix products and convolutions; counted on the CPU, they are the same anywhere."""
    with FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops()


def of_model(name: str, input_shape: tuple[int, ...], classes: int) -> tuple[float, float]:
    """Of one record: a forward pass, a training step."""
    model, n = models.build(name, input_shape, classes, seed=0), 4
    x, y = torch.zeros(n, *input_shape), torch.zeros(n, dtype=torch.long)
    with torch.no_grad():
        forward = flops(lambda: model(x))
    return forward / n, flops(lambda: F.cross_entropy(model(x), y).backward()) / n


def of_attack(name: str, classes: int, options: Mapping[str, Any]) -> float:
    """Of one shadow record in one epoch of an attack's training."""
    rng, n = np.random.default_rng(0), 512
    p = rng.dirichlet(np.ones(classes), n).astype(np.float32)
    shadows = Signals(p, p * (1 - p), rng.integers(0, classes, n), rng.random(n) < 0.5)
    build, features = NETWORKS[name]
    x, y = torch.from_numpy(features(shadows)), torch.from_numpy(shadows.members.astype(np.int64))
    return flops(lambda: train(build, x, y, {**ours.one_epoch(options), "batch_size": 64}, 0)) / n


def cell(
    records: int,
    input_shape: tuple[int, ...],
    classes: int,
    model: str,
    epochs: Mapping[str, Sequence[int]],
    config: Mapping[str, Any],
) -> dict[str, float]:
    """Of each phase of a cell, whose six models ran so many ``epochs`` in a phase; attacks by the configured ones."""
    forward, step = of_model(model, input_shape, classes)
    data_splits = [splits.of_role(role, records, config["seed"]) for role in grid.ROLES]
    found: dict[str, float] = {}
    for phase in epochs:
        found[phase] = sum(
            ran * (len(s.train) * step + len(s.dev) * forward) + (len(s.train) + len(s.dev) + len(s.test)) * forward
            for ran, s in zip(epochs[phase], data_splits, strict=True)
        )
    queried = [len(s.train) + len(s.test) for s in data_splits]
    found["signals"] = sum(queried) * (1 + config["signals"]["draws"]) * forward
    for family in ("samia", "nn"):
        options = {name: attack_options(config, name) for name in grid.ATTACK_FAMILIES[family]}
        shadows = sum(queried[1:])
        found[family] = shadows * sum(
            of_attack(name, classes, o) * epochs_of(o, -(-shadows // o["batch_size"])) for name, o in options.items()
        )
    return found


TEXT = """# Work: what the grid computes

    python benchmarks/work.py

Floating-point operations of matrix products and convolutions, counted, not measured: of six original models, of the
six of one pruned setting, of a setting's signals, and of the training of its neural attacks by the `fast` recipe.
Models for all the configured epochs, which is the most it can be: most training stops earlier. The last column is the
pair's original and all its pruned settings, attacked.

{rows}

**{total:.3f} EFLOP** for the {settings} settings and their originals: {at_10:.0f} hours on a card
that sustains 10 TFLOP/s, {at_50:.0f} at 50. What a card sustains with batches of 128 small images, `make bench-gpu`
measures.

The time limits of `workflow/needs.py` suffice for undefended settings, in the worst pair, at the first attempt, for a
card that sustains, in TFLOP/s: {rates}.
A third attempt has three times as long.
"""


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main(out: Path) -> None:
    config = ours.configuration()
    settings, total, rates = grid.settings(config), 0.0, dict.fromkeys(NEEDS, 0.0)
    pruned = [setting for setting in settings if setting.pruner is not None]
    rows = [f"| data set | model | {' | '.join(f'{phase}, TFLOP' for phase in NEEDS)} | pruned settings | all, PFLOP |"]
    rows += ["| --- | --- |" + " ---: |" * (len(NEEDS) + 2)]
    for pair in (setting for setting in settings if setting.pruner is None):
        spec = SPECS[pair.dataset]
        recipes = {phase: training_recipe(config, stage, pair.dataset) for phase, stage in STAGES.items()}
        epochs = {phase: [recipe["epochs"]] * len(grid.ROLES) for phase, recipe in recipes.items()}
        found = cell(spec.records, spec.input_shape, spec.classes, pair.model, epochs, config)
        count = sum(setting.original == pair for setting in pruned)
        attacked = found["signals"] + found["samia"] + found["nn"]
        work = found["originals"] + attacked + count * (found["pruned"] + attacked)
        total += work
        for phase, stage in NEEDS.items():
            seconds = 60 * minutes(stage, (pair.dataset, pair.model))
            rates[phase] = max(rates[phase], found[phase] / 1e12 / seconds)
        cells = " | ".join(_three_digits(found[phase] / 1e12) for phase in NEEDS)
        rows.append(f"| {pair.dataset} | {pair.model} | {cells} | {count} | {_three_digits(work / 1e15)} |")
    text = TEXT.format(
        rows="\n".join(rows),
        total=total / 1e18,
        settings=len(pruned),
        at_10=total / 10e12 / 3600,
        at_50=total / 50e12 / 3600,
        rates=", ".join(f"{NEEDS[phase]} {rate:.2g}" for phase, rate in rates.items()),
    )
    write_text(out, text)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("work.md"))
    main(parser.parse_args().out)
