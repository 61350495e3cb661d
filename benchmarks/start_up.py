"""What a job costs before it computes: interpreter, imports, opening the data; alone and as the workflow starts it.

    python benchmarks/start_up.py                        # digits; seconds

The workflow's jobs are forks of one process that has imported what they share (rules/run.smk). It ends when the run or
the submission does, so that its imports are paid once for all of its jobs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ours

from miaprune import grid
from miaprune.data import datasets
from miaprune.files import FileError

SHARED = ["miaprune.imports"]
RUNS = 5


def opened(path: Path) -> None:
    """All that a job does with its data before its first step."""
    datasets.load(path)


def alone(path: Path | None) -> None:
    """The same in a new interpreter; without data the imports alone."""
    code = f"import {', '.join(SHARED)}"
    if path:
        code += f"; from miaprune import datasets; datasets.load({str(path)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


def fork(forks: multiprocessing.context.ForkServerContext, path: Path) -> None:
    job = forks.Process(target=opened, args=(path,))
    job.start()
    job.join()
    if job.exitcode:
        sys.exit(f"error: a fork that opens {path} ended with {job.exitcode}")


def least(what: Callable[[], None]) -> float:
    """Wall-clock seconds of the quickest of `RUNS`, as the first may wait for the disk."""
    return min(ours.seconds_of(what)[0] for _ in range(RUNS))


def table(path: Path) -> list[str]:
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(SHARED)
    started = time.perf_counter()
    fork(forks, path)
    first = time.perf_counter() - started
    rows = {
        "an interpreter and the imports, nothing else": least(lambda: alone(None)),
        "a process of its own: interpreter, imports, data opened": least(lambda: alone(path)),
        "the first job of a run: the shared process, its imports, a fork, data opened": first,
        "each further job: a fork, data opened": least(lambda: fork(forks, path)),
    }
    return ["| what | s |", "| --- | ---: |", *(f"| {what} | {seconds:.2f} |" for what, seconds in rows.items())]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="digits", choices=grid.DATASETS)
    parser.add_argument("--data-dir", type=Path, default=ours.ROOT / "data")
    parser.add_argument("--out", type=Path, help="a Markdown file; default: none")
    options = parser.parse_args(arguments)
    try:
        path = ours.prepared(options.dataset, options.data_dir).resolve()
    except FileError as error:
        sys.exit(f"error: {error}")
    called = sys.argv[1:] if arguments is None else arguments
    title = f"Start-up of a job: {options.dataset}"
    ours.write_page(title, "start_up.py", called, ours.machine("cpu"), table(path), options.out)


if __name__ == "__main__":
    main()
