"""The grid at a glance: done, running, failed and missing per dataset and model, and the time left.

    python workflow/status.py [all|demo] [--config results_dir=results/seed_8 ...]

Reads what a run leaves behind and starts nothing: outputs, Snakemake's marks of outputs under way
(``.snakemake/incomplete``), logs and benchmark files. A job is

* running: Snakemake has started or submitted it, and has not heard of its end; it has begun once its log is newer than
  its mark;
* done: all its outputs are there (whether a changed parameter makes them stale, only ``snakemake -n`` knows);
* failed: its log is newer than its benchmark file, which Snakemake writes when a job succeeds. That is so for a job
  that raised an error and for one that was killed, by a signal, for its memory or for its time;
* missing: all else. Also what was under way when Snakemake itself was stopped: its marks stay, but nobody is alive.

The time left is the sum of what finished jobs of the same kind took by their benchmark files, on average. A job that
went on from a saved state counts there with its last attempt alone.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import math
import os
import re
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import configuration
from configuration import ConfigError

from miaprune import grid
from miaprune.grid import Attacked, GridError, Setting

UNKNOWN = "no finished job"
STATES = ("done", "running", "failed", "missing")
ATTEMPT = re.compile(r"[-\d]+ [:\d]+ started on ")
"""The line that every attempt at a job begins its log with."""
TAIL = 64 << 10
"""Bytes at the end of a log in which its error is looked for."""


@dataclass(frozen=True)
class Job:
    """One job of the workflow: its files below ``results_dir``."""

    victim: Setting
    adversary: str
    step: str
    """As its log and its benchmark file are called: train, prune, signals, attack_{family} or score."""
    outputs: tuple[str, ...]

    @property
    def stem(self) -> str:
        """Its log is logs/{stem}.log, its benchmark file benchmarks/{stem}.tsv."""
        return f"{grid.folder(self.victim, self.adversary)}/{self.step}"

    @property
    def kind(self) -> str:
        """What it does, whatever the model: jobs of a kind cost alike on the same dataset and model."""
        return f"prune {self.victim.defense or ''}".strip() if self.step == "prune" else self.step


@dataclass(frozen=True)
class Cell:
    """One victim and one adversary, with the jobs that make their results in the order they run."""

    victim: Setting
    adversary: str
    jobs: tuple[Job, ...]

    @property
    def column(self) -> str:
        if self.adversary != "matched":
            return "other adversaries"
        return "defended" if self.victim.defense else "undefended"


COLUMNS = ("undefended", "defended", "other adversaries")


def cells(attacked: Iterable[Attacked], attacks: Sequence[str]) -> list[Cell]:
    """The cells of a grid. A victim's own jobs, training or pruning and signals, are in its first cell."""
    found, seen = [], set()
    for victim, adversary in attacked:
        jobs = []
        if victim not in seen:
            seen.add(victim)
            checkpoints = tuple(f"{victim.path}/{role}.safetensors" for role in grid.ROLES)
            jobs.append(Job(victim, "matched", "train" if victim.pruner is None else "prune", checkpoints))
            jobs.append(Job(victim, "matched", "signals", (f"{victim.path}/signals.safetensors",)))
        folder = grid.folder(victim, adversary)
        steps = {f"attack_{family}": members for family, members in grid.ATTACK_FAMILIES.items()}
        for step, members in steps.items() if adversary == "matched" else [("score", grid.ATTACKS)]:
            outputs = tuple(f"{folder}/{attack}.json" for attack in members if attack in attacks)
            if outputs:
                jobs.append(Job(victim, adversary, step, outputs))
        found.append(Cell(victim, adversary, tuple(jobs)))
    return found


