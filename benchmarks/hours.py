"""What (dataset, model) pairs take on this machine, phase by phase, and the hours of all their settings: for sizing.

    python benchmarks/hours.py --datasets location texas purchase            # this machine's CPU, one core
    python benchmarks/hours.py --datasets cifar10 --models resnet18 --device cuda

Estimated from generated data of the data sets' shapes: nothing is downloaded, and minutes stand for days.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ours
import torch

from miaprune import datasets, grid, splits
from miaprune.attacks import attack
from miaprune.attacks.neural import epochs_of
from miaprune.config import ConfigError, attack_options, check_device, training_recipe
from miaprune.files import whole
from miaprune.job import keep_freed_memory
from miaprune.signals import pool

PHASES = ("originals", "pruned", "signals", *grid.ATTACK_FAMILIES)


def measure_pair(dataset: str, model: str, config: Mapping[str, Any], device: str, records: int) -> dict[str, float]:
    """Seconds of each phase of a (dataset, model), estimated from generated data of its shape.

    At most ``records`` records are generated, and seconds that grow with records scaled up to the data set's number.
    Training is run for one and for three epochs: the difference is the pace, the rest a fixed cost; epochs are the
    configured ones, as if no training stopped early. Attacks are fitted for one epoch.
    """
    total = datasets.SPECS[dataset].records
    data = ours.generated(dataset, min(records, total)).to(device)
    scale = total / len(data)
    parts = [splits.of_role(role, len(data), config["seed"]) for role in grid.ROLES]
    found, trained = {}, []
    # Untimed: what a process does once, such as importing torchvision or starting cuDNN.
    ours.train_models(data, model, parts, training_recipe(config, "training", dataset) | {"epochs": 1}, 0)
    for phase, stage in (("originals", "training"), ("pruned", "finetuning")):
        recipe, originals = training_recipe(config, stage, dataset) | {"patience": 1000}, trained
        one, three = (
            ours.seconds_of(
                lambda e=e, r=recipe, o=originals: ours.train_models(data, model, parts, r | {"epochs": e}, 0, o)
            )
            for e in (1, 3)
        )
        trained = one[1][0]
        pace = (three[0] - one[0]) / 2 if three[0] > one[0] else three[0] / 3  # noise: too few records to tell
        found[phase] = max(0.0, one[0] - pace) + pace * scale * recipe["epochs"]
    seconds, measured = ours.seconds_of(lambda: ours.measure(trained, data, parts, config, 0))
    found["signals"] = seconds * scale
    victim, shadows = measured[0], pool(measured[1:])
    for family, names in grid.ATTACK_FAMILIES.items():
        found[family] = 0.0
        for name in names:
            neural, options = name in grid.NEURAL_ATTACKS, attack_options(config, name)
            once = ours.one_epoch(options) if neural else options
            epochs = epochs_of(options, -(-round(len(shadows) * scale) // options["batch_size"])) if neural else 1
            fit, fitted = ours.seconds_of(lambda n=name, o=once: attack(n).fit(shadows, o, 0, device))
            score, _ = ours.seconds_of(lambda n=name, o=once, f=fitted: attack(n).score(f, victim, o, 0, device))
            found[family] += (fit * epochs + score) * scale
    return found


def table(config: Mapping[str, Any], device: str, records: int, ran: Mapping[str, float] | None = None) -> list[str]:
    """The hours of a grid, every setting attacked, from `measure_pair` of each of its pairs.

    ``ran`` says after what share of the epochs training stops, by phase.
    """
    imports, first_use = start_up(device)
    settings = grid.settings(config)
    rows = [f"| data set | model | {' | '.join(f'{p} s' for p in PHASES)} | pruned settings | hours |"]
    rows += ["| --- | --- |" + " ---: |" * (len(PHASES) + 2)]
    most = early = 0.0
    for pair in (s for s in settings if s.pruner is None):
        seconds = measure_pair(pair.dataset, pair.model, config, device, records)
        count = sum(s.original == pair and s.pruner is not None for s in settings)
        jobs = len(grid.ATTACK_FAMILIES) + 2  # a setting's: its models, its signals, its families of attacks
        attacked = sum(seconds[p] for p in ("signals", *grid.ATTACK_FAMILIES)) + imports + jobs * first_use
        rest = (count + 1) * attacked
        hours = (seconds["originals"] + count * seconds["pruned"] + rest) / 3600
        most += hours
        if ran:
            early += (seconds["originals"] * ran["originals"] + count * seconds["pruned"] * ran["pruned"] + rest) / 3600
        cells = " | ".join(f"{seconds[p]:.1f}" for p in PHASES)
        rows.append(f"| {pair.dataset} | {pair.model} | {cells} | {count} | {hours:.2f} |")
        print(rows[-1], flush=True)
    stopped = ""
    if ran:
        shares = " and ".join(f"{share:.0%} ({phase})" for phase, share in ran.items())
        stopped = f"; {early:.2f} if training stops as early as in the cell above, after {shares} of them"
    return [
        *rows,
        "",
        f"One job at a time: {most:.2f} hours at the configured epochs, the most it can be{stopped}. Estimated: "
        f"generated data of each shape, at most {records} records, one and three epochs, scaled to the data set's "
        f"records and the configured epochs; included are a setting's imports ({imports:.1f} s) and each job's first "
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
    command = " ".join(["python benchmarks/hours.py", *(sys.argv[1:] if arguments is None else arguments)])
    head = ["# Hours: what settings take, estimated", "", f"    {command}", "", f"{machine}.", ""]
    text = "\n".join([*head, *lines]) + "\n"
    if options.out:
        with whole(options.out) as temporary:
            temporary.write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
