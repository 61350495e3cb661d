"""The one training loop: original models and fine-tuning after pruning alike (method, sections 4 and 5)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from miaprune.devices import Autocast, Captured, channels_last
from miaprune.training.objectives import Objective
from miaprune.training.resume import Slot, State, load_optimizer, optimizer_state, pack, unpack
from miaprune.training.stopping import span

if TYPE_CHECKING:
    from miaprune.data.datasets import Dataset
    from miaprune.data.splits import Split

ONE_SIDED = 1.645
"""Standard errors by which a model that learnt something is better than a constant answer (95 %, one-sided)."""

EVALUATION_BATCH = 2048
"""Records at a time: a GPU launches less often for the same work. What that gains has not been measured."""

Facts = dict[str, Any]
"""What a training says of a model."""

logger = logging.getLogger(__name__)


@torch.inference_mode()
def accuracy(model: nn.Module, data: Dataset, index: Tensor, between: Callable[[], None] = lambda: None) -> float:
    """Share of the records at ``index`` (int64 [n]) that the model classifies correctly.

    ``between`` is called between batches.
    """
    model.eval()
    correct: list[Tensor] = []
    for batch in index.split(EVALUATION_BATCH):
        if correct:
            between()
        correct.append(model(data.batch(batch)).argmax(-1) == data.labels[batch])
    return torch.cat(correct).double().mean().item()


@dataclass
class Run:
    """A training under way: all that its next step depends on."""

    model: nn.Module
    optimizer: torch.optim.Adam
    objective: Objective
    generator: torch.Generator  # draws the batches
    device: torch.device
    epoch: int = 1
    step: int = 0  # steps taken in this epoch
    over: bool = False  # all epochs are done; what is left is to evaluate the best weights
    epoch_draws: Tensor = field(default_factory=torch.Tensor)  # the generator's state at the epoch's start
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)

    def state(self) -> State:
        if self.device.type == "cuda":  # it may be read on another stream than it is computed on
            torch.cuda.synchronize(self.device)
        draws = {"global": torch.get_rng_state(), "epoch": self.epoch_draws}
        if self.device.type == "cuda":
            draws["cuda"] = torch.cuda.get_rng_state(self.device)
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "objective": self.objective.state(),
            "draws": draws,
            "best": self.best,
        }
        names = ("epoch", "step", "over", "best_epoch", "best_accuracy")
        return State(pack(tensors), {name: getattr(self, name) for name in names})

    def load(self, state: State) -> None:
        self.model.load_state_dict(unpack(state.tensors, "model"))
        load_optimizer(self.optimizer, unpack(state.tensors, "optimizer"))
        self.objective.load_state(unpack(state.tensors, "objective"))
        draws = unpack(state.tensors, "draws")
        self.epoch_draws = draws["epoch"]
        self.generator.set_state(self.epoch_draws)
        torch.set_rng_state(draws["global"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(draws["cuda"], self.device)
        self.best = unpack(state.tensors, "best")
        for name, number in state.numbers.items():
            setattr(self, name, number)

    def keep(self, dev_accuracy: float) -> None:
        """Keep the weights if they are better on dev than ever."""
        if dev_accuracy > self.best_accuracy:
            self.best_epoch, self.best_accuracy = self.epoch, dev_accuracy
            self.best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def train(
    model: nn.Module,
    data: Dataset,
    split: Split,
    recipe: Mapping[str, Any],
    objective: Objective,
    seed: int,
    slot: Slot | None = None,
    name: str = "",
    more: int = 0,
) -> Generator[None, None, Facts]:
    """Train a model in place, early-stopped on dev accuracy; leave the best-dev weights in it.

    A generator that pauses after each step, for `in_turn` to run.

    ``recipe`` holds epochs, learning_rate, weight_decay, batch_size and patience: training stops once more than
    ``patience`` epochs in a row brought no better dev accuracy. On a GPU each step is one CUDA graph if the objective
    is ``by_loss``, and ``precision`` may be bfloat16, of the epochs' dev accuracies too (a network without
    convolutions, which waits for launches and not for products, stays in float32). With a ``slot`` the training can be
    interrupted: called again with the same arguments it goes on, and on a CPU, alone, ends with the same bytes as if it
    had not been.
    ``name`` is what the log calls the model; ``more`` is how many such models the job trains after it, for its time
    left.
    Returns the epoch and the train, dev and test accuracies of the weights kept, in float32, and the share of the test
    records' most frequent class; whether it has ``learnt`` is said as by `evaluate`. Raises
    `miaprune.training.stopping.Stopped` if the ``slot``'s job is told to stop, once the state is saved.
    """
    device, patience, start = data.inputs.device, recipe["patience"], f"{name}: " if name else ""
    on_gpu = device.type == "cuda"
    channels_last(model)  # before the first step: the fused kernel wants moments laid out like their parameters
    train_index, dev = (torch.from_numpy(part).to(device) for part in (split.train, split.dev))
    run = Run(
        model,
        torch.optim.Adam(
            model.parameters(),
            recipe["learning_rate"],
            weight_decay=recipe["weight_decay"],
            fused=True,
            capturable=captured([objective], device),
        ),
        objective,
        torch.Generator().manual_seed(seed),
        device,
    )
    mixed = on_gpu and recipe.get("precision") == "bfloat16" and objective.by_loss and convolves(model)
    forward = Autocast(model) if mixed else model

    def step(batch: Tensor) -> None:
        run.optimizer.zero_grad()
        objective.backward(forward, data.batch(batch), data.labels[batch])
        run.optimizer.step()

    def between() -> None:  # batches of an evaluation, each up to half a minute of an image network on a CPU
        if slot and slot.states.due:
            slot.step(run.state)

    take_step = Captured(step) if captured([objective], device) else step
    epochs, started, steps = recipe["epochs"], time.perf_counter(), 0
    torch.manual_seed(seed)  # dropout draws from the global generator
    saved = slot.load() if slot else None
    if saved and saved.finished:
        logger.info(f"{start}trained in an earlier attempt")
        model.load_state_dict(saved.tensors)
        found: Facts = saved.numbers["facts"]
        return found
    if saved:
        run.load(saved)
        logger.info(f"{start}resumes in epoch {run.epoch}, after step {run.step}")
    while not run.over:
        model.train()
        run.epoch_draws = run.generator.get_state()
        batches = objective.batches(train_index, recipe["batch_size"], run.generator)
        for batch in islice(batches, run.step, None):
            take_step(batch)
            run.step, steps = run.step + 1, steps + 1
            if slot:
                slot.step(run.state)
            yield
        dev_accuracy = accuracy(forward, data, dev, between)
        run.keep(dev_accuracy)
        run.over = run.epoch == epochs or run.epoch - run.best_epoch > patience
        if run.over or run.epoch <= 10 or run.epoch % max(1, epochs // 20) == 0:  # a screenful
            line = f"{start}epoch {run.epoch}/{epochs}: dev accuracy {dev_accuracy:.4f}, best {run.best_accuracy:.4f}"
            if steps:  # taken by this attempt
                pace = (time.perf_counter() - started) / steps * run.step
                line += _speed(pace, len(split.train), 0 if run.over else epochs - run.epoch, more * epochs)
            logger.info(line)
        if not run.over:
            run.epoch, run.step = run.epoch + 1, 0
    run.optimizer.zero_grad()  # the job holds on to the model, and needs no gradients
    if not all(tensor.isfinite().all() for tensor in run.best.values()):
        raise FloatingPointError(
            f"{start}the training diverged: its weights are not finite; lower learning_rate in config.yaml"
        )
    model.load_state_dict(run.best)
    facts = {"epoch": run.best_epoch, "epochs_run": run.epoch} | evaluate(model, data, split, between, start)
    facts |= objective.facts()
    if on_gpu:  # what it evaluated in would stay its stream's: 6 GB of ResNet-18, beside those of five others
        torch.cuda.empty_cache()
    if slot:
        slot.finish(State(run.best, {"facts": facts}, finished=True))
    return facts


def evaluate(
    model: nn.Module, data: Dataset, split: Split, between: Callable[[], None] = lambda: None, name: str = ""
) -> Facts:
    """A model's accuracies on its split, what a guess of one class would reach on test, and whether it learnt more.

    More on test or of its members: what it knows of them alone is what leaks. ``between`` is called between batches;
    ``name`` begins the warning about a model that learnt nothing.
    """
    parts = {part: torch.from_numpy(getattr(split, part)).to(data.inputs.device) for part in ("train", "dev", "test")}
    found = {f"{part}_accuracy": accuracy(model, data, index, between) for part, index in parts.items()}
    guesses = {part: _guess(data.labels[parts[part]]) for part in ("train", "test")}
    learnt = any(found[f"{part}_accuracy"] > guess + noise for part, (guess, noise) in guesses.items())
    guess, noise = guesses["test"]
    if not learnt:
        logger.warning(
            f"{name}has learnt nothing: neither of its members nor on test is it better than always saying one class, "
            f"{guess:.4f} ± {noise:.4f} of test"
        )
    return found | {"majority_accuracy": guess, "learnt": learnt}


def _guess(labels: torch.Tensor) -> tuple[float, float]:
    """The share of the most frequent class, and by how much an accuracy exceeds it by chance (`ONE_SIDED`)."""
    guess = (labels == labels.bincount().argmax()).double().mean().item()  # rounded as `accuracy` is
    return guess, ONE_SIDED * (guess * (1 - guess) / len(labels)) ** 0.5


def captured(objectives: Iterable[Objective], device: torch.device) -> bool:
    """Whether each step of such trainings is one CUDA graph."""
    return device.type == "cuda" and all(each.by_loss for each in objectives)


def convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def _speed(pace: float, records: int, left: int, after: int) -> str:
    """How fast it goes at ``pace`` seconds per epoch; the time of ``left`` epochs, and of other models' ``after``."""
    line = f"; {pace:.3g} s/epoch, {records / pace:.0f} records/s, at most {span(pace * left)} left"
    return f"{line}, {span(pace * (left + after))} with the other models" if after else line
