"""How near to the best possible AUC the attack networks come, on made-up signals of which it is known; one CPU thread.

    python benchmarks/attack_training.py --classes 2 10 30 100 --boosts 0.2 2 --records 27000 --seeds 0 1 2

A row for each: the victim's AUC, that of the likelihood ratio on the same records (`best_scores` of tests/synthetic.py;
of `nn` and `nn_top3` without the labels), their difference, the steps and the CPU seconds of the fit. On real signals
(`--signals`) nobody knows the best.
"""

import argparse
import sys
import time
from itertools import product
from pathlib import Path

import ours
import torch

from miaprune import grid, metrics, signals
from miaprune.attacks import attack, checks
from miaprune.attacks.neural import epochs_of
from miaprune.signals import Signals
from workflow.configuration import attack_options

sys.path.append(str(ours.ROOT / "tests"))
from synthetic import best_scores, make_signals

VICTIM = 20_000
"""The victim's records, the same for every network: the standard error of an AUC is 0.004 at most."""


def row(name: str, options: dict, given: str, shadows: Signals, victim: Signals, best: float | None, seed: int) -> str:
    records = len(shadows.labels)
    batches = -(-records // options["batch_size"])
    started = time.process_time()
    fitted = attack(name).fit(shadows, options, seed, "cpu")
    seconds = time.process_time() - started
    auc = metrics.auc(attack(name).score(fitted, victim, options, seed, "cpu"), victim.members)
    epochs = sum(epochs_of(options, batches, shadows.classes, a) for a in range(int(fitted["attempt"])))
    failed = "" if checks.trained(fitted) else " *failed*"
    beside = "| |" if best is None else f"| {best:.4f} | {auc - best:+.4f} |"
    return f"| {name} | {given} | {records} | {seed} | {auc:.4f}{failed} {beside} {epochs * batches} | {seconds:.0f} |"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attacks", nargs="+", default=grid.NEURAL_ATTACKS, choices=grid.NEURAL_ATTACKS)
    parser.add_argument("--recipe", default="fast", choices=ours.configuration()["attack_recipes"])
    parser.add_argument("--epochs", nargs="+", type=int, help="each of these instead of the recipe's")
    parser.add_argument("--signals", type=Path, help="a setting's signals.safetensors instead of made-up signals")
    parser.add_argument("--classes", nargs="+", type=int, default=[2, 10, 30, 100])
    parser.add_argument("--boosts", nargs="+", type=float, default=[0.2, 2.0], help="of a member's true class's logit")
    parser.add_argument("--records", nargs="+", type=int, default=[27_000], help="of all shadows together")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    o = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| attack | recipe | classes | boost | records | seed | AUC | best | difference | steps | CPU s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    made = [(None, None, None)] if o.signals else product(o.classes, o.boosts, o.records)
    for (classes, boost, records), name, seed, epochs in product(made, o.attacks, o.seeds, o.epochs or [None]):
        if o.signals:
            shadows, victim = signals.load_shadows(o.signals, grid.SHADOWS), signals.load(o.signals, "victim")
            given, best = f"{o.recipe} | {victim.posteriors.shape[1]} | real", None
        else:
            shadows, victim = make_signals(records, classes, 0, boost), make_signals(VICTIM, classes, 1, boost)
            given = f"{o.recipe} | {classes} | {boost:g}"
            best = metrics.auc(best_scores(victim, boost, labels=name in ("samia", "nn_cls")), victim.members)
        options = attack_options(ours.configuration(), name, o.recipe)
        options |= {"epochs": epochs} if epochs else {}
        print(row(name, options, given, shadows, victim, best, seed), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
