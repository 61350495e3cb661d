"""What a training job keeps on disk besides its outputs, so that it loses little when it is stopped and run again.

Snakemake removes the outputs of a failed job, and those of a whole group of jobs if one of them fails. So in a folder
of its own a job keeps a state of each model it trains, and at its end second names (hard links, which take no space
while the outputs are there) of its outputs. A job of a few minutes keeps nothing. Everything is written whole, with a
digest of it and of what it belongs to; whatever doesn't belong to the job that finds it is set aside, until that job
has finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miaprune.files import FileError, digest, load_tensors, save_tensors, whole, write_text
from miaprune.training.stopping import Stopped, on_stop

if TYPE_CHECKING:  # `forget_finished` is called by who has no need of torch
    from torch import Tensor
    from torch.optim import Optimizer


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


STATE = ".state.safetensors"
OUTPUTS = "outputs.json"
"""Lists a finished job's outputs, which stand beside it under their own names."""

UNFIT = ".unfit"
"""Ends the names of what was set aside."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """Where a model stands.

    Attributes
    ----------
    tensors : all that changes in training, by name; of a finished one the weights that are kept.
    numbers : what goes with them, JSON-serialisable; of a finished one the facts about it.
    finished : whether the training has ended.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    finished: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        numbers = json.dumps([self.numbers, self.finished], sort_keys=True).encode()
        return digest({**self.tensors, "numbers": np.frombuffer(numbers, np.uint8)})


class States:
    """What one training job keeps, and its obedience: a signal to stop waits until a state can be saved.

    Parameters
    ----------
    folder : holds what the job keeps, by the name of the model or output.
    every : seconds between saves.
    fits : all that the job's outputs depend on, JSON-serialisable: what was kept with other values is not used.
    goes_on : whether the job works on after the signal of this name: whoever sent it ends the job itself later.
    """

    def __init__(
        self,
        folder: str | Path,
        every: float,
        fits: Mapping[str, Any],
        goes_on: Callable[[str], bool] = lambda signal: False,
    ) -> None:
        self.folder, self.every, self.goes_on = Path(folder), every, goes_on
        self.fits: dict[str, Any] = json.loads(json.dumps(dict(fits)))
        self.told: str | None = None  # the signal to stop
        self._finished: dict[Path, State] = {}  # since the last save
        self._under_way: dict[Path, Callable[[], State]] = {}
        self._saved = time.monotonic()

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[States]:
        """Until the block ends, a signal to stop waits for the next `Slot.step` or `Slot.finish`."""

        def note(name: str) -> None:
            self.told = name

        with on_stop(note):
            yield self

    def slot(self, name: str) -> Slot:
        """The place of the model ``name``."""
        return Slot(self, self.folder / f"{name}{STATE}")

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self.told is not None or time.monotonic() - self._saved >= self.every

    def go_on(self, path: Path, state: Callable[[], State]) -> None:
        """Save ``state()`` of a model under way whenever one is saved."""
        self._under_way[path] = state

    def finish(self, path: Path, state: State) -> None:
        """Save a finished model's state when one is saved next."""
        self._under_way.pop(path, None)
        self._finished[path] = state

    def save(self) -> None:
        """Save the states of finished models and of all under way; then stop if told to.

        Raises
        ------
        Stopped : after a signal to stop, unless the job goes on.
        """
        failure = None
        # One after the other: each is a copy of a model and its moments.
        for path in [*self._finished, *self._under_way]:
            state = self._finished[path] if path in self._finished else self._under_way[path]()
            about = {"numbers": state.numbers, "finished": state.finished, "fits": self.fits}
            try:
                save_tensors(path, state.tensors, {**about, "digest": state.digest})
                self._finished.pop(path, None)
            except OSError as error:  # a full disk may have space again when the job needs it
                failure = f"state not saved ({error})"
                logger.warning(failure)
        self._saved = time.monotonic()
        told, self.told = self.told, None
        if told is not None:
            outcome = failure or f"state saved in {self.folder}"
            if not self.goes_on(told):
                raise Stopped(f"stopped by {told}, {outcome}")
            logger.info(f"{told}: {outcome}; going on until the job is ended")

    def keep(self, outputs: Sequence[str]) -> None:
        """Keep second names of the job's outputs in place of the states, now that they are written."""
        if any(self.folder.glob(f"*{STATE}")):  # else the job was too short to save one
            try:
                for output in outputs:
                    with whole(self.folder / Path(output).name) as temporary:
                        os.link(output, temporary)
                kept = {Path(output).name: file_digest(output) for output in outputs}
                write_text(self.folder / OUTPUTS, json.dumps({"fits": self.fits, "outputs": kept}, indent=1))
                _remove(self.folder, f"*{STATE}", f"*{UNFIT}")
                return
            except OSError as error:  # such as on a file system without hard links
                logger.info(f"no second names of the outputs kept: {error}")
        forget(self.folder)

    def put_back(self, outputs: Sequence[str]) -> bool:
        """Whether an earlier attempt of this job had finished; then its outputs are there again.

        Otherwise `Slot.load` looks at what it left.
        """
        if not (self.folder / OUTPUTS).exists():
            return False
        with self._setting_aside(self.folder / OUTPUTS):
            about = json.loads((self.folder / OUTPUTS).read_text())
            self._check(about)
            for output in outputs:
                if file_digest(self.folder / Path(output).name) != about["outputs"][Path(output).name]:
                    raise FileError(f"{Path(output).name} is damaged")
            for output in outputs:
                with whole(output) as temporary:
                    os.link(self.folder / Path(output).name, temporary)
                os.utime(output)
            logger.info(f"finished by an earlier attempt, whose outputs were kept in {self.folder}")
            return True
        return False

    def _check(self, about: Mapping[str, Any]) -> None:
        other = sorted(key for key, value in self.fits.items() if about["fits"].get(key) != value)
        if other:
            raise FileError(f"it was saved with other {', '.join(other)}")

    @contextlib.contextmanager
    def _setting_aside(self, path: Path) -> Iterator[None]:
        """Rename ``path`` out of the way and log why, if the block finds that it cannot be used."""
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            aside = path.with_name(path.name + UNFIT)
            logger.warning(f"{path} is not used and set aside as {aside.name}: {error}")
            with contextlib.suppress(OSError):  # then the next save replaces it
                os.replace(path, aside)


