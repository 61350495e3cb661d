"""The grid at a glance: done, running, failed and missing per data set and model, and the time left.

    python workflow/status.py [all|demo] [--directory DIR] [--configfile FILE ...] [--config KEY=VALUE ...]

Reads what runs have left behind and starts nothing. A job is

* running: Snakemake has started or submitted it, has not heard of its end, and has locked the folder;
* done: all its outputs are there (whether a changed parameter makes them stale, only ``snakemake -n`` knows);
* failed: its log is newer than its benchmark file, which Snakemake writes when a job succeeds. That is so for a job
  that raised an error and for one that was killed, by a signal, for its memory or for its time;
* missing: all else, and what was under way when Snakemake itself was stopped.

The time left is the sum of what finished jobs of the same kind took on average. A job that went on from a saved state
counts there with its last attempt alone.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import configuration
from configuration import ConfigError
from progress import Cell, Estimate, Job, Results, cells, states

from miaprune import grid
from miaprune.grid import Attacked, GridError

STATES = ("done", "running", "failed", "missing")
COLUMNS = ("undefended", "controls", "defended", "other adversaries")


def column(cell: Cell) -> str:
    """Which of `COLUMNS` a cell is counted in."""
    if cell.adversary != "matched":
        return "other adversaries"
    if grid.is_control(cell.victim):
        return "controls"
    return "defended" if cell.victim.defense else "undefended"


def state_of(cell: Cell, known: Mapping[Job, str]) -> str:
    """failed if one of its jobs is, else running if one is, else done if all are, else missing."""
    present = {known[job] for job in cell.jobs}
    return next(
        (state for state in ("failed", "running") if state in present), "done" if present == {"done"} else "missing"
    )


def duration(seconds: float) -> str:
    """In two digits, such as 45 s, 2.1 min, 12 h or 3.5 d."""
    for unit, size, least in (("d", 86400, 2), ("h", 3600, 1), ("min", 60, 1)):
        if seconds >= least * size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"


def left(jobs: Sequence[Job], estimate: Estimate) -> str:
    """The time that jobs need one after another: a sum, with + where some jobs' is unknown."""
    times = [time for job in jobs if (time := estimate.of(job)) is not None]
    if not jobs:
        return "-"
    return duration(sum(times)) + "+" * (len(times) < len(jobs)) if times else "unknown"


def report(
    attacked: Iterable[Attacked], attacks: Sequence[str], results: Results, references: int = grid.SHADOWS
) -> str:
    """The failed jobs, the table, the time left and what else to know, as text."""
    found = cells(attacked, attacks, references)
    known = states(found, results)
    estimate = Estimate(known, results)
    lines = []
    for job, state in known.items():
        if state == "failed":
            lines += [f"failed: {job.kind} of {job.folder}", f"  {results.error(job)}"]
            lines += [f"  {results.results_dir}/{results.log(job)}"]
    lines += ["", *table(found, known, estimate), ""]
    if unfinished := [job for job, state in known.items() if state != "done"]:
        lines.append(f"{len(unfinished)} of {len(known)} jobs left: {left(unfinished, estimate)} one after another.")
        if unknown := sum(estimate.of(job) is None for job in unfinished):
            lines.append(f"  Without {unknown} of which no job of their kind and data set has finished.")
    else:
        lines.append(f"All {len(known)} jobs are done.")
    nothing: dict[tuple[str, str], list[str]] = defaultdict(list)
    for output in (output for job, state in known.items() if state == "done" for output in job.outputs):
        if output.endswith(".json") and (networks := results.learnt_nothing(output)):
            folder, _, file = output.rpartition("/")
            nothing[", ".join(networks), folder].append(file.removesuffix(".json"))
    lines += [
        f"failed, because a network learnt nothing ({networks}): {results.results_dir}/{folder}/"
        f"{names[0] if len(names) == 1 else '{' + ','.join(names) + '}'}.json"
        for (networks, folder), names in nothing.items()
    ]
    return "\n".join([*lines, *notes(found, known, results)]).strip("\n")


