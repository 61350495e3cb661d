"""How a job of the workflow runs on its machine: its log, the signals that stop it, its threads, its device."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import itertools
import logging
import os
import platform
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

import miaprune
from miaprune.files import FileError
from miaprune.grid import GridError
from miaprune.training.stopping import STOP_SIGNALS, Stopped, on_stop, span

if TYPE_CHECKING:
    import torch

    from miaprune.training.resume import States

A_CARD = re.compile(r"\d|GPU-|MIG-")
"""How CUDA_VISIBLE_DEVICES begins where a job was given a GPU; else it is missing, empty, -1, NoDevFiles, none, ..."""

logger = logging.getLogger("miaprune")


class DeviceError(RuntimeError):
    """A GPU that cannot be used; the message is one line."""


def slurm_ends_it(name: str) -> bool:
    """Whether it is SLURM that tells the job to stop.

    It kills the job a while later, and better than the job fails by itself: SLURM requeues what it preempts, and a
    job that can end in that while does.
    """
    return name == "SIGTERM" and "SLURM_JOB_ID" in os.environ


def _stop(name: str) -> None:
    if slurm_ends_it(name):
        return
    for number in STOP_SIGNALS:  # once is enough: a second one must not interrupt the clearing up
        signal.signal(number, signal.SIG_IGN)
    raise Stopped(f"stopped by {name}")


def _keep_story(log: Path, unfinished: Path) -> None:
    """Let ``log`` start with what earlier attempts wrote that did not finish.

    Snakemake removes a log before it runs its job again; so until a job has finished, its log has a second name.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    log.unlink(missing_ok=True)
    try:
        os.link(unfinished, log)
    except OSError:  # a file system without hard links: this attempt's log alone
        unfinished.unlink(missing_ok=True)  # gone too if an earlier attempt finished just now


def _wait_for_earlier_attempt(log: IO[str]) -> None:
    """Hold a lock on the log until it is closed, and wait while an earlier attempt at this job has it.

    Such a one outlives its Snakemake, if that was killed, and would write the same files as this one.
    """
    with contextlib.suppress(OSError):  # a file system without locks
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.write(f"process {os.getpid()} waits: an earlier attempt still runs\n")
            fcntl.flock(log, fcntl.LOCK_EX)
            # If it finished, it took away the name that a next attempt finds.
            with contextlib.suppress(FileExistsError):
                os.link(log.name, f"{log.name}.unfinished")


@contextlib.contextmanager
def logged(log: str | Path) -> Iterator[None]:
    """Send the job's output to ``log``; an error goes there in full, and to the terminal in one line.

    Numerical libraries compute on one thread, so that the same job gives the same bytes on any number of cores. A job
    that is told to stop fails at once, in one line too, clearing up behind it; under SLURM see `slurm_ends_it`.
    """
    log = Path(log)
    unfinished, started = log.with_name(log.name + ".unfinished"), time.monotonic()
    _keep_story(log, unfinished)
    with open(log, "a", buffering=1) as file:
        _wait_for_earlier_attempt(file)
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
        level, propagate = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.propagate = False  # opacus gives the root logger a handler, which would write every line again
        slurm = f", SLURM job {os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""
        logger.info(f"started on {platform.node()}, process {os.getpid()}{slurm}")
        try:
            redirected = contextlib.redirect_stdout(file), contextlib.redirect_stderr(file)
            with on_stop(_stop), redirected[0], redirected[1], threadpool_limits(1):
                yield
            logger.info(f"finished after {span(time.monotonic() - started)}")
            unfinished.unlink(missing_ok=True)
        except Stopped as stop:
            logger.info(f"{stop} after {span(time.monotonic() - started)}")
            sys.exit(f"error: {stop} (details in {log})")
        except Exception as error:
            logger.info(f"failed after {span(time.monotonic() - started)}")
            with contextlib.suppress(OSError):  # a full disk, which may be the error itself
                whole = isinstance(error, FileError | GridError | DeviceError) and not error.__cause__
                if whole:  # its message says all; of what a user's code raised it does not
                    file.write(f"error: {error}\n")
                else:
                    traceback.print_exc(file=file)
            sys.exit(f"error: {str(error) or repr(error)} (details in {log})")
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


