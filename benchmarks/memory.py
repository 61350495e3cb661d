"""Peak host memory of each stage of a cell, on generated data of Purchase's and of SVHN's size.

    python benchmarks/memory.py            # writes benchmarks/memory.md; half an hour on one core

Every stage is a process of its own, whose peak resident memory the kernel tells. It computes on the CPU, so what would
lie on a GPU (batches, activations, weights) is counted too. A stage holds what its job holds (all records; the signals
of six models; all shadow records), but computes no longer than its peak needs: see `STAGES`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import ours
import torch
from baseline import FAMILIES

from miaprune import grid, signals
from miaprune.attacks import attack
from miaprune.data import datasets, splits
from miaprune.data.archives import ARCHIVES
from miaprune.files import load_tensors, save_tensors, write_text
from miaprune.networks.models import build
from miaprune.training.loop import EVALUATION_BATCH
from workflow.configuration import attack_options
from workflow.scripts import job

CELLS = {"purchase": "fc", "svhn": "resnet18"}
LIMIT = 8e9  # bytes
FIT_SECONDS = 20  # CPU time of each neural attack's training: its arrays and its first batches
BATCHES = 3  # of training, and one evaluation batch of each part, where an epoch would take an hour on a CPU


def first(split: splits.Split, dataset: str) -> splits.Split:
    """All of a table; of images a few batches."""
    if grid.DATASETS[dataset].kind == "table":
        return split
    return splits.Split(split.train[: BATCHES * 128], split.dev[:EVALUATION_BATCH], split.test[:EVALUATION_BATCH])


def first_batch(split: splits.Split) -> splits.Split:
    """One batch of queries."""
    return replace(split, test=split.test[: signals.BATCH - len(split.train)])


def context(dataset: str, folder: Path) -> tuple[datasets.Dataset, list[splits.Split], dict]:
    data = datasets.load(folder / "prepared.safetensors")
    parts = [first(splits.of_role(role, len(data), 7), dataset) for role in grid.ROLES]
    recipe = ours.configuration()["training"] | {"epochs": 1}
    return data, parts, recipe


def prepare(dataset: str, folder: Path) -> None:
    datasets.prepare(dataset, folder, folder / "from_archive.safetensors", download=False)


def train(dataset: str, folder: Path) -> None:
    data, parts, recipe = context(dataset, folder)
    trained, _ = ours.train_models(data, CELLS[dataset], parts, recipe, 0)
    for role, model in zip(grid.ROLES, trained, strict=True):
        save_tensors(folder / f"{role}.safetensors", model.state_dict(), {})


def prune(dataset: str, folder: Path) -> None:
    data, parts, recipe = context(dataset, folder)
    originals = [build(CELLS[dataset], data.input_shape, data.classes, 0) for _ in grid.ROLES]
    for role, model in zip(grid.ROLES, originals, strict=True):
        model.load_state_dict(load_tensors(folder / f"{role}.safetensors")[0])
    ours.train_models(data, CELLS[dataset], parts, recipe, 0, originals)


def measure(dataset: str, folder: Path) -> None:
    """As workflow/scripts/signals.py; where not all records were queried, the file is filled up with copies."""
    data, parts, _ = context(dataset, folder)
    measured = {}
    for role, part in zip(grid.ROLES, parts, strict=True):
        model = build(CELLS[dataset], data.input_shape, data.classes, seed=0)
        model.load_state_dict(load_tensors(folder / f"{role}.safetensors")[0])
        full = splits.of_role(role, len(data), 7)
        asked = part if grid.DATASETS[dataset].kind == "table" else first_batch(part)
        found = signals.measure(model, data, asked, 10, 1e-3, 0)
        rows = np.arange(len(full.train) + len(full.test)) % len(found)
        measured[role] = signals.Signals(*(getattr(found, f)[rows] for f in signals.Signals.__dataclass_fields__))
    signals.save(folder / "signals.safetensors", measured, {})


def fit(*names: str) -> Callable[[str, Path], None]:
    """As workflow/scripts/attack.py: one family of attacks; a neural one is stopped after `FIT_SECONDS`."""

    def stage(dataset: str, folder: Path) -> None:
        config, path = ours.configuration(), folder / "signals.safetensors"
        victim, shadows = signals.load(path, "victim"), signals.load_shadows(path, grid.SHADOWS)
        some = signals.Signals(*(getattr(shadows, f)[::500] for f in signals.Signals.__dataclass_fields__))
        for name in names:
            options = attack_options(config, name)
            signal.signal(signal.SIGPROF, stop)
            signal.setitimer(signal.ITIMER_PROF, FIT_SECONDS)
            try:
                fitted = attack(name).fit(shadows, options, 0, "cpu")
                signal.setitimer(signal.ITIMER_PROF, 0)
            except TimeoutError:
                fitted = attack(name).fit(some, ours.one_epoch(options), 0, "cpu")
            attack(name).score(fitted, victim, options, 0, "cpu")

    return stage


def stop(*_: object) -> None:
    raise TimeoutError


STAGES: dict[str, tuple[Callable[[str, Path], None], str]] = {
    "prepare": (prepare, "the archive, generated, to the prepared file"),
    "train": (train, "six originals, one epoch"),
    "prune": (prune, "six pruned by l1 at 0.7, one epoch"),
    "signals": (measure, "six models, members and non-members, 10 draws"),
    **{
        family: (fit(*names), ", ".join(names) + ": fit on all shadows, score the victim")
        for family, names in FAMILIES.items()
    },
}


def write_purchase_archive(folder: Path) -> None:
    """Purchase's archive with random records: the real reader takes any whose lines are valid."""
    entry, rng = grid.DATASETS["purchase"], np.random.default_rng(0)
    (folder / "purchase").mkdir()
    csv = folder / "purchase" / "dataset_purchase"
    with open(csv, "wb") as file:
        for start in range(0, entry.records, 10_000):
            n = min(10_000, entry.records - start)
            rows = np.full((n, 2 * entry.shape[0]), ord(","), np.uint8)
            rows[:, 1::2] = rng.integers(ord("0"), ord("1") + 1, (n, entry.shape[0]))
            labels = rng.integers(1, entry.classes + 1, n)
            file.writelines(b"%d%b\n" % (label, row.tobytes()) for label, row in zip(labels, rows, strict=True))
    with tarfile.open(folder / "purchase" / ARCHIVES["purchase"][0].name, "w:gz", compresslevel=1) as tar:
        tar.add(csv, csv.name)
    csv.unlink()


