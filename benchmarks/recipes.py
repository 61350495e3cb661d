"""The attack recipes of config.yaml against each other, on the signals of finished runs: accuracy and compute.

    python benchmarks/recipes.py results_7 results_8 ...

Each argument is the results folder of a run with another seed. On every setting's signals there, each neural attack is
fitted with each recipe and scored on the victim; what was computed is kept in `recipes/` below the run's folder, so
that a stopped comparison goes on where it was.
"""

import argparse
import hashlib
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ours
import torch
from scipy.stats import ttest_1samp

from miaprune import grid, metrics, signals
from miaprune.attacks import attack
from miaprune.files import FileError, load_metadata, write_text
from workflow.configuration import attack_options


@dataclass(frozen=True)
class Given:
    """A setting's signals in a run."""

    run: Path
    setting: grid.Setting
    seed: int
    digest: str

    @property
    def path(self) -> Path:
        return self.run / self.setting.path / "signals.safetensors"


def compare(given: Given, name: str, recipe: str, options: dict) -> dict:
    """Accuracy, AUC and the CPU seconds of the fit, on one setting's signals; read back if computed before."""
    kept = given.run / "recipes" / given.setting.path / f"{name}.{recipe}.json"
    computed_from = {"options": options, "seed": given.seed, "signals": given.digest}
    if kept.exists():
        found = json.loads(kept.read_text())
        if computed_from.items() <= found.items():
            return found
    victim, shadows = signals.load(given.path, "victim"), signals.load_shadows(given.path, grid.SHADOWS)
    seed = grid.derive_seed(given.seed, given.setting.path, name)
    started = time.process_time()
    fitted = attack(name).fit(shadows, options, seed, "cpu")
    seconds = time.process_time() - started
    scores = attack(name).score(fitted, victim, options, seed, "cpu")
    found = {
        "accuracy": metrics.accuracy(scores, victim.members),
        "auc": metrics.auc(scores, victim.members),
        "seconds": seconds,
        **computed_from,
    }
    write_text(kept, json.dumps(found))
    print(
        f"{given.run.name} {given.setting.path} {name} {recipe}: {found['accuracy']:.4f}, {seconds:.1f} s", flush=True
    )
    return found


def signals_of(runs: list[Path]) -> list[Given]:
    """What is to be compared; raises FileError unless all runs have the same settings, each run with another seed."""
    found = []
    for run in runs:
        for path in sorted(run.glob("*/*/**/signals.safetensors")):
            setting = grid.Setting.parse(path.parent.relative_to(run).as_posix())
            seed = load_metadata(path)["victim"]["seed"]
            with open(path, "rb") as file:
                found.append(Given(run, setting, seed, hashlib.file_digest(file, "sha256").hexdigest()))
    if not found:
        raise FileError("no setting's signals.safetensors is in these folders")
    for run in runs:
        here = {given.setting for given in found if given.run == run}
        if lacks := dict.fromkeys(given.setting.path for given in found if given.setting not in here):
            raise FileError(f"{run}: lacks the signals of {', '.join(lacks)}; give runs of the same settings")
    seeds = {(given.run, given.seed) for given in found}
    if len(seeds) > len(runs) or len({seed for _, seed in seeds}) < len(runs):
        told = ", ".join(f"{run} has {seed}" for run, seed in sorted(seeds))
        raise FileError(f"each run must have one seed, and another than the others: {told}")
    return found


def table(found: dict[tuple[str, str, str], list[dict]], recipes: list[str]) -> str:
    """A row per setting and attack: mean accuracy by each recipe, how often and by how much the last is ahead."""
    first, last = recipes[0], recipes[-1]
    lines = [
        f"| setting | attack | {' | '.join(f'{r} %' for r in recipes)} | {last} - {first}, points, by seed | compute |",
        f"| --- | --- |{' ---: |' * len(recipes)} --- | ---: |",
    ]
    for setting, name in dict.fromkeys((setting, name) for setting, name, _ in found):
        of = {r: found[setting, name, r] for r in recipes}
        means = [f"{100 * np.mean([f['accuracy'] for f in of[r]]):.2f}" for r in recipes]
        ahead = [100 * (b["accuracy"] - a["accuracy"]) for a, b in zip(of[first], of[last], strict=True)]
        spent = np.sum([f["seconds"] for f in of[first]]) / np.sum([f["seconds"] for f in of[last]])
        lines.append(
            f"| {setting} | {name} | {' | '.join(means)} "
            f"| **{np.mean(ahead):+.2f}** ({', '.join(f'{a:+.1f}' for a in ahead)}) | 1/{spent:.0f} |"
        )
    return "\n".join(lines)


def summary(found: dict[tuple[str, str, str], list[dict]], recipes: list[str]) -> str:
    """A row per attack over its settings: in how many the last recipe is ahead, in how many behind, and by how much."""
    first, last = recipes[0], recipes[-1]
    lines = [
        f"| attack | settings | ahead or equal | behind | behind beyond noise | {last} - {first}, points | AUC |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for name in dict.fromkeys(name for _, name, _ in found):
        settings = list(dict.fromkeys(setting for setting, other, _ in found if other == name))
        # [setting, seed]
        accuracy, auc = (
            100 * np.array([[b[key] - a[key] for a, b in zip(found[s, name, first], found[s, name, last], strict=True)]
                            for s in settings])
            for key in ("accuracy", "auc")
        )  # fmt: skip
        behind = [seeds for seeds in accuracy if seeds.mean() < 0]
        worse = [seeds for seeds in behind if len(seeds) > 1 and ttest_1samp(seeds, 0).pvalue < 0.05]
        cells = (_mean_over_seeds(differences.mean(axis=0)) for differences in (accuracy, auc))
        ahead = len(settings) - len(behind)
        lines.append(f"| {name} | {len(settings)} | {ahead} | {len(behind)} | {len(worse)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_over_seeds(differences: np.ndarray) -> str:
    if len(differences) < 2:
        return f"{differences.mean():+.2f}"
    interval = ttest_1samp(differences, 0).confidence_interval(0.95)
    return f"{differences.mean():+.2f} ({interval.low:+.2f} to {interval.high:+.2f})"


def main(arguments: list[str]) -> None:
    config = ours.configuration()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="results folders of runs that differ in their seed")
    parser.add_argument("--recipes", nargs="+", default=["paper", "fast"], choices=config["attack_recipes"])
    parser.add_argument("--attacks", nargs="+", default=grid.NEURAL_ATTACKS, choices=grid.NEURAL_ATTACKS)
    parser.add_argument("--table", type=Path, help="where to write the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    ours.writable(parser, "--table", options.table)
    for option in ("recipes", "attacks"):
        ours.each_once(parser, f"--{option}", getattr(options, option))
    if len(options.recipes) < 2:
        parser.error("--recipes: two or more, to compare")
    found = defaultdict(list)
    try:
        for given in signals_of(options.runs):
            for name in options.attacks:
                for recipe in options.recipes:
                    one = compare(given, name, recipe, attack_options(config, name, recipe))
                    found[given.setting.path, name, recipe].append(one)
    except (FileError, grid.GridError) as error:
        sys.exit(f"error: {error}")
    text = f"{summary(found, options.recipes)}\n\n{table(found, options.recipes)}"
    print(text)
    if options.table:
        write_text(options.table, text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
