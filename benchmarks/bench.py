"""One full cell (six originals, six models pruned by l1 at 0.7, signals, all attacks) by the plain baseline and by us.

    python benchmarks/bench.py                                   # make bench: digits on the CPU, minutes
    python benchmarks/bench.py --dataset location                # make bench DATASET=location: tens of minutes
    python benchmarks/bench.py --gpu --dataset cifar10 --model resnet18 --device cuda --baseline-epochs 2
                                                                 # make bench-gpu

Both sides get the same prepared file, one after the other. Ours is the real workflow in a new folder: its time is from
Snakemake's start to its end. The baseline (baseline.py) runs in this process, imports done. Prints a table and writes
it; ends with status 1 unless both sides reach the same accuracies: their 95 % intervals overlap, or ours is better.

`--gpu` adds the share of the card's peak and an estimate for the whole grid; with images, cut the baseline short (see
there). It runs with `--device cpu` too, where only that it runs can be learnt.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import baseline
import hours
import numpy as np
import ours
import torch
import work
from scipy.stats import binomtest

from miaprune import grid
from miaprune.data import datasets, splits
from miaprune.files import FileError, write_text
from miaprune.networks import models
from workflow.configuration import ConfigError, attack_options, check_device

HERE = Path(__file__).resolve().parent
PHASES = {
    "originals": "six original models",
    "pruned": "six pruned and fine-tuned models",
    "signals": "signals (the baseline: before every attack)",
    **{family: ", ".join(attacks) for family, attacks in baseline.FAMILIES.items()},
}
PEAKS = {"H100 PCIe": (756, 51), "H100": (989, 67), "H200": (989, 67), "A100": (312, 19.5), "L40S": (362, 91.6)}
"""TFLOP/s of a card, by its data sheet and a part of its name: dense bf16 on tensor cores, float32 without TF32."""


# --- baseline against ours -------------------------------------------------------------------------------------------


def run_baseline(
    data: datasets.Dataset, model: str, config: dict[str, Any], folder: Path, attacked: Path, args: Any
) -> baseline.Cell:
    """The baseline's cell in ``folder``; its attacks are on the models in ``attacked``, ours.

    Two trainings by one recipe keep the weights of other epochs, which moves an attack's accuracy by 10 points. On the
    same models it is the attacks that are compared.
    """
    if args.device == "cuda":  # what a process' first step costs is not to be extrapolated
        network = models.build(model, data.input_shape, data.classes, seed=0).to(args.device)
        network(data.batch(torch.arange(128)).to(args.device)).sum().backward()
    cell = baseline.Cell(data, model, ours.SPARSITY, config, folder, args.device, args.baseline_epochs, attacked)
    return baseline.run(cell)


def extrapolated(plain: baseline.Cell, own: ours.Cell, config: Mapping[str, Any]) -> Counter[str]:
    """The baseline's seconds had it trained models for as many epochs as ours, and attacks for the recipe's.

    Each missing epoch takes what the last one took; what is done once is counted once.
    """
    seconds = Counter(plain.seconds)
    for phase, facts in own.facts.items():
        missing = sum(each["epochs_run"] for each in facts) - plain.epochs[phase]
        seconds[phase] += missing * plain.last[phase] / len(grid.ROLES)
    for name in grid.NEURAL_ATTACKS:
        missing = attack_options(config, name, "paper")["epochs"] - plain.epochs[name]
        seconds[baseline.FAMILY[name]] += missing * plain.last[name]
    return seconds


def speed_table(seconds: Mapping[str, float], cells: Mapping[str, ours.Cell], cut: bool) -> list[str]:
    """Per phase and for the whole cell: seconds of both sides and how many times faster ours is."""
    heads = [f"{name} s | times faster" for name in cells]
    rows = [f"| phase | baseline s{' (extrapolated)' if cut else ''} | {' | '.join(heads)} |"]
    rows += ["| --- |" + " ---: |" * (1 + 2 * len(cells))]
    for cell in cells.values():  # a phase that a changed workflow has under another name must not go unseen
        if unknown := set(cell.seconds) ^ set(PHASES):
            sys.exit(f"error: phases that the workflow or the benchmark doesn't know: {', '.join(sorted(unknown))}")
    for phase, title in PHASES.items():
        pairs = [f"{c.seconds[phase]:.1f} | {seconds[phase] / c.seconds[phase]:.1f}" for c in cells.values()]
        rows.append(f"| {title} | {seconds[phase]:.1f} | {' | '.join(pairs)} |")
    total = sum(seconds.values())
    pairs = [f"{c.wall:.1f} | {total / c.wall:.1f}" for c in cells.values()]
    rows.append(f"| **the whole cell, wall clock** | {total:.1f} | {' | '.join(pairs)} |")
    return rows


def test_interval(accuracy: float, records: int) -> tuple[float, float]:
    """95 % Wilson interval of an accuracy on ``records`` records."""
    interval = binomtest(round(accuracy * records), records).proportion_ci(0.95, "wilson")
    return interval.low, interval.high


Accuracies = dict[str, tuple[float, tuple[float, float]]]


def accuracies(test_accuracy: Mapping[str, float], attacks: Mapping[str, Any], records: int) -> Accuracies:
    """Every accuracy with its 95 % interval: the victims' on their test records, the attacks'."""
    tests = {f"victim's test accuracy, {v}": (a, test_interval(a, records)) for v, a in test_accuracy.items()}
    return tests | {name: (found["accuracy"], tuple(found["accuracy_ci"])) for name, found in attacks.items()}


def accuracy_table(plain: Accuracies, own: Mapping[str, Accuracies]) -> tuple[list[str], list[str]]:
    """The accuracies of both sides beside each other, and what is worse in ours beyond both intervals."""
    rows = [f"| accuracy, % | baseline | {' | '.join(f'{name} | same or better' for name in own)} |"]
    rows += ["| --- | ---: |" + " ---: | --- |" * len(own)]
    worse = []
    for name in dict.fromkeys([*plain, *(key for found in own.values() for key in found)]):
        cells = []
        for side, found in own.items():
            verdict = "not compared"
            if name in plain:
                verdict = "yes" if found[name][1][1] >= plain[name][1][0] else "**no**"
            if verdict == "**no**":
                worse.append(f"{name} ({side})")
            cells.append(f"{_percent(found[name])} | {verdict}")
        rows.append(f"| {name} | {_percent(plain[name]) if name in plain else '-'} | {' | '.join(cells)} |")
    return rows, worse


def _percent(value: tuple[float, tuple[float, float]]) -> str:
    accuracy, (low, high) = value
    return f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"


# --- the card's peak -------------------------------------------------------------------------------------------------


def counted(own: ours.Cell, data: datasets.Dataset, model: str, config: Mapping[str, Any]) -> dict[str, float]:
    """Floating-point operations of each phase of a cell, by the epochs that its models ran."""
    epochs = {phase: [facts["epochs_run"] for facts in own.facts[phase]] for phase in own.facts}
    return work.cell(len(data), data.input_shape, data.classes, model, epochs, config)


def share_table(own: ours.Cell, flops: Mapping[str, float], model: str, card: str) -> list[str]:
    """Each phase's share of the jobs' time, and of what the card could have computed in it at its peak."""
    bf16, float32 = next((peaks for name, peaks in PEAKS.items() if name in card), (None, None))
    peaks = dict.fromkeys(PHASES, float32) | dict.fromkeys(own.facts, float32 if model == "fc" else bf16)
    total = sum(own.seconds.values())
    rows = ["| phase | s | share of time | TFLOP | TFLOP/s | share of peak |", "| --- |" + " ---: |" * 5]
    for phase, title in PHASES.items():
        seconds, done = own.seconds[phase], flops.get(phase, 0) / 1e12
        cells = f"{done:.2f} | {done / seconds:.2f}" if done else "- | -"
        share = f"{done / seconds / peaks[phase]:.1%}" if done and peaks[phase] else "-"
        rows.append(f"| {title} | {seconds:.1f} | {seconds / total:.0%} | {cells} | {share} |")
    of = (
        f"{peaks['originals']} TFLOP/s for the models' training, {float32} (float32) for the rest"
        if float32
        else f"not known for {card or 'a CPU'}"
    )
    return [
        *rows,
        "",
        f"Peak: {of}. A job's seconds hold its imports and its first use of the card; jobs side by side count each.",
    ]


def held_against(estimated: Mapping[str, float], own: ours.Cell) -> list[str]:
    """What the grid's estimate says of the cell that was run, beside what its jobs took."""
    rows = ["| the cell above | estimated s | measured s |", "| --- | ---: | ---: |"]
    rows += [f"| {title} | {estimated[p]:.1f} | {own.seconds[p]:.1f} |" for p, title in PHASES.items()]
    return [*rows, "", "Estimated by the epochs that the cell ran on average, and without its files."]