def peak(stage: str, dataset: str, folder: Path) -> int:
    """Peak resident bytes of a stage in a process of its own."""
    command = [sys.executable, __file__, stage, dataset, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: stage {stage} of {dataset} failed")
    return int(done.stdout.split()[-1])


def main() -> None:
    machine = ours.machine("cpu")
    rows = []
    for dataset, model in CELLS.items():
        entry = grid.DATASETS[dataset]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if dataset == "purchase":
                write_purchase_archive(folder)
            ours.write_generated(dataset, folder / "prepared.safetensors")
            for stage, (_, what) in STAGES.items():
                if stage == "prepare" and dataset != "purchase":
                    continue
                size = peak(stage, dataset, folder)
                under = "yes" if size < LIMIT else "**no**"
                rows.append(
                    f"| {dataset}/{model}, {entry.records} records | {stage} | {what} | {size / 1e9:.2f} | {under} |"
                )
                print(rows[-1], flush=True)
    text = f"""# Host memory of a Purchase- and an SVHN-sized cell

    python benchmarks/memory.py

{machine}.

Peak resident memory of each stage in a process of its own, on generated data, computed on the CPU: what would lie on a
GPU is counted too. GB are powers of ten.

| cell | stage | what was run | peak GB | under {LIMIT / 1e9:.0f} GB |
| --- | --- | --- | ---: | --- |
{chr(10).join(rows)}

All records are held as in the real job. Purchase's networks were run on all of them for one epoch. SVHN's ResNet-18
was trained on {BATCHES} batches of 128 and evaluated on at most {EVALUATION_BATCH} records a part, and queried on one
batch of {signals.BATCH}, as all takes hours on a CPU: batches and activations, which make the peak, are of the real
size, and the signals file was filled up to the real number of records. A neural attack's training was stopped after
{FIT_SECONDS} s of CPU time. SVHN's archive cannot be generated (its checksum is published), so its `prepare` was not
measured.
"""
    write_text(Path(__file__).with_suffix(".md"), text)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        torch.set_num_threads(1)
        job.keep_freed_memory()  # as the workflow's jobs do
        STAGES[sys.argv[1]][0](sys.argv[2], Path(sys.argv[3]))
        print(ours.resident("VmHWM"))
    else:
        main()
