"""Our side, as the benchmarks drive it: the real workflow, and in the one place `train_models` the training itself."""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from miaprune import grid, signals
from miaprune.data.datasets import FORMAT, Dataset, load, prepare
from miaprune.data.splits import Split
from miaprune.files import FileError, load_metadata, save_tensors, write_text
from miaprune.networks import models, pruning
from miaprune.signals import Signals
from miaprune.training.objectives import CrossEntropy, Objective
from miaprune.training.together import train_roles

ROOT = Path(__file__).resolve().parents[1]
PRUNER, SPARSITY = "l1", 0.7
VARIANT = f"{PRUNER}_{SPARSITY}"
PHASES = {"train": "originals", "prune": "pruned"}  # Snakemake's benchmark files by phase; the others keep their names


def prepared(dataset: str, data_dir: Path) -> Path:
    """The prepared file, made from the archive if it isn't there; nothing is downloaded."""
    path = data_dir / dataset / f"{dataset}.safetensors"
    try:
        if not path.exists():
            prepare(dataset, data_dir, path, download=False)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{error.filename or path}: {error.strerror}") from None
    return path


def writable(parser: argparse.ArgumentParser, option: str, path: Path | None) -> None:
    """Refuse a file that `whole` cannot write, beside which it writes first, before the work; none is none to write."""
    if path and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        parser.error(f"{option}: {path} cannot be written; name a file in a folder where you may write")


def each_once(parser: argparse.ArgumentParser, option: str, values: Sequence[Any]) -> None:
    """Refuse what is given twice: it would count twice."""
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        parser.error(f"{option}: {twice[0]} is given twice")


