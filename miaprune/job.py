"""How a job runs on its machine: its log, its threads, its device."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch


@contextlib.contextmanager
def running(log: str | Path, threads: int = 1, device: str = "cpu") -> Iterator[torch.device]:
    """Send the job's output to ``log``, limit torch to ``threads`` and yield the device to compute on.

    ``device`` is auto (cuda if there is one), cpu or cuda. An error goes to the log in full, and to the
    terminal in one line.
    """
    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", buffering=1) as file:
        try:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield torch.device(device)
        except Exception as error:
            traceback.print_exc(file=file)
            sys.exit(f"error: {error} (details in {log})" if str(error) else f"error: {error!r} (details in {log})")
