"""How far a grid is, by what its runs have left on disk: the jobs there are, and the state of each."""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from miaprune import grid
from miaprune.grid import Attacked, Setting

NEVER = -math.inf
"""When a file was written that is not there."""
ATTEMPT = re.compile(r"[-\d]+ [:\d]+ started on ")
"""The line that every attempt at a job begins its log with."""
TAIL = 64 << 10
"""Bytes at the end of a log in which its error is looked for."""


@dataclass(frozen=True)
class Job:
    """One job of the workflow."""

    victim: Setting
    adversary: str
    step: str
    """As its log and its benchmark file are called: train, prune, signals, attack_{family}, scores or score; those of
    further reference models are in references/{chunk}/: train, prune and margins."""
    outputs: tuple[str, ...]
    """Files below ``results_dir``."""

    @property
    def folder(self) -> str:
        """The folder below ``results_dir`` that its outputs are in."""
        return grid.folder(self.victim, self.adversary)

    @property
    def kind(self) -> str:
        """What it does, whatever the model: jobs of a kind cost alike on the same data set and model."""
        place, _, what = self.step.rpartition("/")
        how = self.victim.defense or self.victim.tuning
        what = f"prune {how}" if what == "prune" and how else what
        return f"{what} of references" if place else what


@dataclass(frozen=True)
class Cell:
    """One victim and one adversary, with the jobs that make their results in the order they run."""

    victim: Setting
    adversary: str
    jobs: tuple[Job, ...]


def cells(attacked: Iterable[Attacked], attacks: Sequence[str], references: int = grid.SHADOWS) -> list[Cell]:
    """The cells of a grid. A victim's own jobs, training or pruning and signals, are in its first cell.

    Those of the reference models beyond the shadows are in the matched adversary's, if an attack needs them.
    """
    chunks = grid.chunks(references) if any(grid.ATTACKS[attack].sees == "margins" for attack in attacks) else []
    found, seen = [], set()
    for victim, adversary in attacked:
        jobs, made = [], "train" if victim.variant == "original" else "prune"
        if victim not in seen:
            seen.add(victim)
            checkpoints = tuple(f"{victim.path}/{role}.safetensors" for role in grid.ROLES)
            jobs.append(Job(victim, "matched", made, checkpoints))
            measured = tuple(f"{victim.path}/{file}.safetensors" for file in ("signals", "margins"))
            jobs.append(Job(victim, "matched", "signals", measured))
        folder = grid.folder(victim, adversary)
        made_by = {
            family: tuple(f"{folder}/{attack}.json" for attack in members if attack in attacks)
            for family, members in grid.families().items()
        }
        scores = f"{folder}/scores.safetensors"
        if adversary == "matched":
            for place in (f"references/{chunk}" for chunk in chunks):
                for step, file in ((f"{place}/{made}", "models"), (f"{place}/margins", "margins")):
                    jobs.append(Job(victim, adversary, step, (f"{victim.path}/{place}/{file}.safetensors",)))
            jobs += [Job(victim, adversary, f"attack_{family}", files) for family, files in made_by.items() if files]
            jobs.append(Job(victim, adversary, "scores", (scores,)))
        else:
            jobs.append(Job(victim, adversary, "score", (*sum(made_by.values(), ()), scores)))
        found.append(Cell(victim, adversary, tuple(jobs)))
    return found