def notes(found: Sequence[Cell], known: Mapping[Job, str], results: Results) -> list[str]:
    """What of the running settings waits, and what Snakemake's lock and marks may be left from."""
    said = []
    running = [cell for cell in found if state_of(cell, known) == "running"]
    waiting = [c for c in running if not any(known[job] == "running" and results.begun(job) for job in c.jobs)]
    if waiting:
        said.append(
            f"{len(waiting)} of the {len(running)} that run have not begun: queued, or behind others of a submission."
        )
    if results.locked:
        said.append(
            "Running is what the Snakemake that has locked this folder has under way. If it was killed (by -9, a power "
            "cut), nothing runs: snakemake --unlock, then the same command goes on from there."
        )
    elif interrupted := sum(state == "interrupted" for state in known.values()):
        said.append(
            f"{interrupted} {'job was' if interrupted == 1 else 'jobs were'} under way when Snakemake was stopped: the "
            "same command goes on from there. (On SLURM they may still run: squeue --me.)"
        )
    return said


def table(found: Sequence[Cell], known: Mapping[Job, str], estimate: Estimate) -> list[str]:
    """A line per data set and model: settings by kind and state, and the time left."""
    counts: dict[tuple[str, str], Counter[tuple[str, str]]] = defaultdict(Counter)
    unfinished: dict[tuple[str, str], list[Job]] = defaultdict(list)
    for cell in found:
        for row in ((cell.victim.dataset, cell.victim.model), ("total", "")):
            counts[row][column(cell), state_of(cell, known)] += 1
            unfinished[row] += [job for job in cell.jobs if known[job] != "done"]
    counts["total", ""] = counts.pop(("total", ""))  # last
    wide = max(13, *(len(dataset) + 1 for dataset, _ in counts))
    columns = [name for name in COLUMNS if any(column(cell) == name for cell in found)]
    lines = [
        " " * (wide + 12) + " |".join(f"{name:>20}" for name in columns) + " |",
        f"{'dataset':<{wide}}{'model':<12}" + " |".join(" done  run fail miss" for _ in columns) + f" |{'left':>9}",
    ]
    for row, count in counts.items():
        groups = ("".join(f"{count[name, state] or '.':>5}" for state in STATES) for name in columns)
        time = left(unfinished[row], estimate)
        lines.append(f"{row[0]:<{wide}}{row[1]:<12}" + " |".join(groups) + f" |{time:>9}")
    return lines


def read_config(directory: str, files: Sequence[str], overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of a run in ``directory`` with these ``--configfile`` and ``--config``, as Snakemake has it.

    Raises as `configuration.read`.
    """
    from snakemake.cli import parse_config
    from snakemake.common.configfile import load_configfile
    from snakemake.exceptions import WorkflowError
    from snakemake.utils import update_config

    config: dict[str, Any] = {}
    own = Path(directory, "config.yaml")
    try:
        for file in (*([own] if own.exists() else []), *files):
            update_config(config, load_configfile(str(file)))
        update_config(config, parse_config(overrides))
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read ({error.strerror})") from None
    except (ValueError, WorkflowError) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    with contextlib.chdir(directory):  # to which the paths in it are relative
        configuration.read(config)
    return config


def main() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # piped into head, say
    parser = argparse.ArgumentParser(prog="python workflow/status.py", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("scope", nargs="?", choices=("all", "demo"), default="all", help="which grid (all)")
    parser.add_argument("--directory", default=".", help="the folder that Snakemake runs in (.)")
    parser.add_argument("--configfile", nargs="+", default=[], help="as the run's: they extend config.yaml")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as the run's")
    parser.add_argument("--report-file", action="store_true", help="print where `make provenance` writes, no more")
    options = parser.parse_args()
    if not Path(options.directory).is_dir():
        parser.error(f"--directory: {options.directory} is no folder")
    try:
        config = read_config(options.directory, options.configfile, options.config)
        block, grids = (config, [config]) if options.scope == "all" else (config["demo"], config["demo"]["grid"])
        attacked = grid.attacked(grid.settings(*grids), block)
        if options.scope == "all":
            attacked = grid.over_seeds(attacked, config["seeds"])
    except (ConfigError, GridError) as error:
        sys.exit(f"error: {error}")
    if options.report_file:
        print(Path(config["results_dir"], *(["demo"] if options.scope == "demo" else []), "provenance.html"))
    else:
        results = Results(config["results_dir"], options.directory)
        print(report(attacked, config["attacks"], results, config["references"]))


if __name__ == "__main__":
    main()