def configuration(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config.yaml").read_text()) | dict(changes or {})


def one_epoch(options: Mapping[str, Any]) -> dict[str, Any]:
    """An attack's options cut to a single epoch, however few its records."""
    return {**options, "epochs": 1, "least_steps": 1}


@dataclass
class Cell:
    """What the workflow took for a cell and what came out of it."""

    wall: float  # seconds from Snakemake's start to its end
    seconds: Counter[str]  # of the jobs, by phase
    test_accuracy: dict[str, float]  # of the victim, by variant
    facts: dict[str, list[dict[str, Any]]]  # of the six models, by phase
    attacks: dict[str, dict[str, Any]]  # results by attack


def run(command: Sequence[str], seconds: float | None = None) -> int:
    """Run a command with this checkout's miaprune; returns its exit status.

    At the limit of ``seconds`` it is stopped with all that it has started, and `subprocess.TimeoutExpired` is raised
    once it has ended; likewise at Ctrl-C and at SIGTERM, where that raises an exception. All of them get SIGINT: at
    SIGTERM Snakemake lets running jobs end, and so does a job under SLURM.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    ) as process:
        try:
            return process.wait(seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()  # `with` does not at Ctrl-C
            raise


def run_workflow(folder: Path, config: Mapping[str, Any], *targets: str, seconds: float | None = None) -> int:
    """Run the workflow in ``folder`` for at most so many ``seconds``, as `run` does; returns its exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    return run([*command, "--profile", str(ROOT / "profiles/local"), *targets, "--quiet", "rules", "progress"], seconds)


def snakemake(folder: Path, config: Mapping[str, Any], *targets: str) -> float:
    """Run the workflow in ``folder``; returns its wall-clock seconds."""
    started = time.perf_counter()
    if run_workflow(folder, config, *targets):
        sys.exit("error: the workflow failed; its own words are above")
    return time.perf_counter() - started


def run_cell(folder: Path, config: dict[str, Any], dataset: str, model: str, recipe: str) -> Cell:
    """One cell by the real workflow: originals, pruned models, signals, all attacks."""
    pair = {"datasets": [dataset], "models": [model], "pruners": [PRUNER], "sparsities": [SPARSITY]}
    config = config | pair | {"defenses": [], "transfer": "none", "attack_recipe": recipe, "results_dir": "results"}
    results = folder / "results" / dataset / model
    attacks = [
        attack for attack in config["attacks"] if attack not in grid.REFERENCE_ATTACKS
    ]  # no part of the baseline
    targets = [f"results/{dataset}/{model}/{VARIANT}/{attack}.json" for attack in attacks]
    wall = snakemake(folder, config, *targets)
    seconds: Counter[str] = Counter()
    for path in (folder / "results/benchmarks").rglob("*.tsv"):
        with open(path) as file:
            name = path.stem.removeprefix("attack_")
            seconds[PHASES.get(name, name)] += float(next(csv.DictReader(file, delimiter="\t"))["s"])
    facts = {
        phase: [load_metadata(results / variant / f"{role}.safetensors") for role in grid.ROLES]
        for phase, variant in (("originals", "original"), ("pruned", VARIANT))
    }
    return Cell(
        wall,
        seconds,
        {"original": facts["originals"][0]["test_accuracy"], VARIANT: facts["pruned"][0]["test_accuracy"]},
        facts,
        {attack: json.loads((results / VARIANT / f"{attack}.json").read_text()) for attack in attacks},
    )


def train_models(
    data: Dataset,
    model: str,
    parts: Sequence[Split],
    recipe: Mapping[str, Any],
    seed: int,
    originals: Sequence[nn.Module] = (),
    objective: Callable[[Split, int], Objective] = lambda split, seed: CrossEntropy(),
    slot: Callable[[str], Any] = lambda name: None,
) -> tuple[list[nn.Module], list[dict[str, Any]]]:
    """Train a model on each split; or prune the ``originals``, trained on the same splits, and fine-tune them.

    This is what workflow/scripts/train.py and prune.py do, without their files: keep it so. ``objective`` makes a
    model's, of its split and seed; ``slot`` makes a training's, by its name (none by default: nothing is kept).
    """
    roles, device = [f"model_{i}" for i in range(len(parts))], data.inputs.device
    seeds = {role: seed + i for i, role in enumerate(roles)}
    shape = data.input_shape, data.classes
    if originals:
        weights = [original.state_dict() for original in originals]
        trained = {role: models.load(model, *shape, w).to(device) for role, w in zip(roles, weights, strict=True)}
        for new in trained.values():
            pruning.PRUNERS[PRUNER](new, SPARSITY)
    else:
        trained = {role: models.build(model, *shape, seed).to(device) for role, seed in seeds.items()}
    objectives = {role: objective(part, seeds[role]) for role, part in zip(roles, parts, strict=True)}
    states = SimpleNamespace(slot=slot)
    facts = train_roles(trained, data, dict(zip(roles, parts, strict=True)), recipe, objectives, seeds, states)
    finished = [pruning.finalise(new) if originals else new for new in trained.values()]
    return finished, [facts[role] for role in roles]


def measure(
    trained: list[nn.Module], data: Dataset, parts: list[Split], config: Mapping[str, Any], seed: int
) -> list[Signals]:
    """The signals of models that were trained on these splits, as workflow/scripts/signals.py takes them."""
    draws, epsilon = config["signals"]["draws"], config["signals"]["epsilon"]
    return [
        signals.measure(model, data, part, draws, epsilon, grid.derive_seed(seed, role))
        for model, part, role in zip(trained, parts, grid.ROLES, strict=False)
    ]


def seconds_of(compute: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds of a computation, on a GPU too, and what it returns."""
    started = time.perf_counter()
    found = compute()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, found


def generated(name: str, records: int | None = None, classes: int | None = None) -> Dataset:
    """Random records in a data set's shape and number, or in another number or with other classes."""
    with tempfile.TemporaryDirectory() as folder:
        write_generated(name, Path(folder, "generated.safetensors"), records, classes)
        return load(Path(folder, "generated.safetensors"))


def write_generated(name: str, out: Path, records: int | None = None, classes: int | None = None) -> None:
    """The same as a prepared file, as `miaprune.data.datasets.prepare` writes it.

    Each class has a pattern that shows through the noise, so that there is something to learn.
    """
    entry, rng = grid.DATASETS[name], np.random.default_rng(0)
    n, classes = records or entry.records, classes or entry.classes
    labels = rng.integers(0, classes, n, dtype=np.uint8)
    if len(entry.shape) == 1:
        noise, pattern = (rng.integers(0, 2, (k, *entry.shape), dtype=np.uint8) for k in (n, classes))
        half = rng.random((n, 1), dtype=np.float32) < 0.5
        inputs = np.packbits(np.where(half, noise, pattern[labels] & noise), axis=1)
    else:
        shape, top = entry.shape, entry.scale // 2 + 1
        inputs, pattern = (rng.integers(0, top, (k, *shape), dtype=np.uint8) for k in (n, classes))
        for label in range(classes):
            inputs[labels == label] += pattern[label]
    facts = {"name": name, "input_shape": entry.shape, "classes": classes}
    facts |= {"scale": entry.scale, "mean": entry.mean, "std": entry.std}
    save_tensors(out, {"inputs": inputs, "labels": labels}, {"format": FORMAT, **facts})


def machine(device: str) -> str:
    """The machine in one line: processor, cores, load, card, versions."""
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in facts if line.startswith("model name")), "unknown CPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    card = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    return (
        f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB{card}; load average {os.getloadavg()[0]:.1f} at the start; "
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, NumPy {np.__version__}"
    )


def write_page(
    title: str, script: str, arguments: Sequence[str], machine: str, lines: Sequence[str], out: Path | None
) -> None:
    """Print a benchmark's Markdown page: how it was called, the machine, what came out; and write it to ``out``."""
    command = " ".join([f"python benchmarks/{script}", *arguments])
    text = "\n".join([f"# {title}", "", f"    {command}", "", f"{machine}.", "", *lines]) + "\n"
    print(f"\n{text}")  # first: it is not lost then where it cannot be written
    if out:
        write_text(out, text)


def resident(field: str) -> int:
    """VmRSS, this process' resident memory, or VmHWM, its peak, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])
