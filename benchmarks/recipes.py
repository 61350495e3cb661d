"""The attack recipes of config.yaml against each other, on the signals of finished runs: accuracy and compute.

    python benchmarks/recipes.py results_7 results_8 ...

Each argument is the results folder of a run with another seed. On every setting's signals there, each neural attack is
fitted with each recipe and scored on the victim; what was computed is kept in `recipes/` below the run's folder, so
that a stopped comparison goes on where it was.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import ours
import torch

from miaprune import grid, metrics, signals
from miaprune.attacks import attack
from miaprune.config import attack_options
from miaprune.files import load_metadata, whole


def compare(run: Path, setting: grid.Setting, name: str, recipe: str, options: dict, seed: int) -> dict:
    """Accuracy, AUC and the CPU seconds of the fit, on one setting's signals; read back if computed before."""
    kept = run / "recipes" / setting.path / f"{name}.{recipe}.json"
    if kept.exists():
        found = json.loads(kept.read_text())
        if found["options"] == options:
            return found
    path = run / setting.path / "signals.safetensors"
    victim, shadows = signals.load(path, "victim"), signals.load_shadows(path, grid.SHADOWS)
    seed = grid.derive_seed(seed, setting.path, name)
    started = time.process_time()
    fitted = attack(name).fit(shadows, options, seed, "cpu")
    seconds = time.process_time() - started
    scores = attack(name).score(fitted, victim, options, seed, "cpu")
    found = {
        "accuracy": metrics.accuracy(scores, victim.members),
        "auc": metrics.auc(scores, victim.members),
        "seconds": seconds,
        "options": options,
    }
    with whole(kept) as temporary:
        temporary.write_text(json.dumps(found))
    print(f"{run.name} {setting.path} {name} {recipe}: {found['accuracy']:.4f}, {seconds:.1f} s", flush=True)
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


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="results folders of runs that differ in their seed")
    parser.add_argument("--recipes", nargs="+", default=["paper", "fast"], help="names in config.yaml's attack_recipes")
    parser.add_argument("--table", type=Path, help="where to write the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    config = ours.configuration()
    found = defaultdict(list)
    for run in options.runs:
        for path in sorted(run.glob("*/*/**/signals.safetensors")):
            setting = grid.Setting.parse(path.parent.relative_to(run).as_posix())
            seed = load_metadata(path)["victim"]["seed"]
            for name in grid.NEURAL_ATTACKS:
                for recipe in options.recipes:
                    one = compare(run, setting, name, recipe, attack_options(config, name, recipe), seed)
                    found[setting.path, name, recipe].append(one)
    if not found:
        sys.exit("error: no setting's signals.safetensors is in these folders")
    text = table(found, options.recipes)
    print(text)
    if options.table:
        options.table.write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
