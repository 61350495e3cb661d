"""What margins cost beside signals, and how long the attacks with reference models take, as ratios in one run.

    .venv/bin/python benchmarks/references.py

Made-up data in the shapes of Location (fc) and CIFAR-10 (cnn, ResNet-18 on a few hundred records), untrained networks,
one thread: neither changes what is computed. CPU time, which other work on the machine moves less than the clock's.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from miaprune import grid, margins, signals
from miaprune.attacks import attack
from miaprune.data import splits
from miaprune.data.datasets import Dataset
from miaprune.margins import DEV, TEST, TRAIN, Margins
from miaprune.networks import models

PAIRS = 7


def of_measuring(model: str, shape: tuple[int, ...], classes: int, n: int) -> tuple[float, list[float]]:
    """The median seconds of signals, and sorted of each pair by what share more the margins of all records take."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand((n, *shape), generator=generator)
    labels = torch.randint(0, classes, (n,), generator=generator)
    data = Dataset("made up", inputs, labels, classes, torch.tensor(0.0), torch.tensor(1.0))
    network, split = models.build(model, shape, classes, 0), splits.victim_split(n, 7)

    def seconds(own: np.ndarray | None) -> float:
        started = time.process_time()
        signals.measure(network, data, split, 10, 1e-3, 0, "victim", own)
        if own is not None:
            margins.fill(network, data, own)
        return time.process_time() - started

    seconds(np.full(n, np.nan, np.float32))  # the first of all is slower
    pairs = [(seconds(None), seconds(np.full(n, np.nan, np.float32))) for _ in range(PAIRS)]
    return statistics.median(alone for alone, _ in pairs), sorted(both / alone - 1 for alone, both in pairs)


def seconds_of_attacks(n: int, k: int) -> float:
    """All four attacks, fitted and scored, on n records of a data set (half of them the victim's)."""
    rng = np.random.default_rng(0)
    parts = np.zeros((k, n), np.int8)
    parts[:, n // 2 :] = rng.choice([TRAIN, DEV, TEST], (k, n - n // 2), p=[0.45, 0.1, 0.45])
    values = rng.normal(0, 3, (k + 1, n)).astype("f4")
    seen = Margins(values[0], values[1:], parts, np.arange(int(0.45 * n)))
    started = time.process_time()
    for name in grid.REFERENCE_ATTACKS:
        attack(name).score(attack(name).fit(seen, {}, 0, "cpu"), seen, {}, 0, "cpu")
    return time.process_time() - started


def main() -> None:
    torch.set_num_threads(1)
    for model, shape, classes, n in (
        ("fc", (446,), 30, 5010),
        ("cnn", (3, 32, 32), 10, 2000),
        ("resnet18", (3, 32, 32), 10, 300),
    ):
        alone, more = of_measuring(model, shape, classes, n)
        told = f"{statistics.median(more):+.1%} ({more[0]:+.1%} to {more[-1]:+.1%})"
        print(f"{model}: signals {alone:.2f} s, with margins {told}")
    for k in (5, 64, 256):
        print(f"four attacks, 60 000 records, {k} references: {seconds_of_attacks(60_000, k):.2f} s")


if __name__ == "__main__":
    main()
