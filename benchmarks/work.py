"""The work of a cell: floating-point operations of each phase, counted, for `bench.py --gpu`.

Counted are matrix products and convolutions, all that takes long, of one record through the real networks and attacks;
the rest is the number of records and of epochs. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import ours
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from miaprune import grid
from miaprune.attacks.neural import NETWORKS, epochs_of, inputs_of, train
from miaprune.data import splits
from miaprune.networks import models
from miaprune.signals import Signals
from workflow.configuration import attack_options


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
    inputs, y = inputs_of(features, shadows, "cpu"), torch.from_numpy(shadows.members.astype(np.int64))
    return flops(lambda: train(build, inputs, y, {**ours.one_epoch(options), "batch_size": 64}, 0)) / n


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
    data_splits = [splits.of_role(role, records, config["seeds"][0]) for role in grid.ROLES]
    found: dict[str, float] = {}
    for phase in epochs:
        found[phase] = sum(
            ran * (len(s.train) * step + len(s.dev) * forward) + (len(s.train) + len(s.dev) + len(s.test)) * forward
            for ran, s in zip(epochs[phase], data_splits, strict=True)
        )
    queried = [len(s.train) + len(s.test) for s in data_splits]
    found["signals"] = sum(queried) * (1 + config["signals"]["draws"]) * forward
    shadows = sum(queried[1:])
    options = {name: attack_options(config, name) for name in grid.NEURAL_ATTACKS}
    work = {
        name: shadows * of_attack(name, classes, o) * epochs_of(o, -(-shadows // o["batch_size"]), classes)
        for name, o in options.items()
    }
    found["samia"], found["nn"] = work.pop("samia"), sum(work.values())
    return found