class Slot:
    """The place of one model among a job's states."""

    def __init__(self, states: States, path: Path) -> None:
        self.states, self.path = states, path

    def load(self) -> State | None:
        """The state that an earlier attempt left, if there is one and it belongs to this job.

        One that doesn't is renamed out of the way, and the log says why.
        """
        if self.path.exists():
            with self.states._setting_aside(self.path):
                tensors, about = load_tensors(self.path)
                self.states._check(about)
                state = State(tensors, about["numbers"], about["finished"])
                if about["digest"] != state.digest:
                    raise FileError("its values are damaged")
                return state
        return None

    def step(self, state: Callable[[], State]) -> None:
        """After a training step: save ``state()``, and the others', if it is time to; raises as `States.save`."""
        self.states.go_on(self.path, state)
        if self.states.due:
            self.states.save()

    def finish(self, state: State) -> None:
        """Keep a finished model's state, whose tensors must not change any more; raises as `States.save`."""
        self.states.finish(self.path, state)
        if self.states.due:
            self.states.save()


def forget(folder: Path) -> None:
    """Remove what a finished job keeps in its folder."""
    _remove(folder, OUTPUTS, "*.safetensors", f"*{UNFIT}", ".*.tmp")  # the last: what was being written at a kill -9
    with contextlib.suppress(OSError):  # not empty
        os.removedirs(folder)


def _remove(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def forget_finished(results_dir: str | Path) -> None:
    """Remove what jobs keep below ``{results_dir}/states`` whose outputs are there, or have served.

    To be called when all jobs have ended: until then, Snakemake removes the outputs of a group of jobs that fails.
    """
    root = Path(results_dir, "states")
    for kept in list(root.rglob(OUTPUTS)):
        with contextlib.suppress(OSError, ValueError, KeyError):
            outputs = Path(results_dir, kept.parent.relative_to(root))
            names = json.loads(kept.read_text())["outputs"]
            if (outputs / "margins.safetensors").exists() or all((outputs / name).exists() for name in names):
                forget(kept.parent)


def pack(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Named groups of tensors as one mapping, ``group/name``."""
    return {f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def unpack(tensors: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    """One of the groups that `pack` put together; empty if it was."""
    return {name.removeprefix(f"{group}/"): t for name, t in tensors.items() if name.startswith(f"{group}/")}


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimiser of torch's keeps of each parameter, ``index/name``; nothing before its first step."""
    return pack({str(i): kept for i, kept in optimizer.state_dict()["state"].items()})


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_state` gave, laid out like the parameters, as fused kernels demand."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        i: {name: (p.detach() if t.dim() else t).clone().copy_(t) for name, t in unpack(tensors, str(i)).items()}
        for i, p in enumerate(parameters)
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
