"""What (dataset, model) pairs take on this machine, phase by phase, and the hours of all their settings: for sizing.

Defended settings are told apart, by defence.

    python benchmarks/hours.py --datasets location texas purchase            # this machine's CPU, one core
    python benchmarks/hours.py --datasets cifar10 --models resnet18 --device cuda

Estimated from generated data of the data sets' shapes: nothing is downloaded, and minutes stand for days. With fewer
than some thousand --records it says too much, several times too much with a hundred: half-empty batches are scaled too.
"""

from __future__ import annotations

import argparse
import logging
import math
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ours
import torch
from baseline import FAMILIES
from torch import nn

from miaprune import grid
from miaprune.attacks import attack, neural
from miaprune.attacks.neural import epochs_of
from miaprune.data import splits
from miaprune.signals import Signals
from miaprune.training import defenses
from miaprune.training.objectives import CrossEntropy, Objective
from workflow.configuration import ConfigError, attack_options, check_device, training_recipe
from workflow.scripts.job import keep_freed_memory

STAGES = {"originals": "training", "pruned": "finetuning"}
PHASES = (*STAGES, "signals", *FAMILIES)

EPOCHS, CAPTURED_EPOCHS = 4, 12
"""Of a model's training, and of one whose steps a GPU captures. A pace is the last half's: by then they all are."""

ATTACK_EPOCHS = {"cuda": 21, "cpu": 3}
"""Of an attack's training, and 1 besides: the difference is the pace."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a phase: once, per record, and per record and epoch."""

    once: float = 0.0
    per_record: float = 0.0
    per_epoch: float = 0.0

    def of(self, records: int, epochs: float = 0) -> float:
        return self.once + records * (self.per_record + epochs * self.per_epoch)


