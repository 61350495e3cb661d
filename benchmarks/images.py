"""For when a GPU is at hand for fifteen minutes: models of real images, all attacks on them, and what that took.

    python benchmarks/images.py --minutes 14 --output images.md      # CIFAR-10 and CIFAR-100 lie in data/
    python benchmarks/images.py --device cpu --cells digits/cnn noisy_digits/cnn     # only that it runs

Runs the tests that are marked gpu and then the real workflow, step by step, and stops when the time is up; then it
prints tables of what is there. The same command goes on where it stopped; after a kill -9 the workflow's lock has to go
first (docs/runs.md). Where a machine is taken away, give it fewer minutes than are left. What is run: see `steps`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import ours

from miaprune import grid
from miaprune.files import FileError, write_text
from miaprune.report.results import commit
from miaprune.training.stopping import span
from workflow.configuration import ConfigError, check_device

VERSIONS = ("original", "finetuned", "l1_0.5", "l1_0.7", "l1_0.9", "slim_0.7", "l1_0.7/ppb_4", "l1_0.7/ppb_4/unaware")
"""Of the first cell."""
FURTHER = ("original", "l1_0.7")
"""Of each further cell."""
SLOW = ("l1_0.7/adv_1", "l1_0.7/dp_1")
"""Of the first cell, at last and one after the other: so one of them may come to its end."""
TESTS = 0.25
"""The most of the time that the tests may take."""
SHARING = 2
"""Jobs that share the card: while one imports, another computes."""

Found = Mapping[str, Mapping[str, Any]]
"""A model's results, by attack."""


def steps(first: str, *further: str) -> dict[str, list[str]]:
    """What the workflow is asked for in each step: the folders of models, by the step's name."""
    cells = {first: VERSIONS} | dict.fromkeys(further, FURTHER)
    planned = {cell: [f"{cell}/{version}" for version in versions] for cell, versions in cells.items()}
    return planned | {f"{first}/{version}": [f"{first}/{version}"] for version in SLOW}


def tests(done: Path, seconds: float) -> str:
    """Run the tests that are marked gpu, once: ``done`` keeps how they ended."""
    if not done.exists():
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text("stopped")  # unless they come to their end
        failed = ours.run([sys.executable, "-m", "pytest", "-m", "gpu", str(ours.ROOT / "tests")], seconds)
        done.write_text("failed" if failed else "passed")
    return done.read_text()


def attacks(folder: Path, config: Mapping[str, Any], models: Sequence[str], seconds: float) -> str:
    """Run the workflow for all attacks on these models."""
    targets = [f"{folder}/{model}/{attack}.json" for model in models for attack in config["attacks"]]
    shared = ["--resources", f"card={SHARING}"] if config["device"] == "cuda" else []
    return "failed" if ours.run_workflow(folder, config, *targets, *shared, seconds=seconds) else "done"


def take(todo: Mapping[str, Callable[[float], str]], limit: float, began: float) -> Iterator[str]:
    """Take one step after the other until ``limit`` seconds after ``began``; yields of each how it ended."""
    for name, step in todo.items():
        since = time.monotonic() - began
        if since >= limit:
            yield f"{name}: not begun"
            continue
        print(f"{span(since)} {name}", flush=True)
        try:
            ended = step(limit - since)
        except subprocess.TimeoutExpired:
            ended = "stopped"
        except KeyboardInterrupt:
            ended, limit = "stopped", 0
        yield f"{name}: {ended} after {time.monotonic() - began - since:.0f} s"


def fraction(value: float | None, interval: Sequence[float] | None, scale: float, digits: int) -> str:
    """A number and its interval, as far as there are such."""
    if value is None:
        return "-"
    ends = [f"{scale * end:.{digits}f}" for end in interval or ()]
    return f"{scale * value:.{digits}f}" + (f" ({' to '.join(ends)})" if ends else "")


def leak(result: Mapping[str, Any] | None) -> str:
    """An attack's AUC and its TPR at 1 % FPR, as two cells."""
    if result is None:
        return "- | -"
    rate = result["tpr_at_fpr"]["0.01"]
    failed = " *failed*" if result["trained"] is False else ""
    return f"{fraction(result['auc'], result['auc_ci'], 1, 3)}{failed} | {fraction(rate['tpr'], rate['ci'], 100, 1)}"


def model_row(model: str, found: Found) -> str:
    """How well a model learnt, and what SAMIA and the attack with the largest AUC of those that trained see of it."""
    about = next(iter(found.values()))
    victim, ran = about["victim"], about["provenance"]["victim"]["epochs_run"]
    trained = {attack: result for attack, result in found.items() if result["trained"] is not False}
    strongest = max(trained, key=lambda attack: trained[attack]["auc"], default="-")
    learnt = f"{100 * victim['train_accuracy']:.1f} | {100 * victim['test_accuracy']:.1f} | {ran or '-'}"
    return f"| {model} | {learnt} | {leak(found.get('samia'))} | {strongest} | {leak(trained.get(strongest))} |"