class Results:
    """What lies in a results folder, and in the ``.snakemake`` of the folder that Snakemake runs in."""

    def __init__(self, results_dir: str, directory: str | Path = ".") -> None:
        self.results_dir = results_dir
        self.root = Path(directory, results_dir)
        self.snakemake = Path(directory, ".snakemake")
        self._folders: dict[str, dict[str, float]] = {}

    @property
    def locked(self) -> bool:
        """Whether a Snakemake runs in the folder, or was killed there and not unlocked since."""
        return any((self.snakemake / "locks").glob("*.lock"))

    def written(self, path: str) -> float:
        """When a file below ``results_dir`` was last written, in seconds since the epoch; each folder is read once."""
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            try:
                with os.scandir(self.root / folder) as entries:
                    self._folders[folder] = {entry.name: entry.stat().st_mtime for entry in entries}
            except OSError:  # no such folder, or a file of it has just gone
                self._folders[folder] = {}
        return self._folders[folder].get(name, NEVER)

    def log(self, job: Job) -> str:
        """The job's log, below ``results_dir``."""
        return f"logs/{job.folder}/{job.step}.log"

    def benchmark(self, job: Job) -> str:
        """Snakemake's benchmark file of the job, written when it succeeds, below ``results_dir``."""
        return f"benchmarks/{job.folder}/{job.step}.tsv"

    def marked(self, job: Job) -> float:
        """When Snakemake started or submitted the job, whose outputs it marks as incomplete until their job ends."""
        name = base64.urlsafe_b64encode(f"{self.results_dir}/{job.outputs[0]}".encode()).decode()
        parts = [name[start : start + 254] for start in range(0, len(name), 254)]  # of the 255 a name may have
        try:
            mark = Path(self.snakemake, "incomplete", *(f"@{part}" for part in parts[:-1]), parts[-1])
            return mark.stat().st_mtime
        except OSError:
            return NEVER

    def begun(self, job: Job) -> bool:
        """Whether a marked job computes; else it is queued, or waits for others of its submission."""
        return self.written(self.log(job)) >= self.marked(job)

    def state(self, job: Job) -> str:
        """running, interrupted, done, failed or missing, by its own files alone."""
        if self.marked(job) > NEVER:
            return "running" if self.locked else "interrupted"
        if all(self.written(output) > NEVER for output in job.outputs):
            return "done"
        return "failed" if self.written(self.log(job)) > self.written(self.benchmark(job)) else "missing"

    def error(self, job: Job) -> str:
        """The line of a failed job's log that says why, or that none does."""
        with open(self.root / self.log(job), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        # A log starts with earlier attempts (job.logged); their errors are not this one's.
        lines = lines[max((i for i, line in enumerate(lines) if ATTEMPT.match(line)), default=0) :]
        traced = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
        after = lines[traced[-1] + 1 :] if traced else [line for line in lines if line.startswith("error:")][-1:]
        said = next((line for line in after if not line[0].isspace()), None)
        end = lines[-1] if lines else "(empty)"
        return said or f"cancelled or killed (by a signal, for its memory or its time)? Its log ends: {end}"

    def learnt_nothing(self, output: str) -> list[str]:
        """Which networks learnt nothing by a result's JSON, such as ["attack", "shadow_2"]."""
        try:
            text = (self.root / output).read_text()
            return json.loads(text)["failed"] if '"trained": false' in text else []
        except (OSError, ValueError, KeyError):
            return []

    def seconds(self, job: Job) -> float | None:
        """How long a finished job took, by its benchmark file; None if there is none, or it has no such number."""
        try:
            names, values = (
                line.split("\t") for line in (self.root / self.benchmark(job)).read_text().splitlines()[:2]
            )
            seconds = float(dict(zip(names, values, strict=True))["s"])
        except (OSError, ValueError, KeyError):
            return None
        return seconds if math.isfinite(seconds) else None


def states(found: Sequence[Cell], results: Results) -> dict[Job, str]:
    """The state of every job. Pruned models that were removed are not missed where their signals are there."""
    known = {job: results.state(job) for cell in found for job in cell.jobs}
    for cell in found:
        for job, following in zip(cell.jobs, cell.jobs[1:], strict=False):
            if job.step.endswith("prune") and known[job] == "missing" and known[following] == "done":
                known[job] = "done"
    return known


class Estimate:
    """Seconds per job: the mean of finished ones of its kind on its data set and model, else on its data set."""

    def __init__(self, known: Mapping[Job, str], results: Results) -> None:
        left = {job.kind for job, state in known.items() if state != "done"}
        finished: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for job, state in known.items():
            if state == "done" and job.kind in left and (seconds := results.seconds(job)) is not None:
                finished[job.kind, job.victim.dataset, job.victim.model].append(seconds)
                finished[job.kind, job.victim.dataset].append(seconds)
        self._mean = {key: fmean(values) for key, values in finished.items()}

    def of(self, job: Job) -> float | None:
        """None where no such job has finished."""
        by_dataset = self._mean.get((job.kind, job.victim.dataset))
        return self._mean.get((job.kind, job.victim.dataset, job.victim.model), by_dataset)
