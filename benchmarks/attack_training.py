"""How near to the best possible AUC the attack networks come, on made-up signals of which it is known; one CPU thread.

    python benchmarks/attack_training.py --classes 2 10 30 100 --boosts 0.2 2 --records 27000 --seeds 0 1 2

A row for each: the victim's AUC, that of the likelihood ratio on the same records (`best_scores` of tests/synthetic.py;
of `nn` and `nn_top3` without the labels), their difference, the steps and the CPU seconds of the fit.
"""

import argparse
import sys
import time
from itertools import product

import ours
import torch

from miaprune import grid, metrics
from miaprune.attacks import attack, checks
from miaprune.attacks.neural import epochs_of
from workflow.configuration import attack_options

sys.path.append(str(ours.ROOT / "tests"))
from synthetic import best_scores, make_signals

VICTIM = 20_000
"""The victim's records, the same for every network: the standard error of an AUC is 0.004 at most."""


def row(name: str, recipe: str, classes: int, boost: float, records: int, seed: int) -> str:
    options = attack_options(ours.configuration(), name, recipe)
    shadows, victim = make_signals(records, classes, 0, boost), make_signals(VICTIM, classes, 1, boost)
    batches = -(-records // options["batch_size"])
    started = time.process_time()
    fitted = attack(name).fit(shadows, options, seed, "cpu")
    seconds = time.process_time() - started
    auc = metrics.auc(attack(name).score(fitted, victim, options, seed, "cpu"), victim.members)
    best = metrics.auc(best_scores(victim, boost, labels=name in ("samia", "nn_cls")), victim.members)
    failed = "" if checks.trained(fitted) else " *failed*"
    return (
        f"| {name} | {recipe} | {classes} | {boost:g} | {records} | {seed} | {auc:.4f}{failed} | {best:.4f} "
        f"| {auc - best:+.4f} | {epochs_of(options, batches) * batches} | {seconds:.0f} |"
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attacks", nargs="+", default=grid.NEURAL_ATTACKS, choices=grid.NEURAL_ATTACKS)
    parser.add_argument("--recipe", default="fast", choices=ours.configuration()["attack_recipes"])
    parser.add_argument("--classes", nargs="+", type=int, default=[2, 10, 30, 100])
    parser.add_argument("--boosts", nargs="+", type=float, default=[0.2, 2.0], help="of a member's true class's logit")
    parser.add_argument("--records", nargs="+", type=int, default=[27_000], help="of all shadows together")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    o = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| attack | recipe | classes | boost | records | seed | AUC | best | difference | steps | CPU s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for classes, boost, records, name, seed in product(o.classes, o.boosts, o.records, o.attacks, o.seeds):
        print(row(name, o.recipe, classes, boost, records, seed), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
