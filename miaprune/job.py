"""How a job runs on its machine: its log, its threads, its device."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def logged(log: str | Path) -> Iterator[None]:
    """Send the job's output to ``log``; an error goes there in full, and to the terminal in one line."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", buffering=1) as file:
        try:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
        except Exception as error:
            traceback.print_exc(file=file)
            sys.exit(f"error: {str(error) or repr(error)} (details in {log})")


@contextlib.contextmanager
def running(log: str | Path, threads: int, device: str) -> Iterator[torch.device]:
    """`logged`, with torch limited to ``threads``; yields the device to compute on.

    ``device`` is auto (cuda if there is one), cpu or cuda.
    """
    with logged(log):
        import torch

        torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        yield torch.device(device)
