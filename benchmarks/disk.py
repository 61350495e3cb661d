"""Disk that the whole grid of config.yaml takes, from the sizes of files written to a temporary folder.

    python benchmarks/disk.py

Every kind of file is written once per dataset and model, with the real code and the real shapes: checkpoints of freshly
initialised models (pruned ones are as large: pruned weights are stored as zeros), signals of zeros for the dataset's
record counts, attackers fitted on a few random signals. Nothing is trained or downloaded.
"""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import yaml

from miaprune import grid, models, results, signals, splits
from miaprune.attacks import attack
from miaprune.datasets import SPECS
from miaprune.files import save_tensors
from miaprune.signals import Signals

ROOT = Path(__file__).resolve().parents[1]


def checkpoint(folder: Path, dataset: str, model: str) -> int:
    """Bytes of one model's checkpoint."""
    spec = SPECS[dataset]
    path = folder / "checkpoint.safetensors"
    save_tensors(path, models.build(model, spec.input_shape, spec.classes, seed=0).state_dict(), {})
    return path.stat().st_size


def blank(n: int, classes: int) -> Signals:
    zeros = np.zeros((n, classes), np.float32)
    return Signals(zeros, zeros, np.arange(n) % classes, np.arange(n) % 2 == 0)


def signal_file(folder: Path, dataset: str) -> int:
    """Bytes of the signals of a setting's six models."""
    spec, path = SPECS[dataset], folder / "signals.safetensors"
    parts = {role: splits.of_role(role, spec.records, 7) for role in grid.ROLES}
    measured = {role: blank(len(s.train) + len(s.test), spec.classes) for role, s in parts.items()}
    signals.save(path, measured, {})
    return path.stat().st_size


def attack_files(folder: Path, dataset: str, config: dict) -> tuple[int, int]:
    """Bytes of all fitted attackers of a setting, and of one adversary's results."""
    generator, classes = np.random.default_rng(0), SPECS[dataset].classes
    p, s = generator.dirichlet(np.ones(classes), 2000), generator.random((2000, classes))
    shadows = Signals(
        p.astype(np.float32), s.astype(np.float32), np.arange(2000) % classes, generator.random(2000) < 0.5
    )
    recipe = config["attack_recipes"]["fast"] | {"epochs": 1}
    facts = {"train_accuracy": 0.5, "test_accuracy": 0.5, "achieved_sparsity": 0.5}
    attackers = jsons = 0
    for name in config["attacks"]:
        options = recipe if name in grid.NEURAL_ATTACKS else config.get(name, {})
        save_tensors(folder / "attacker.safetensors", attack(name).fit(shadows, options, 0, "cpu"), {"attack": name})
        result = results.attack_result(
            grid.Setting(dataset, "fc"), name, 7, generator.normal(size=2000), shadows, facts
        )
        results.write_json(folder / "result.json", result)
        attackers += (folder / "attacker.safetensors").stat().st_size
        jsons += (folder / "result.json").stat().st_size
    return attackers, jsons


def main() -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    attacked = grid.attacked(grid.settings(config), config)
    victims = list(dict.fromkeys(victim for victim, _ in attacked))
    total = Counter()
    print("| data set | model | settings | checkpoint MB | signals MB | attackers MB | undefended GB | defended GB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for dataset, model in dict.fromkeys((v.dataset, v.model) for v in victims):
            one, signal = checkpoint(folder, dataset, model), signal_file(folder, dataset)
            attackers, jsons = attack_files(folder, dataset, config)
            size = Counter()
            for victim, adversary in attacked:
                if (victim.dataset, victim.model) == (dataset, model):
                    size["defended" if victim.defense else "undefended"] += jsons
                    total["results"] += jsons
                    if adversary == "matched":
                        size["defended" if victim.defense else "undefended"] += attackers
                        total["attackers"] += attackers
            own = [v for v in victims if (v.dataset, v.model) == (dataset, model)]
            for victim in own:
                size["defended" if victim.defense else "undefended"] += len(grid.ROLES) * one + signal
            total["checkpoints"] += len(own) * len(grid.ROLES) * one
            total["signals"] += len(own) * signal
            total.update(size)
            cells = (f"{value / 1e6:.1f}" for value in (one, signal, attackers))
            both = (f"{size[kind] / 1e9:.1f}" for kind in ("undefended", "defended"))
            print(f"| {dataset} | {model} | {len(own)} | {' | '.join((*cells, *both))} |", flush=True)
    both = (f"{total[kind] / 1e9:.1f}" for kind in ("undefended", "defended"))
    print(f"| all | | {len(victims)} | | | | {' | '.join(both)} |")
    kinds = ("checkpoints", "signals", "attackers", "results")
    print("\n" + ", ".join(f"{kind} {total[kind] / 1e9:.2f} GB" for kind in kinds))


if __name__ == "__main__":
    main()
