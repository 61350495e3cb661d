"""The one training loop: original models and fine-tuning after pruning alike (method, sections 4 and 5)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miaprune.job import span
from miaprune.resume import Slot, State, load_optimizer_state, optimizer_state, pack, unpack

if TYPE_CHECKING:
    from miaprune.datasets import Dataset
    from miaprune.splits import Split

EVALUATION_BATCH = 2048

logger = logging.getLogger(__name__)


class Objective(Protocol):
    """What one training step minimises, and on which batches. Defences are objectives."""

    def batches(self, index: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """One epoch's batches of record indices, drawn from ``index`` (int64 [n])."""

    def backward(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        """Leave the batch's gradient in the parameters' ``.grad``; x float32 [b, ...], y int64 [b]."""

    def facts(self) -> dict[str, Any]:
        """What the checkpoint should say about this objective after training."""

    def state(self) -> dict[str, Tensor]:
        """All of this objective that changes from step to step, by name."""

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave; ``batches`` is then drawn again from the epoch's start, steps are not."""


class CrossEntropy:
    """The undefended objective: mean cross-entropy over shuffled batches."""

    def batches(self, index: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        order = torch.randperm(len(index), generator=generator).to(index.device)
        yield from index[order].split(size)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)

    def backward(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.loss(model(x), y).backward()

    def facts(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        pass


@torch.inference_mode()
def logits(model: nn.Module, data: Dataset, index: Tensor) -> Tensor:
    """Eval-mode logits of the records at ``index``, float32 [n, C], in large batches."""
    model.eval()
    return torch.cat([model(data.batch(batch)) for batch in index.split(EVALUATION_BATCH)])


def accuracy(model: nn.Module, data: Dataset, index: Tensor) -> float:
    """Share of the records at ``index`` that the model classifies correctly."""
    return (logits(model, data, index).argmax(1) == data.labels[index]).double().mean().item()


@dataclass
class Run:
    """A training under way: all that its next step depends on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    generator: torch.Generator  # draws the batches
    device: torch.device
    epoch: int = 1
    step: int = 0  # steps taken in this epoch
    epoch_draws: Tensor = field(default_factory=lambda: torch.empty(0))  # the generator's state at the epoch's start
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)

    def state(self) -> State:
        draws = {"epoch": self.epoch_draws, "global": torch.get_rng_state()}
        if self.device.type == "cuda":
            draws["cuda"] = torch.cuda.get_rng_state(self.device)
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "objective": self.objective.state(),
            "draws": draws,
            "best": self.best,
        }
        names = ("epoch", "step", "best_epoch", "best_accuracy")
        return State(pack(tensors), {name: getattr(self, name) for name in names})

    def load(self, state: State) -> None:
        self.model.load_state_dict(unpack(state.tensors, "model"))
        load_optimizer_state(self.optimizer, unpack(state.tensors, "optimizer"))
        self.objective.load_state(unpack(state.tensors, "objective"))
        draws = unpack(state.tensors, "draws")
        self.generator.set_state(draws["epoch"])
        torch.set_rng_state(draws["global"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(draws["cuda"], self.device)
        self.best = unpack(state.tensors, "best")
        for name, number in state.numbers.items():
            setattr(self, name, number)


def train(
    model: nn.Module,
    data: Dataset,
    split: Split,
    recipe: Mapping[str, Any],
    objective: Objective,
    seed: int,
    slot: Slot | None = None,
    more: int = 0,
) -> dict[str, Any]:
    """Train in place, early-stopped on dev accuracy; leave the best-dev weights in the model.

    ``recipe`` holds epochs, learning_rate, weight_decay, batch_size and patience: training stops once more than
    ``patience`` epochs in a row brought no better dev accuracy. With a ``slot`` the training can be interrupted:
    called again with the same arguments it goes on, and ends with the same weights as if it had not been. ``more``
    is how many such models the job trains after this one, for the log's time left. Returns the epoch and the train,
    dev and test accuracies of the weights kept.
    """
    device = data.inputs.device
    index = {part: torch.from_numpy(getattr(split, part)).to(device) for part in ("train", "dev", "test")}
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe["learning_rate"], weight_decay=recipe["weight_decay"])
    run = Run(model, optimizer, objective, torch.Generator().manual_seed(seed), device)
    epochs, started, steps = recipe["epochs"], time.perf_counter(), 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout draws from the global generator
        saved = slot.load() if slot else None
        if saved and saved.finished:
            model.load_state_dict(saved.tensors)
            logger.info("trained in an earlier attempt")
            return saved.numbers
        if saved:
            run.load(saved)
            logger.info(f"resumes in epoch {run.epoch}, after step {run.step}")
        while True:
            model.train()
            run.epoch_draws = run.generator.get_state()
            batches = objective.batches(index["train"], recipe["batch_size"], run.generator)
            for batch in islice(batches, run.step, None):
                optimizer.zero_grad()
                objective.backward(model, data.batch(batch), data.labels[batch])
                optimizer.step()
                run.step, steps = run.step + 1, steps + 1
                if slot:
                    slot.step(run.state)
            dev_accuracy = accuracy(model, data, index["dev"])
            if dev_accuracy > run.best_accuracy:
                run.best_epoch, run.best_accuracy = run.epoch, dev_accuracy
                run.best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            last = run.epoch == epochs or run.epoch - run.best_epoch > recipe["patience"]
            if last or run.epoch <= 10 or run.epoch % max(1, epochs // 20) == 0:  # a screenful
                line = f"epoch {run.epoch}/{epochs}: dev accuracy {dev_accuracy:.4f}, best {run.best_accuracy:.4f}"
                if steps:  # taken by this attempt
                    pace = (time.perf_counter() - started) / steps * run.step
                    line += _speed(pace, len(split.train), 0 if last else epochs - run.epoch, more * epochs)
                logger.info(line)
            if last:
                break
            run.epoch, run.step = run.epoch + 1, 0
    model.load_state_dict(run.best)
    kept = {f"{part}_accuracy": accuracy(model, data, index[part]) for part in ("train", "dev", "test")}
    facts = {"epoch": run.best_epoch, "epochs_run": run.epoch, **kept, **objective.facts()}
    if slot:
        slot.finish(State(run.best, dict(facts), finished=True))
    return facts


def _speed(pace: float, records: int, left: int, after: int) -> str:
    """How fast it goes at ``pace`` seconds per epoch; the time of ``left`` epochs, and of other models' ``after``."""
    line = f"; {pace:.3g} s/epoch, {records / pace:.0f} records/s, at most {span(pace * left)} left"
    return f"{line}, {span(pace * (left + after))} with the other models" if after else line
