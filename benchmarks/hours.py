"""What (dataset, model) pairs take on this machine, phase by phase, and the hours of all their settings: for sizing.

    python benchmarks/hours.py --datasets location texas purchase            # this machine's CPU, one core
    python benchmarks/hours.py --datasets cifar10 --models resnet18 --device cuda

Estimated from generated data of the data sets' shapes: nothing is downloaded, and minutes stand for days.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ours
import torch
from torch import nn

from miaprune import datasets, grid, splits
from miaprune.attacks import attack
from miaprune.attacks.neural import epochs_of
from miaprune.config import ConfigError, attack_options, check_device, training_recipe
from miaprune.job import keep_freed_memory
from miaprune.signals import Signals

STAGES = {"originals": "training", "pruned": "finetuning"}
PHASES = (*STAGES, "signals", *grid.ATTACK_FAMILIES)


@dataclass(frozen=True)
class Cost:
    """Seconds of a phase: once, and per record (and epoch, where there are epochs)."""

    once: float
    per_record: float

    def of(self, records: int, epochs: float = 1) -> float:
        return self.once + self.per_record * records * epochs


def model_costs(dataset: str, model: str, config: Mapping[str, Any], device: str, records: int) -> dict[str, Cost]:
    """Of six models' training, pruned training and signals, by generated data of the data set's shape.

    At most ``records`` records are generated. Training runs for one epoch and for more: the difference is the pace, the
    rest is done once. Signals are measured of one model, twice: what only the first time takes is done once.
    """
    data = ours.generated(dataset, min(records, datasets.SPECS[dataset].records)).to(device)
    parts = [splits.of_role(role, len(data), config["seed"]) for role in grid.ROLES]
    found, trained = {}, []
    # Untimed: what a process does once, such as importing torchvision or starting cuDNN.
    ours.train_models(data, model, parts, training_recipe(config, "training", dataset) | {"epochs": 1}, 0)
    for phase, stage in STAGES.items():
        recipe, originals = training_recipe(config, stage, dataset) | {"patience": 1000}, trained

        def training(epochs: int, r: dict[str, Any] = recipe, o: list[nn.Module] = originals) -> tuple[float, Any]:
            return ours.seconds_of(lambda: ours.train_models(data, model, parts, r | {"epochs": epochs}, 0, o))

        one, (trained, _) = training(1)
        pace = _pace(one, lambda epochs: training(epochs)[0])
        found[phase] = Cost(max(0.0, one - pace), pace / len(data))
    first, again = (ours.seconds_of(lambda: ours.measure(trained[:1], data, parts[:1], config, 0))[0] for _ in range(2))
    found["signals"] = Cost(max(0.0, first - again), again * len(grid.ROLES) / len(data))
    return found


LEAST_SECONDS = 5.0
"""By which a longer training must outlast that of one epoch: what is done once varies by a second or so."""


def _pace(one: float, seconds: Callable[[int], float]) -> float:
    """Seconds of an epoch, by a training of one epoch, which took ``one`` seconds, and by longer ones."""
    longer = 3
    while True:
        difference = seconds(longer) - one
        if difference >= LEAST_SECONDS or longer > 50:
            return max(difference, 0.0) / (longer - 1)
        longer = 1 + math.ceil(2 * LEAST_SECONDS / max(difference / (longer - 1), 2 * LEAST_SECONDS / 60))


def attack_seconds(dataset: str, config: Mapping[str, Any], device: str, most: int) -> dict[str, float]:
    """Of a family's attacks on a setting of this data set, by at most ``most`` made-up shadow records.

    Neural attacks are fitted for one epoch and for more.
    """
    spec = datasets.SPECS[dataset]
    queried = [
        len(p.train) + len(p.test) for p in (splits.of_role(r, spec.records, config["seed"]) for r in grid.ROLES)
    ]
    full = sum(queried[1:])
    shadows, victim = made_up(min(most, full), spec.classes), made_up(min(most, queried[0]), spec.classes)
    scale, victims = full / len(shadows), queried[0] / len(victim)
    found = {}
    for family, names in grid.ATTACK_FAMILIES.items():
        found[family] = 0.0
        for name in names:
            options, fit = attack_options(config, name), attack(name).fit
            if name in grid.NEURAL_ATTACKS:

                def training(epochs: int, f: Any = fit, o: dict[str, Any] = options) -> tuple[float, Any]:
                    cut = o | {"epochs": epochs, "least_steps": 1}
                    return ours.seconds_of(lambda: f(shadows, cut, 0, device))

                seconds, fitted = training(1)
                pace = _pace(seconds, lambda epochs: training(epochs)[0])
                epochs = epochs_of(options, -(-full // options["batch_size"]))
                found[family] += max(0.0, seconds - pace) + pace * scale * epochs
            else:
                seconds, fitted = ours.seconds_of(lambda f=fit, o=options: f(shadows, o, 0, device))
                found[family] += seconds * scale
            score, _ = ours.seconds_of(lambda n=name, o=options, f=fitted: attack(n).score(f, victim, o, 0, device))
            found[family] += score * victims
    return found


def made_up(records: int, classes: int) -> Signals:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(classes), records).astype(np.float32)
    return Signals(p, p * (1 - p), rng.integers(0, classes, records), rng.random(records) < 0.5)


def table(config: Mapping[str, Any], device: str, records: int, ran: Mapping[str, float] | None = None) -> list[str]:
    """The hours of a grid, every setting attacked, from what its pairs' models and attacks take.

    ``ran`` says after what share of the epochs training stops, by phase.
    """
    imports, first_use = start_up(device)
    shadows = min(20_000, 4 * records)
    settings = grid.settings(config)
    rows = [f"| data set | model | {' | '.join(f'{p} s' for p in PHASES)} | pruned settings | hours |"]
    rows += ["| --- | --- |" + " ---: |" * (len(PHASES) + 2)]
    most = early = 0.0
    costs: dict[tuple[tuple[int, ...], str], dict[str, Cost]] = {}  # data sets of one shape share them
    attacks: dict[str, dict[str, float]] = {}
    for pair in (s for s in settings if s.pruner is None):
        spec = datasets.SPECS[pair.dataset]
        shape = (spec.input_shape, pair.model)
        if shape not in costs:
            costs[shape] = model_costs(pair.dataset, pair.model, config, device, records)
        if pair.dataset not in attacks:
            attacks[pair.dataset] = attack_seconds(pair.dataset, config, device, shadows)
        recipes = {p: training_recipe(config, s, pair.dataset) for p, s in STAGES.items()}
        seconds = {p: costs[shape][p].of(spec.records, recipe["epochs"]) for p, recipe in recipes.items()}
        seconds |= {"signals": costs[shape]["signals"].of(spec.records)} | attacks[pair.dataset]
        count = sum(s.original == pair and s.pruner is not None for s in settings)
        jobs = len(grid.ATTACK_FAMILIES) + 2  # a setting's: its models, its signals, its families of attacks
        attacked = sum(seconds[p] for p in ("signals", *grid.ATTACK_FAMILIES)) + imports + jobs * first_use
        rest = (count + 1) * attacked
        hours = (seconds["originals"] + count * seconds["pruned"] + rest) / 3600
        most += hours
        if ran:
            stopped = {p: costs[shape][p].of(spec.records, ran[p] * recipe["epochs"]) for p, recipe in recipes.items()}
            early += (stopped["originals"] + count * stopped["pruned"] + rest) / 3600
        cells = " | ".join(f"{seconds[p]:.1f}" for p in PHASES)
        rows.append(f"| {pair.dataset} | {pair.model} | {cells} | {count} | {hours:.2f} |")
        print(rows[-1], flush=True)
    sooner = ""
    if ran:
        shares = " and ".join(f"{share:.0%} ({phase})" for phase, share in ran.items())
        sooner = f"; {early:.2f} if training stops as early as in the cell above, after {shares} of them"
    return [
        *rows,
        "",
        f"One job at a time: {most:.2f} hours at the configured epochs, the most it can be{sooner}. Estimated: "
        f"generated data of each shape, at most {records} records, some epochs, of attacks {shadows} "
        "shadow records, scaled to the data set's records and the configured epochs; data sets of one shape share "
        f"their models' costs; included are a setting's imports ({imports:.1f} s) and each job's first "
        f"use of the device ({first_use:.1f} s).",
    ]


def start_up(device: str) -> tuple[float, float]:
    """Seconds of the imports that the jobs of a submission share, and of a job's first tensor on the device."""
    code = (
        "import time; started = time.perf_counter(); import miaprune.imports, torch; imported = time.perf_counter(); "
        f"torch.zeros(1, device={device!r}); print(imported - started, time.perf_counter() - imported)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    imports, first_use = map(float, said.split())
    return imports, first_use


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=grid.DATASETS, help="default: config.yaml's")
    parser.add_argument("--models", nargs="+", choices=grid.MODELS, help="default: config.yaml's")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--records", type=int, default=20_000, help="of generated data, at most")
    parser.add_argument("--out", type=Path, help="a Markdown file; default: none")
    options = parser.parse_args(arguments)
    if options.records < 100:
        parser.error("--records: 100 or more, to be split among six models")
    if options.out and options.out.is_dir():
        parser.error(f"--out: {options.out} is a folder")
    chosen = {key: value for key in ("datasets", "models") if (value := getattr(options, key))}
    config = ours.configuration(chosen)
    try:
        check_device(options.device)
        grid.settings(config)
    except (ConfigError, grid.GridError) as error:
        sys.exit(f"error: {error}")
    keep_freed_memory()  # this and the next two as the workflow's jobs have it
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    machine, lines = ours.machine(options.device), table(config, options.device, options.records)
    called = sys.argv[1:] if arguments is None else arguments
    ours.write_page("Hours: what settings take, estimated", "hours.py", called, machine, lines, options.out)


if __name__ == "__main__":
    main()