def job_rows(benchmarks: Path, models: Sequence[str]) -> list[str]:
    """What each job of these models took, by Snakemake's benchmark files, and all of them."""
    rows, taken = [], []
    for path in (p for model in models for p in sorted((benchmarks / model).glob("*.tsv"), key=os.path.getmtime)):
        with open(path) as file:
            told = next(csv.DictReader(file, delimiter="\t"))
        # NA: it was over before Snakemake looked
        taken.append([0 if told[key] in ("NA", "-") else float(told[key]) for key in ("s", "cpu_time", "max_rss")])
        rows.append((path.parent.relative_to(benchmarks), path.stem, *taken[-1]))
    seconds, cpu, memory = zip([0, 0, 0], *taken, strict=True)
    rows.append(("all", f"{len(taken)} jobs", sum(seconds), sum(cpu), max(memory)))
    return [f"| {model} | {job} | {s:.1f} | {cpu:.1f} | {mib * 2**20 / 1e9:.1f} |" for model, job, s, cpu, mib in rows]


def tables(folder: Path, models: Sequence[str], names: Sequence[str]) -> list[str]:
    """All that is there of the ``models``' attacks ``names`` and of their jobs, and what is not."""
    files = {model: {name: folder / model / f"{name}.json" for name in names} for model in models}
    found = {
        model: {name: json.loads(path.read_text()) for name, path in of.items() if path.exists()}
        for model, of in files.items()
    }
    trained = [next(iter(of.values()))["provenance"]["victim"] for of in found.values() if of]
    by = dict.fromkeys(f"commit {t['commit'] or 'unknown'}, torch {t['torch']}, {t['device']}" for t in trained)
    missing = {model: [name for name in names if name not in of] for model, of in found.items()}
    lacks = [f"{model} ({', '.join(of)})" if found[model] else model for model, of in missing.items() if of]
    leaks = "AUC | TPR at 1 % FPR, %"
    return [
        f"{date.today():%-d %B %Y}. Models trained by: {'; '.join(by) or 'none'}.",
        "",
        f"| model | train, % | test, % | epochs | SAMIA: {leaks} | strongest | its {leaks.replace('TPR', 'its TPR')} |",
        "| --- | ---: | ---: | ---: | --- | --- | --- | --- | --- |",
        *(model_row(model, of) for model, of in found.items() if of),
        "",
        "In brackets 95 % intervals. The strongest attack is the one with the largest AUC, of those that trained.",
        "",
        f"Not run: {'; '.join(lacks) or 'nothing'}.",
        "",
        "| model | job | s | CPU s | peak memory, GB |",
        "| --- | --- | ---: | ---: | ---: |",
        *job_rows(folder / "benchmarks", models),
        "",
        "A job's seconds hold its imports; some ran side by side. CPU seconds and memory are as Snakemake last looked: "
        "every half second, from 16 s on every 30. Of a job that was stopped and gone on with it is the last attempt.",
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument(
        "--cells", nargs="+", default=["cifar10/resnet18", "cifar100/resnet18"], metavar="DATASET/MODEL"
    )
    parser.add_argument("--data-dir", type=Path, default=ours.ROOT / "data")
    parser.add_argument("--results-dir", type=Path, default=ours.ROOT / "results/images", help="the workflow's folder")
    parser.add_argument("--minutes", type=float, default=14, help="when to stop")
    parser.add_argument("--output", type=Path, help="a Markdown file; default: none")
    args = parser.parse_args(argv)
    ours.writable(parser, "--output", args.output)
    ours.each_once(parser, "--cells", args.cells)
    began, folder = time.monotonic(), args.results_dir.resolve()
    planned = steps(*args.cells)
    models = [model for step in planned.values() for model in step]
    try:
        check_device(args.device)
        for model in models:
            grid.attacked_in(model)
        for cell in args.cells:
            ours.prepared(cell.split("/")[0], args.data_dir)
    except (ConfigError, FileError, grid.GridError) as error:
        sys.exit(f"error: {error}")
    machine = ours.machine(args.device)
    changes = {"device": args.device, "data_dir": str(args.data_dir.resolve()), "results_dir": str(folder)}
    config, limit = ours.configuration(changes), 60 * args.minutes
    todo = {step: partial(attacks, folder, config, of) for step, of in planned.items()}
    if args.device == "cuda":
        done = folder / f"tests_{commit()}.txt"
        todo = {"tests marked gpu": lambda left: tests(done, min(left, TESTS * limit))} | todo
    told, lines = [], []
    for ended in take(todo, limit, began):
        told.append(f"* {ended}")
        lines = [*tables(folder, models, config["attacks"]), "", *told]
        if args.output:  # by and by: the machine may be gone before the end
            write_text(args.output, "\n".join(lines) + "\n")
    called = sys.argv[1:] if argv is None else argv
    ours.write_page("Models of images, attacked", "images.py", called, machine, lines, args.output)
    return int(any(": failed" in line for line in told))


if __name__ == "__main__":
    for stop in (signal.SIGINT, signal.SIGTERM):  # and the tables are printed
        signal.signal(stop, signal.default_int_handler)
    sys.exit(main())