class Results:
    """What lies in a results folder, and in the ``.snakemake`` of the folder that Snakemake runs in."""

    def __init__(self, results_dir: str, directory: str | Path = ".") -> None:
        self.results_dir = results_dir
        self.root = Path(directory, results_dir)
        self.snakemake = Path(directory, ".snakemake")
        self._folders: dict[str, dict[str, os.DirEntry[str]]] = {}

    def entry(self, path: str) -> os.DirEntry[str] | None:
        """The directory entry of a file below ``results_dir``; each folder is listed once."""
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            try:
                with os.scandir(self.root / folder) as entries:
                    self._folders[folder] = {entry.name: entry for entry in entries}
            except OSError:
                self._folders[folder] = {}
        return self._folders[folder].get(name)

    def written(self, path: str) -> float:
        """When a file was last written, in seconds since the epoch; -inf if it is not there."""
        entry = self.entry(path)
        try:
            return -float("inf") if entry is None else entry.stat().st_mtime
        except OSError:  # gone since its folder was listed
            return -float("inf")

    @cached_property
    def marked(self) -> dict[str, float]:
        """Outputs below ``results_dir`` that Snakemake has marked as under way, and when (seconds since the epoch)."""
        top = self.snakemake / "incomplete"
        marked = {}
        for folder, _, names in os.walk(top):
            # A long name is cut into folders whose names start with @.
            start = "".join(part.removeprefix("@") for part in Path(folder).relative_to(top).parts)
            for name in names:
                try:
                    output = base64.urlsafe_b64decode(start + name).decode()
                except (binascii.Error, UnicodeDecodeError):
                    output = ""
                if output:  # else no mark of Snakemake's
                    with contextlib.suppress(OSError):  # gone by now
                        marked[os.path.relpath(output, self.results_dir)] = os.stat(Path(folder, name)).st_mtime
        return marked

    @cached_property
    def alive(self) -> bool:
        """Whether a Snakemake runs in the folder, by its locks. They outlive one that was killed, until --unlock."""
        return any((self.snakemake / "locks").glob("*.lock"))

    def under_way(self, job: Job) -> bool:
        return any(output in self.marked for output in job.outputs)

    def begun(self, job: Job) -> bool:
        """Whether a job that is under way computes; else it is queued, or waits for others of its submission."""
        return self.written(f"logs/{job.stem}.log") >= max(self.marked.get(output, -math.inf) for output in job.outputs)

    def state(self, job: Job) -> str:
        if self.under_way(job):
            return "running" if self.alive else "missing"
        if all(self.entry(output) for output in job.outputs):
            return "done"
        started, succeeded = self.written(f"logs/{job.stem}.log"), self.written(f"benchmarks/{job.stem}.tsv")
        return "failed" if started > succeeded else "missing"

    def error(self, job: Job) -> str:
        """The line of a failed job's log that says why, or that none does."""
        try:
            with open(self.root / f"logs/{job.stem}.log", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError as error:
            return f"its log cannot be read: {error.strerror}"
        # A log starts with earlier attempts (job); their errors are not this one's.
        last = max((i for i, line in enumerate(lines) if ATTEMPT.match(line)), default=-1)
        end = lines[last] if last >= 0 else "(empty)"
        lines = [line for line in lines[last + 1 :] if line.strip()]
        traced = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
        after = lines[traced[-1] + 1 :] if traced else [line for line in lines if line.startswith("error:")][-1:]
        said = next((line for line in after if not line[0].isspace()), None)
        if not said:
            end = lines[-1] if lines else end
            said = f"cancelled or killed (by a signal, for its memory or its time)? Its log ends: {end}"
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in said)  # it goes to a terminal

    def seconds(self, job: Job) -> float | None:
        """How long a finished job took, by its benchmark file; None if there is none, or it is damaged."""
        path = f"benchmarks/{job.stem}.tsv"
        if self.entry(path) is None:
            return None
        try:
            names, values = (line.split("\t") for line in (self.root / path).read_text().splitlines()[:2])
            seconds = float(dict(zip(names, values, strict=True))["s"])
            return seconds if 0 <= seconds < math.inf else None
        except (OSError, ValueError, KeyError):
            return None