class Clock:
    """What a training takes for its slot: it keeps no state, only the times of its steps and of its end."""

    states = SimpleNamespace(due=False)

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.end = math.nan

    def load(self) -> None:
        pass

    def step(self, state: Any) -> None:
        self.steps.append(time.perf_counter())

    def finish(self, state: Any) -> None:
        self.end = time.perf_counter()

    def pace(self, epochs: int) -> float:
        """Seconds of an epoch with its evaluation: the median of the last half, each from first step to first step."""
        between = np.diff(self._starts(epochs))
        return float(np.median(between[len(between) // 2 :]))

    def final(self, epochs: int) -> float:
        """Seconds from the last epoch's end to the training's, in which the weights kept are evaluated."""
        return max(0.0, self.end - self._starts(epochs)[-1] - self.pace(epochs))

    def _starts(self, epochs: int) -> list[float]:
        # The first step of an epoch follows an evaluation, for which a GPU has done all that was launched before.
        return self.steps[:: len(self.steps) // epochs]


def training_cost(seconds: float, clocks: Collection[Clock], epochs: int, records: int, side_by_side: bool) -> Cost:
    """Of a training of several models that took ``seconds`` with so many epochs and records, by the models' clocks."""
    together = max if side_by_side else sum
    pace = together(clock.pace(epochs) for clock in clocks)
    final = together(clock.final(epochs) for clock in clocks)
    return Cost(max(0.0, seconds - epochs * pace - final), final / records, pace / records)


def model_costs(
    dataset: str, model: str, config: Mapping[str, Any], device: str, records: int, defended_by: Iterable[str] = ()
) -> dict[str, Cost]:
    """Of six models' training, fine-tuning after pruning, also with each defence, and signals, by generated data.

    The data has the data set's shape, and ``records`` records at most. Signals are measured of one model, twice: what
    only the first time takes is done once.
    """
    data = ours.generated(dataset, min(records, grid.DATASETS[dataset].records)).to(device)
    parts = [splits.of_role(role, len(data), config["seeds"][0]) for role in grid.ROLES]

    def objective(defense: str | None, recipe: Mapping[str, Any], split: splits.Split, seed: int) -> Objective:
        if defense is None:
            return CrossEntropy()
        options, strength = config["defense_options"][defense], 1.0  # all strengths take the same time
        return defenses.build(defense, strength, options, data, split, recipe, seed)

    def training(stage: str, originals: list[nn.Module], defense: str | None = None) -> tuple[Cost, list[nn.Module]]:
        recipe = training_recipe(config, stage, dataset)
        captured = device == "cuda" and objective(defense, recipe, parts[0], 0).by_loss  # then all are side by side
        epochs = CAPTURED_EPOCHS if captured else EPOCHS
        recipe |= {"epochs": epochs, "patience": epochs}
        clocks: dict[str, Clock] = defaultdict(Clock)
        how = {"objective": partial(objective, defense, recipe), "slot": clocks.__getitem__}
        seconds, (trained, _) = ours.seconds_of(
            lambda: ours.train_models(data, model, parts, recipe, 0, originals, **how)
        )
        # What is known by now: all of it takes minutes and may be cut off.
        print(
            f"{dataset}/{model}, {defense or stage}: {epochs} epochs of {len(data)} records in {seconds:.1f} s",
            flush=True,
        )
        return training_cost(seconds, clocks.values(), epochs, len(data), captured), trained

    found: dict[str, Cost] = {}
    found["originals"], originals = training(STAGES["originals"], [])
    found["pruned"], pruned = training(STAGES["pruned"], originals)
    for defense in defended_by:
        found[defense], _ = training(STAGES["pruned"], originals, defense)
    first, again = (ours.seconds_of(lambda: ours.measure(pruned[:1], data, parts[:1], config, 0))[0] for _ in range(2))
    found["signals"] = Cost(max(0.0, first - again), again * len(grid.ROLES) / len(data))
    return found


def attack_costs(classes: int, config: Mapping[str, Any], device: str, records: int) -> dict[str, tuple[Cost, Cost]]:
    """Of every attack's fit and of its scoring, by ``records`` made-up shadow records and as many of the victim."""
    shadows, victim = made_up(records, classes), made_up(records, classes)
    found = {}
    for name in [name for names in FAMILIES.values() for name in names]:
        options = attack_options(config, name)
        fit = partial(_fit_seconds, name, shadows, options, device)
        if name in grid.NEURAL_ATTACKS:
            more = ATTACK_EPOCHS[device]
            (one, fitted), (longer, _) = (fit(epochs=epochs, least_steps=1) for epochs in (1, more))
            pace = max(0.0, longer - one) / (more - 1)
            fitting = Cost(max(0.0, one - pace), per_epoch=pace / records)
        else:
            one, fitted = fit()
            fitting = Cost(per_record=one / records)
        scoring, _ = ours.seconds_of(lambda n=name, o=options, f=fitted: attack(n).score(f, victim, o, 0, device))
        found[name] = fitting, Cost(per_record=scoring / records)
    return found


def _fit_seconds(
    name: str, shadows: Signals, options: Mapping[str, Any], device: str, **changes: int
) -> tuple[float, Any]:
    return ours.seconds_of(lambda: attack(name).fit(shadows, {**options, **changes}, 0, device))


def _shape(dataset: str, model: str) -> tuple[tuple[int, ...], str]:
    return grid.DATASETS[dataset].shape, model


class Estimate:
    """What any pair takes on a device, phase by phase; shapes are measured when first asked for."""

    def __init__(self, config: Mapping[str, Any], device: str, records: int) -> None:
        self.config, self.device, self.records = config, device, records
        self.shadows = min(20_000, 4 * records)
        self.imports, self.first_use = start_up(device)
        self.models: dict[tuple[tuple[int, ...], str], dict[str, Cost]] = {}
        self.attacks: dict[int, dict[str, tuple[Cost, Cost]]] = {}
        self.settings = grid.settings(config)
        self.defended = list(dict.fromkeys(s for s, _ in grid.attacked(self.settings, config) if s.defense))

    def phases(
        self, dataset: str, model: str, ran: Mapping[str, float] | None = None, defense: str | None = None
    ) -> dict[str, float]:
        """Seconds of the phases of a pair's setting, each a job, ``pruned`` with the defence.

        ``ran`` says after what share of its epochs a phase's training ends.
        """
        entry = grid.DATASETS[dataset]
        if not self.models:
            print("what a process does once, such as starting cuDNN, not counted:")
            model_costs(dataset, "fc" if model == "fc" else "cnn", self.config, self.device, 100)
        if (shape := _shape(dataset, model)) not in self.models:
            by = dict.fromkeys(s.defense for s in self.defended if _shape(s.dataset, s.model) == shape)
            self.models[shape] = model_costs(dataset, model, self.config, self.device, self.records, by)
        if entry.classes not in self.attacks:
            self.attacks[entry.classes] = attack_costs(entry.classes, self.config, self.device, self.shadows)
        costs, found = self.models[shape], {}
        for phase, stage in STAGES.items():
            epochs = training_recipe(self.config, stage, dataset)["epochs"] * (ran or {}).get(phase, 1)
            found[phase] = costs[defense if defense and phase == "pruned" else phase].of(entry.records, epochs)
        found["signals"] = costs["signals"].of(entry.records)
        parts = (splits.of_role(role, entry.records, self.config["seeds"][0]) for role in grid.ROLES)
        queried, *others = (len(p.train) + len(p.test) for p in parts)
        for family, names in FAMILIES.items():
            found[family] = 0.0
            for name in names:
                fitting, scoring = self.attacks[entry.classes][name]
                options = attack_options(self.config, name)
                steps = -(-sum(others) // options.get("batch_size", 1))
                epochs = epochs_of(options, steps, entry.classes) if "epochs" in options else 0
                found[family] += fitting.of(sum(others), epochs) + scoring.of(queried)
        begun = self.imports + self.first_use
        return {phase: seconds + (phase != "cheap") * begun for phase, seconds in found.items()}


def made_up(records: int, classes: int) -> Signals:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(classes), records).astype(np.float32)
    return Signals(p, p * (1 - p), rng.integers(0, classes, records), rng.random(records) < 0.5)


def table(estimate: Estimate, ran: Mapping[str, float] | None = None) -> list[str]:
    """The hours of the configured grid, every setting attacked; ``ran`` as `Estimate.phases` has it."""
    rows = [f"| data set | model | {' | '.join(f'{p} s' for p in PHASES)} | pruned settings | hours |"]
    rows += ["| --- | --- |" + " ---: |" * (len(PHASES) + 2)]
    most = early = 0.0
    for pair in (s for s in estimate.settings if s.pruner is None):
        count = sum(s.original == pair and s.pruner is not None for s in estimate.settings)

        def hours(seconds: Mapping[str, float], n: int = count) -> float:
            once, each = seconds["originals"], _setting_seconds(seconds)
            return (once + n * each + each - seconds["pruned"]) / 3600

        seconds = estimate.phases(pair.dataset, pair.model)
        most += hours(seconds)
        early += hours(estimate.phases(pair.dataset, pair.model, ran))
        cells = " | ".join(f"{seconds[p]:.1f}" for p in PHASES)
        rows.append(f"| {pair.dataset} | {pair.model} | {cells} | {count} | {hours(seconds):.2f} |")
        print(rows[-1], flush=True)
    epochs = CAPTURED_EPOCHS if estimate.device == "cuda" else EPOCHS
    sooner = ""
    if ran:
        shares = " and ".join(f"{share:.0%} ({phase})" for phase, share in ran.items())
        sooner = f"; {early:.2f} if training stops as early as in the cell above, after {shares} of them"
    return [
        *rows,
        "",
        f"One job at a time: {most:.2f} hours at the configured epochs, the most it can be{sooner}. Estimated: "
        f"generated data of each shape, at most {estimate.records} records, {epochs} epochs, of "
        f"attacks {estimate.shadows} shadow records, {ATTACK_EPOCHS[estimate.device]} epochs, scaled to the data set's "
        "records and the configured epochs; data sets of one shape share their models' costs, those of as many classes "
        f"their attacks'; included are each job's imports ({estimate.imports:.1f} s) and its first use of the device "
        f"({estimate.first_use:.1f} s), but of the cheap attacks' job; reading and writing files is not.",
    ]


def defended_table(estimate: Estimate) -> list[str]:
    """The hours of the defended settings of the configured grid, by pair and defence; none if it has none."""
    kinds = Counter((s.dataset, s.model, s.defense) for s in estimate.defended)
    if not kinds:
        return []
    rows = ["", "| data set | model | defence | pruned s | settings | hours |", "| --- | --- | --- |" + " ---: |" * 3]
    total = 0.0
    for (dataset, model, defense), count in kinds.items():
        seconds = estimate.phases(dataset, model, defense=defense)
        hours = count * _setting_seconds(seconds) / 3600
        total += hours
        rows.append(f"| {dataset} | {model} | {defense} | {seconds['pruned']:.1f} | {count} | {hours:.2f} |")
        print(rows[-1], flush=True)
    uncaptured = f"; adv and dp were trained for {EPOCHS} epochs" if estimate.device == "cuda" else ""
    return [
        *rows,
        "",
        f"The defended settings: {total:.2f} hours at the configured epochs, one job at a time, with signals and "
        f"attacks as above{uncaptured}. Unaware and mismatched adversaries, who only score, are left out.",
    ]


def _setting_seconds(seconds: Mapping[str, float]) -> float:
    """Of a pruned setting with its attacks: all phases but the originals."""
    return sum(seconds.values()) - seconds["originals"]


def start_up(device: str) -> tuple[float, float]:
    """Seconds of the imports of a job that computes on the device, and of its first step there."""
    code = (
        "import time; started = time.perf_counter(); import torch, miaprune.networks.models, miaprune.training.loop; "
        "imported = time.perf_counter(); "
        f"torch.nn.Conv2d(3, 8, 3, device={device!r})(torch.ones(8, 3, 32, 32, device={device!r})).sum().backward(); "
        "print(imported - started, time.perf_counter() - imported)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    imports, first_use = map(float, said.split())
    return imports, first_use


def as_jobs_do() -> None:
    """Set this process up as the workflow sets up a job with one thread."""
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    logging.getLogger("miaprune").setLevel(logging.ERROR)  # that generated data's networks learn little is no news
    neural.REFITS = 0  # for the same reason: made-up signals hold nothing to learn


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
    ours.writable(parser, "--out", options.out)
    chosen = {key: value for key in ("datasets", "models") if (value := getattr(options, key))}
    config = ours.configuration(chosen)
    try:
        check_device(options.device)
        grid.settings(config)
    except (ConfigError, grid.GridError) as error:
        sys.exit(f"error: {error}")
    as_jobs_do()
    machine, estimate = ours.machine(options.device), Estimate(config, options.device, options.records)
    lines = table(estimate) + defended_table(estimate)
    called = sys.argv[1:] if arguments is None else arguments
    ours.write_page("Hours: what settings take, estimated", "hours.py", called, machine, lines, options.out)


if __name__ == "__main__":
    main()