# --- all together ----------------------------------------------------------------------------------------------------


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="digits", choices=grid.DATASETS)
    parser.add_argument("--model", choices=grid.MODELS, help="default: fc where it fits, else resnet18")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--data-dir", type=Path, default=HERE.parent / "data")
    parser.add_argument("--gpu", action="store_true", help="also: the card's peak, the whole grid's hours")
    recipes = list(ours.configuration()["attack_recipes"])
    parser.add_argument("--recipes", nargs="+", default=["fast"], choices=recipes, help="of config.yaml, for ours")
    parser.add_argument("--baseline-epochs", type=int, help="cut the baseline short and extrapolate (default: don't)")
    parser.add_argument("--records", type=int, help="of generated data, at most; default: 20000, 40 on a CPU")
    parser.add_argument(
        "--out", type=Path, help="default: bench_{cpu,gpu}_{dataset}.md beside this; none for a GPU's on a CPU"
    )
    args = parser.parse_args(argv)
    if args.baseline_epochs is not None and args.baseline_epochs < 2:
        parser.error("--baseline-epochs: 2 or more, as the first one has what is done once")
    if args.records is not None and args.records < 40:
        parser.error("--records: 40 or more, to be split among six models")
    args.model = args.model or ("fc" if grid.takes("fc", args.dataset) else "resnet18")
    try:
        check_device(args.device)
        grid.Setting(args.dataset, args.model).check()
    except (ConfigError, grid.GridError) as error:
        sys.exit(f"error: {error}")
    args.records = args.records or (20_000 if args.device == "cuda" else 40)
    if args.out is None and not (args.gpu and args.device == "cpu"):
        args.out = HERE / f"bench_{'gpu' if args.gpu else 'cpu'}_{args.dataset}.md"
    ours.writable(parser, "--out", args.out)
    ours.each_once(parser, "--recipes", args.recipes)
    return args