def states(found: Sequence[Cell], results: Results) -> dict[Job, str]:
    """The state of every job. A checkpoint that was removed is not missed where all that needs it is done."""
    known = {job: results.state(job) for cell in found for job in cell.jobs}
    for cell in found:
        for job, following in zip(cell.jobs, cell.jobs[1:], strict=False):
            if job.step == "prune" and known[job] == "missing" and known[following] == "done":
                known[job] = "done"
    # The original's checkpoints are what its signals and every pruning start from.
    wanted = {
        job.victim.original
        for job, state in known.items()
        if state != "done" and (job.step == "prune" or (job.step == "signals" and job.victim.pruner is None))
    }
    for job, state in known.items():
        if job.step == "train" and state == "missing" and job.victim not in wanted:
            known[job] = "done"
    return known


def cell_state(cell: Cell, known: Mapping[Job, str]) -> str:
    """failed if one of its jobs is, else running if one is, else done if all are, else missing."""
    present = {known[job] for job in cell.jobs}
    return next(state for state in ("failed", "running", "missing", "done") if state in present)


class Estimate:
    """Seconds per job, by the mean of finished jobs of its kind: of its dataset and model, else of its dataset."""

    LEVELS = ("their dataset and model", "their dataset")

    def __init__(self, known: Mapping[Job, str], results: Results) -> None:
        left = {job.kind for job, state in known.items() if state != "done"}
        finished: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for job, state in known.items():
            if state == "done" and job.kind in left and (seconds := results.seconds(job)) is not None:
                for key in self._keys(job):
                    finished[key].append(seconds)
        self.mean = {key: fmean(values) for key, values in finished.items()}

    @staticmethod
    def _keys(job: Job) -> Iterator[tuple[str, ...]]:
        yield job.kind, job.victim.dataset, job.victim.model
        yield job.kind, job.victim.dataset

    def of(self, job: Job) -> tuple[float | None, str]:
        """Its seconds, and what they were estimated from; None where no such job has finished."""
        for key, level in zip(self._keys(job), self.LEVELS, strict=True):
            if key in self.mean:
                return self.mean[key], level
        return None, UNKNOWN


def duration(seconds: float) -> str:
    """In two digits, such as 45 s, 2.1 min, 12 h or 3.5 d."""
    for unit, size, least in (("d", 86400, 2), ("h", 3600, 1), ("min", 60, 1)):
        if seconds >= least * size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"


def left(jobs: Iterable[Job], estimate: Estimate) -> str:
    """The time that jobs need one after another: a sum, with + where some jobs' is unknown."""
    times = [estimate.of(job)[0] for job in jobs]
    sure = [time for time in times if time is not None]
    if not times:
        return "-"
    return "unknown" if not sure else duration(sum(sure)) + ("+" if len(sure) < len(times) else "")


def report(attacked: Iterable[Attacked], attacks: Sequence[str], results: Results) -> str:
    """The failed jobs, the table and the time left, as text."""
    found = cells(attacked, attacks)
    known = states(found, results)
    estimate = Estimate(known, results)
    unfinished = [job for job, state in known.items() if state != "done"]
    lines = []
    for job, state in known.items():
        if state == "failed":
            lines += [f"failed: {job.kind} of {job.stem.rpartition('/')[0]}", f"  {results.error(job)}"]
            lines += [f"  {results.results_dir}/logs/{job.stem}.log"]
    lines += ["", *table(found, known, estimate), ""]
    levels = Counter(estimate.of(job)[1] for job in unfinished)
    if unfinished:
        lines.append(f"{len(unfinished)} of {len(known)} jobs left: {left(unfinished, estimate)} one after another.")
        lines += [
            f"  {levels[level]} estimated from finished jobs of {level}" for level in estimate.LEVELS if levels[level]
        ]
        if levels[UNKNOWN]:
            lines.append(f"  {levels[UNKNOWN]} not estimated: no job of their kind has finished")
    else:
        lines.append(f"All {len(known)} jobs are done.")
    running = [cell for cell in found if cell_state(cell, known) == "running"]
    waiting = [c for c in running if not any(known[job] == "running" and results.begun(job) for job in c.jobs)]
    if waiting:
        lines.append(
            f"{len(waiting)} of the {len(running)} that run have not begun: queued, or behind others of a submission."
        )
    interrupted = sum(results.under_way(job) for job in unfinished)
    if interrupted and not results.alive:
        lines.append(
            f"{interrupted} {'job was' if interrupted == 1 else 'jobs were'} under way when Snakemake was stopped: the "
            "same command goes on from there. (On SLURM they may still run: squeue --me.)"
        )
    return "\n".join(lines).strip("\n")