@contextlib.contextmanager
def card(names: Sequence[str], folder: Path) -> Iterator[int]:
    """Until the block ends, take a place on one of these cards; yields its index.

    Each card's first place is taken before any card's second. The places are locked files in ``folder``: the kernel
    gives a place back when its process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place, (index, name) in ((place, card) for place in itertools.count() for card in enumerate(names)):
        with open(folder / f"{name.replace('/', '_')}.{place}", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield index
            return


def keep_freed_memory() -> None:
    """Have the C library keep what tensors free, for the next ones, and not give it back to the system each time.

    Of SAMIA's training on a CPU, fresh pages were a quarter of the time; peak memory is the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 32 << 20)  # the most it takes
        mallopt(m_trim_threshold, 1 << 30)


@contextlib.contextmanager
def running(log: str | Path, threads: int, device: str) -> Iterator[torch.device]:
    """`logged`, with torch limited to ``threads``; yields the device to compute on.

    ``device`` is auto (cuda if there is one), cpu or cuda. Of several visible cards (a workstation's; SLURM shows a
    job its own) the job takes one, see `card`. Raises DeviceError if the job was given a card that torch cannot use:
    on a CPU it would take days.
    """
    with logged(log), contextlib.ExitStack() as stack:
        import torch

        from miaprune.devices import name_of

        keep_freed_memory()
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32 in convolutions too, unlike torch's default
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
            if device == "cpu" and A_CARD.match(given := os.environ.get("CUDA_VISIBLE_DEVICES", "")):
                raise DeviceError(
                    f"torch cannot use the GPU that this job was given (CUDA_VISIBLE_DEVICES={given}): is the driver "
                    "too old for torch's CUDA? To compute on the CPU unset it, or set device: cpu"
                )
        if device == "cuda" and (count := torch.cuda.device_count()) > 1:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = visible.split(",")[:count] if visible else [str(i) for i in range(count)]
            index = stack.enter_context(card(names, Path(tempfile.gettempdir(), f"miaprune-cards-{os.getuid()}")))
            torch.cuda.set_device(index)
            device = f"cuda:{index}"
        logger.info(f"computes on {name_of(torch.device(device))}")
        yield torch.device(device)


def states_of(
    config: Mapping[str, Any],
    place: str,
    params: Iterable[tuple[str, Any]],
    inputs: Iterable[str],
    device: torch.device,
    script: str,
) -> States:
    """What the job keeps whose ``script`` trains what lies in ``place`` with these parameters on these input files.

    The place is a folder below ``results_dir``.

    ``config.yaml`` says where and how often. That moves no number, so it is no parameter of a rule: changed, it
    re-runs nothing.
    """
    import torch

    from miaprune.training.resume import States, file_digest

    fits = {
        **dict(params),
        "setting": place,
        "inputs": [file_digest(path) for path in inputs],
        "device": device.type,
        "torch version": torch.__version__,
        "threads": torch.get_num_threads(),
        "code": _code_digest(script),
    }
    folder = Path(config["results_dir"], "states", place)
    return States(folder, config["save_state_every"], fits, goes_on=slurm_ends_it)


TRAINING_CODE = ("data", "networks", "training", "catalog.py", "entries.py", "devices.py", "files.py", "grid.py")
"""What decides, in miaprune/, what a training ends with: half of it by other code is nobody's result."""


def _code_digest(script: str) -> str:
    """SHA-256 of the code that a training job runs."""
    library = Path(miaprune.__file__).parent
    parts = [library / name for name in TRAINING_CODE]
    files = [file for part in parts for file in (sorted(part.glob("*.py")) if part.is_dir() else [part])]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in [*files, Path(script)])).hexdigest()