def told_so_far(lines: Sequence[str], out: Path | None) -> None:
    """Write what is known by now: a run that is cut off keeps it."""
    if out:
        write_text(out, "\n".join(lines) + "\n")


def gpu_parts(
    args: argparse.Namespace, config: Mapping[str, Any], data: datasets.Dataset, own: ours.Cell
) -> Iterator[tuple[str, list[str]]]:
    """What `--gpu` adds, part by part as each is known: its name and its lines."""
    hours.as_jobs_do()
    card = torch.cuda.get_device_name() if args.device == "cuda" else ""
    yield "shares", ["## Shares", "", *share_table(own, counted(own, data, args.model, config), args.model, card)]
    # How many of the configured epochs the cell with real data ran before it stopped.
    ran = {p: np.mean([f["epochs_run"] / f["recipe"]["epochs"] for f in facts]) for p, facts in own.facts.items()}
    estimate = hours.Estimate({**config, "defenses": [], "transfer": "none"}, args.device, args.records)
    grid_hours = hours.table(estimate, ran)
    held = held_against(estimate.phases(args.dataset, args.model, ran), own)
    yield "the whole grid", ["## The whole grid", "", *grid_hours, "", *held]


def main(args: argparse.Namespace, changes: Mapping[str, Any] | None = None) -> int:
    """Run what the arguments say, with ``changes`` of config.yaml; returns the exit status."""
    began, took = time.perf_counter(), {}
    machine = ours.machine(args.device)
    config = ours.configuration({"device": args.device, "data_dir": str(args.data_dir.resolve()), **(changes or {})})
    try:
        data = datasets.load(ours.prepared(args.dataset, args.data_dir))
    except FileError as error:
        sys.exit(f"error: {error}")
    victim = splits.of_role("victim", len(data), config["seeds"][0])
    cut = args.baseline_epochs is not None
    if not cut and args.dataset != "digits":
        print("both sides run to the end: the baseline takes tens of minutes; with images, many hours", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cells = {}
        for recipe in args.recipes:
            print(f"ours, recipe {recipe} ...", flush=True)
            cells[f"ours, {recipe} recipe"] = ours.run_cell(
                Path(folder, recipe), config, args.dataset, args.model, recipe
            )
        first = next(iter(cells.values()))
        took["ours"] = time.perf_counter() - began
        command = " ".join(sys.argv[1:])
        lines = [
            f"# Benchmark: {args.dataset}/{args.model}, one full cell, {'GPU' if args.device == 'cuda' else 'CPU'}",
            "",
            f"`python benchmarks/bench.py {command}`".replace(" `", "`"),
            "",
            f"{machine}.",
            "",
        ]
        print(f"ours took {first.wall:.0f} s; now the baseline ...", flush=True)
        early = speed_table(dict.fromkeys(PHASES, math.nan), cells, cut)
        told_so_far([*lines, *early, "", "Not finished: nan is what the baseline would have told."], args.out)
        attacked = Path(folder, args.recipes[0], "results", args.dataset, args.model, ours.VARIANT)
        plain = run_baseline(data, args.model, config, Path(folder, "baseline"), attacked, args)
    took["the baseline"] = time.perf_counter() - began - took["ours"]
    seconds = extrapolated(plain, first, config) if cut else plain.seconds
    own = {name: accuracies(c.test_accuracy, c.attacks, len(victim.test)) for name, c in cells.items()}
    told = {} if cut else accuracies(plain.test_accuracy, plain.attacks, len(victim.test))
    compared, worse = accuracy_table(told, own)
    lines += [
        *speed_table(seconds, cells, cut),
        "",
        "Phases are the jobs' seconds, their imports included; jobs run side by side where there are cores. The last "
        "row is the time from Snakemake's start to its end, and the sum of the baseline's phases.",
    ]
    if cut:
        lines += [
            f"The baseline was cut short (after {args.baseline_epochs} epochs of everything it trains; "
            f"{baseline.SAMPLED_ROLES} of the six models; one query for the attacks that query alike; one threshold "
            f"tried of {baseline.SAMPLED_THRESHOLDS}) and **extrapolated**: to the epochs that ours ran for models, to "
            "the paper's recipe for attacks, each further epoch as long as the last one. So its accuracies aren't "
            "compared.",
        ]
    lines += ["", *compared, "", "Each side trained its victim; the attacks of both are on ours."]
    told_so_far(lines, args.out)
    if args.gpu:
        config |= {"attack_recipe": args.recipes[0]}  # as in the first cell
        for part, more in gpu_parts(args, config, data, first):
            lines += ["", *more]
            told_so_far(lines, args.out)
            took[part] = time.perf_counter() - began - sum(took.values())
    parts = ", ".join(f"{part} {seconds:.0f}" for part, seconds in took.items())
    lines += ["", f"All of it took {time.perf_counter() - began:.0f} s: {parts}."]
    told_so_far(lines, args.out)
    print("\n" + "\n".join(lines))
    if worse:
        print(f"less accurate than the baseline beyond both intervals: {', '.join(worse)}", file=sys.stderr)
    return int(bool(worse))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: stopped"))  # what it has started ends with it
    sys.exit(main(parse()))
