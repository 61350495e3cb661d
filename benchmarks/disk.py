"""Disk that the grid of config.yaml takes, from the sizes of files written to a temporary folder.

    python benchmarks/disk.py

Every kind of file is written once with the real code and the real shapes: for each dataset and model a checkpoint of
a freshly initialised model and one pruned by each pruner at each sparsity (with random gammas: fresh are all alike,
and `slim` goes by them); signals of random numbers for the dataset's record counts; attackers fitted on a few random
signals. Nothing is trained or downloaded.
"""

import argparse
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

from miaprune import grid, signals
from miaprune.attacks import attack
from miaprune.data import splits
from miaprune.data.datasets import SPECS
from miaprune.files import save_tensors
from miaprune.networks import models, pruning
from miaprune.report import results
from miaprune.signals import Signals

ROOT = Path(__file__).resolve().parents[1]
FOLDER = tempfile.TemporaryDirectory()
FILE = Path(FOLDER.name) / "file.safetensors"


@cache
def checkpoint(
    name: str, input_shape: tuple[int, ...], classes: int, pruner: str | None = None, sparsity: str | None = None
) -> int:
    """Bytes of a model's checkpoint, pruned if a pruner is named. A defence changes none of them."""
    model = models.build(name, input_shape, classes, seed=0)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    if pruner is not None and sparsity is not None:
        pruning.PRUNERS[pruner](model, float(sparsity))
    save_tensors(FILE, pruning.finalise(model).state_dict(), {})
    return FILE.stat().st_size


def random_signals(n: int, classes: int) -> Signals:
    """Signals without a zero, as real ones are; where they hold many they take less."""
    generator = np.random.default_rng(0)
    p, s = generator.random((2, n, classes), dtype=np.float32)
    return Signals(p + 0.5, s + 0.5, np.arange(n) % classes, generator.random(n) < 0.5)


@cache
def signal_file(dataset: str) -> int:
    """Bytes of the signals of a setting's six models."""
    spec = SPECS[dataset]
    parts = {role: splits.of_role(role, spec.records, 7) for role in grid.ROLES}
    signals.save(FILE, {r: random_signals(len(s.train) + len(s.test), spec.classes) for r, s in parts.items()}, {})
    return FILE.stat().st_size


@cache
def attack_files(dataset: str) -> tuple[int, int]:
    """Bytes of all fitted attackers of a setting, and of one adversary's results."""
    generator, shadows = np.random.default_rng(0), random_signals(2000, SPECS[dataset].classes)
    recipe = CONFIG["attack_recipes"]["fast"] | {"epochs": 1, "least_steps": 1}
    facts = {"train_accuracy": 0.5, "test_accuracy": 0.5, "achieved_sparsity": 0.5, "data": "sha256:" + 64 * "0"}
    trained = results.stage(CONFIG["finetuning"], "NVIDIA H100")
    facts |= trained | {"original": trained, "signals": results.stage(CONFIG["signals"], "NVIDIA H100")}
    attackers = jsons = 0
    for name in CONFIG["attacks"]:
        options = recipe if name in grid.NEURAL_ATTACKS else CONFIG.get(name, {})
        about = results.stage(options, "NVIDIA H100")
        save_tensors(FILE, attack(name).fit(shadows, options, 0, "cpu"), {"attack": name, **about})
        attackers += FILE.stat().st_size
        result = results.attack_result(
            grid.Setting(dataset, "fc"), name, 7, generator.normal(size=2000), shadows, facts, about
        )
        results.write_json(FILE, result)
        jsons += FILE.stat().st_size
    return attackers, jsons


def sizes(settings: list[grid.Setting], adversaries: Counter[grid.Setting]) -> Counter[str]:
    """Bytes by kind of file."""
    total: Counter[str] = Counter()
    for setting in settings:
        attackers, jsons = attack_files(setting.dataset)
        total["checkpoints"] += len(grid.ROLES) * CHECKPOINT[setting.undefended]
        total["signals"] += signal_file(setting.dataset)
        total["attackers"] += attackers
        total["results"] += jsons * adversaries[setting]
    return total


CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
ATTACKED = grid.attacked(grid.settings(CONFIG), CONFIG)
VICTIMS = list(dict.fromkeys(victim for victim, _ in ATTACKED))
UNDEFENDED = [victim for victim in VICTIMS if victim.defense is None]
CHECKPOINT = {
    s: checkpoint(s.model, SPECS[s.dataset].input_shape, SPECS[s.dataset].classes, s.pruner, s.sparsity)
    for s in UNDEFENDED
}


def print_sizes_per_model() -> None:
    print("MB a checkpoint, of pruned ones the mean over the sparsities, and MB a setting:\n")
    print(f"| data set | model | original | {' | '.join(CONFIG['pruners'])} | six originals | signals | attackers |")
    print(f"| --- | --- | {' | '.join(['---:'] * (4 + len(CONFIG['pruners'])))} |")
    for original in (victim for victim in UNDEFENDED if victim.pruner is None):
        row = [CHECKPOINT[original]]
        for pruner in CONFIG["pruners"]:
            family = [CHECKPOINT[s] for s in UNDEFENDED if s.original == original and s.pruner == pruner]
            row.append(sum(family) / len(family) if family else 0)
        row += [len(grid.ROLES) * row[0], signal_file(original.dataset), attack_files(original.dataset)[0]]
        cells = (f"{size / 1e6:.1f}" if size else "" for size in row)
        print(f"| {original.dataset} | {original.model} | {' | '.join(cells)} |")


def print_totals() -> None:
    print("\nGB:\n")
    print("| grid | settings | checkpoints | signals | attackers | results | kept: all | kept: no checkpoints |")
    print(f"| --- | {' | '.join(['---:'] * 7)} |")
    for name, settings, attacked in (
        ("255 settings and 15 originals (`attacks`)", UNDEFENDED, [(v, a) for v, a in ATTACKED if a == "matched"]),
        ("the whole of config.yaml (`all`)", VICTIMS, ATTACKED),
    ):
        total = sizes(settings, Counter(victim for victim, _ in attacked))
        rest = sum(total.values()) - total["checkpoints"]
        kinds = ("checkpoints", "signals", "attackers", "results")
        cells = (f"{size / 1e9:.2f}" for size in (*(total[k] for k in kinds), sum(total.values()), rest))
        print(f"| {name} | {len(settings)} | {' | '.join(cells)} |")


def print_peak() -> None:
    """The most that can lie there at a time beside what stays, where checkpoints don't: computed from the sizes."""
    originals = len(grid.ROLES) * sum(CHECKPOINT[v] for v in UNDEFENDED if v.pruner is None)
    # Until its outputs are written, a job may hold the states of its models: of five finished ones weights and their
    # masks, of the sixth these twice (as they are, and the best) and Adam's two moments. A mask is as large at most.
    copies = 5 * 2 + (2 * 2 + 2)
    under_way = max(len(grid.ROLES) * CHECKPOINT[v] + copies * CHECKPOINT[v.original] for v in UNDEFENDED)
    print(
        f"\nBeside that: all originals {originals / 1e9:.2f} GB, a setting under way {under_way / 1e9:.2f} GB at most."
    )


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print_sizes_per_model()
    print_totals()
    print_peak()
