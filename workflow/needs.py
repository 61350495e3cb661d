"""What a job asks a scheduler for: minutes and main memory, by stage, data set, model and defence."""

from __future__ import annotations

from collections.abc import Collection, Mapping

NEEDS = {
    "prepare": (60, 6000),
    "training": (60, 8000),
    "finetuning": (30, 8000),
    "signals": (10, 8000),
    "samia": (30, 6000),
    "nn": (30, 6000),
    "cheap": (20, 5000),
    "reference": (10, 4000),
    "score": (5, 4000),
    "own": (30, 6000),
}
"""Minutes and MB of a stage at its first attempt; each further one asks for as much again. ``own`` is a user's attack,
a guess.

Memory is at least 1.9 times what was measured (benchmarks/memory.md; ``score`` was not). The six ResNet-18 of CIFAR-10
took an H200 22 s to train and 17 to fine-tune, their signals 21, attacks 9, 12 and 1
(benchmarks/bench_gpu_cifar10_jpeg.md); training for all epochs would take up to four times as long. The rest is room
for slower cards (benchmarks/work.md says how slow) and, of attacks, for a CPU (benchmarks/hours_cpu.md).
"""

MODEL_COST = {"densenet121": 4, "vgg16": 2, "fc": 0.25, "cnn": 0.25}
DATASET_COST = {
    "svhn": 2,
    "purchase": 4,
    "texas": 4,
    "chmnist": 0.25,
    "location": 0.25,
    "digits": 0.25,
    "noisy_digits": 0.25,
}
DEFENSE_COST = {"ppb": 1.5, "adv": 8, "dp": 10}
"""Times the minutes. A defence makes a step dearer by more networks or per-record gradients; adv and dp are guesses."""

RECIPE_COST = {"paper": 10}
"""Times the minutes of neural attacks: it has 10 times the epochs of ``fast``, of SAMIA 100 times."""

LEAST_MINUTES = 10
SMALL_MEGABYTES = 1500


def minutes(stage: str, names: Collection[str]) -> int:
    """The time limit of a stage's job, whose data set, model, defence and attack recipe are among ``names``."""
    asked = NEEDS.get(stage, NEEDS["own"])[0]
    costs: list[Mapping[str, float]] = [DATASET_COST]
    if stage in ("training", "finetuning", "signals"):  # an attack sees no model
        costs.append(MODEL_COST)
    if stage == "finetuning":
        costs.append(DEFENSE_COST)
    if stage in ("samia", "nn"):
        costs.append(RECIPE_COST)
    scaled = float(asked)
    for cost in costs:
        scaled *= next((cost[name] for name in names if name in cost), 1)
    return max(min(LEAST_MINUTES, asked), round(scaled))


def megabytes(stage: str, names: Collection[str]) -> int:
    """The main memory of a stage's job; as `minutes`."""
    asked = NEEDS.get(stage, NEEDS["own"])[1]
    return min(asked, SMALL_MEGABYTES) if {"digits", "noisy_digits"} & {*names} else asked