def table(found: Sequence[Cell], known: Mapping[Job, str], estimate: Estimate) -> list[str]:
    """A line per dataset and model: settings by kind and state, and the time left."""
    counts: dict[tuple[str, str], Counter[tuple[str, str]]] = defaultdict(Counter)
    unfinished: dict[tuple[str, str], list[Job]] = defaultdict(list)
    for cell in found:
        pair = (cell.victim.dataset, cell.victim.model)
        counts[pair][cell.column, cell_state(cell, known)] += 1
        unfinished[pair] += [job for job in cell.jobs if known[job] != "done"]
    wide = max([13, *(len(dataset) + 1 for dataset, _ in counts)])
    columns = [column for column in COLUMNS if any(cell.column == column for cell in found)]

    def line(names: Sequence[str], count: Counter[tuple[str, str]], time: str) -> str:
        groups = ("".join(f"{count[column, state] or '.':>5}" for state in STATES) for column in columns)
        return f"{names[0]:<{wide}}{names[1]:<12}" + " |".join(groups) + f" |{time:>9}"

    groups = (f"{column:>20}" for column in columns)
    states = " |".join(" done  run fail miss" for _ in columns)
    every = [job for jobs in unfinished.values() for job in jobs]
    total = sum(counts.values(), Counter[tuple[str, str]]())
    return [
        " " * (wide + 12) + " |".join(groups) + " |",
        f"{'dataset':<{wide}}{'model':<12}{states} |{'left':>9}",
        *(line(pair, counts[pair], left(unfinished[pair], estimate)) for pair in counts),
        line(("total", ""), total, left(every, estimate)),
    ]


def read_config(directory: str, file: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration that Snakemake has there: config.yaml, what ``file`` and the ``--config`` entries change in it.

    Raises as `configuration.read`.
    """
    import yaml

    def load(path: Path) -> dict[str, Any]:
        try:
            loaded = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
        if not isinstance(loaded, dict):
            raise ConfigError(f"{path}: no mapping; write lines such as seed: 7")
        return loaded

    config = load(Path(__file__).parents[1] / "config.yaml")
    own = Path(directory, "config.yaml")
    if own.exists() or file or overrides:
        # Snakemake's own reading of them, so that paths are what the run wrote.
        from snakemake.cli import parse_config
        from snakemake.utils import update_config

        if own.exists():
            update_config(config, load(own))
        if file:
            update_config(config, load(Path(file)))
        try:
            update_config(config, parse_config(overrides))
        except ValueError as error:
            raise ConfigError(f"--config: {error}") from None
    configuration.read(config)
    return config


def main() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # piped into head, say
    parser = argparse.ArgumentParser(prog="python workflow/status.py", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("scope", nargs="?", choices=("all", "demo"), default="all", help="which grid (all)")
    parser.add_argument("--configfile", help="as the run's: it extends config.yaml")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as the run's")
    parser.add_argument("--directory", default=".", help="the folder that Snakemake runs in (.)")
    options = parser.parse_args()
    if not Path(options.directory).is_dir():
        parser.error(f"--directory: {options.directory} is no folder")
    try:
        config = read_config(options.directory, options.configfile, options.config)
        demo = config["demo"]
        settings = grid.settings(*demo["grid"]) if options.scope == "demo" else grid.settings(config)
        attacked = grid.attacked(settings, demo if options.scope == "demo" else config)
    except (ConfigError, GridError) as error:
        sys.exit(f"error: {error}")
    print(report(attacked, config["attacks"], Results(config["results_dir"], options.directory)))


if __name__ == "__main__":
    main()
