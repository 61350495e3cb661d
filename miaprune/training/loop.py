"""The one training loop: original models and fine-tuning after pruning alike (method, sections 4 and 5)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from miaprune.devices import Autocast, Captured, channels_last
from miaprune.networks.stack import Stack, unstack
from miaprune.training.objectives import Objective
from miaprune.training.resume import Slot, State, load_optimizer, optimizer_state, pack, unpack
from miaprune.training.stopping import span

if TYPE_CHECKING:
    from miaprune.data.datasets import Dataset
    from miaprune.data.splits import Split

ONE_SIDED = 1.645
"""Standard errors by which a model that learnt something is better on test than a constant answer (95 %, one-sided)."""

EVALUATION_BATCH = 2048
"""Records at a time: a GPU launches less often for the same work. What that gains has not been measured."""

Facts = dict[str, Any]
"""What a training says of a model."""

logger = logging.getLogger(__name__)


@torch.inference_mode()
def accuracies(
    model: nn.Module, data: Dataset, index: Tensor, between: Callable[[], None] = lambda: None
) -> list[float]:
    """Share of the records at ``index`` (int64 [n], or [k, n] for a `Stack`) that each model classifies correctly.

    ``between`` is called between batches.
    """
    model.eval()
    correct: list[Tensor] = []
    for batch in index.split(EVALUATION_BATCH, dim=-1):
        if correct:
            between()
        correct.append(model(inputs(data, batch)).argmax(-1) == data.labels[batch])
    shares: list[float] = torch.cat(correct, dim=-1).double().mean(-1).reshape(-1).tolist()
    return shares


def inputs(data: Dataset, index: Tensor) -> Tensor:
    """Normalised inputs of the records at ``index``, int64 of any shape, float32 [*index.shape, *input_shape]."""
    return data.batch(index.flatten()).view(*index.shape, *data.input_shape)


@dataclass
class Run:
    """A training under way: all that its next step depends on. Lists have an entry for each model of a stack."""

    model: nn.Module
    optimizer: torch.optim.Adam
    objective: Objective
    generators: list[torch.Generator]  # draw the batches
    device: torch.device
    epoch: int = 1
    step: int = 0  # steps taken in this epoch
    over: bool = False  # all epochs are done; what is left is to evaluate the best weights
    epoch_draws: list[Tensor] = field(default_factory=list)  # the generators' states at the epoch's start
    best_epoch: list[int] = field(default_factory=list)
    best_accuracy: list[float] = field(default_factory=list)
    best: list[dict[str, Tensor]] = field(default_factory=list)

    def state(self) -> State:
        if self.device.type == "cuda":  # it may be read on another stream than it is computed on
            torch.cuda.synchronize(self.device)
        draws = {"global": torch.get_rng_state(), **{f"epoch_{i}": t for i, t in enumerate(self.epoch_draws)}}
        if self.device.type == "cuda":
            draws["cuda"] = torch.cuda.get_rng_state(self.device)
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "objective": self.objective.state(),
            "draws": draws,
            "best": pack({str(i): best for i, best in enumerate(self.best)}),
        }
        names = ("epoch", "step", "over", "best_epoch", "best_accuracy")
        return State(pack(tensors), {name: getattr(self, name) for name in names})

    def load(self, state: State) -> None:
        self.model.load_state_dict(unpack(state.tensors, "model"))
        load_optimizer(self.optimizer, unpack(state.tensors, "optimizer"))
        self.objective.load_state(unpack(state.tensors, "objective"))
        draws, best = unpack(state.tensors, "draws"), unpack(state.tensors, "best")
        for i, generator in enumerate(self.generators):
            generator.set_state(draws[f"epoch_{i}"])
        torch.set_rng_state(draws["global"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(draws["cuda"], self.device)
        self.best = [unpack(best, str(i)) for i in range(len(self.best))]
        for name, number in state.numbers.items():
            setattr(self, name, number)

    def keep(self, dev_accuracies: Sequence[float], patience: int) -> None:
        """Keep the weights of the models that are better on dev than ever, unless their training has ended."""
        for i, (model, dev_accuracy) in enumerate(zip(unstack(self.model), dev_accuracies, strict=True)):
            if dev_accuracy > self.best_accuracy[i] and not self.ended(i, patience):
                self.best_epoch[i], self.best_accuracy[i] = self.epoch, dev_accuracy
                self.best[i] = {name: tensor.clone() for name, tensor in model.items()}

    def ended(self, i: int, patience: int) -> bool:
        """Whether model ``i`` stopped before this epoch."""
        return self.epoch - 1 - self.best_epoch[i] > patience


def train(
    models: Sequence[nn.Module],
    data: Dataset,
    splits: Sequence[Split],
    recipe: Mapping[str, Any],
    objective: Objective,
    seeds: Sequence[int],
    slot: Slot | None = None,
    names: Sequence[str] = (),
    more: int = 0,
) -> Generator[None, None, list[Facts]]:
    """Train models in place, early-stopped on dev accuracy; leave the best-dev weights in them.

    A generator that pauses after each step, for `in_turn` to run.

    Several models of one architecture are trained as one `Stack`, each on its split and with its seed as if alone
    but for dropout's draws; their splits must be of equal sizes and the objective ``by_loss``.

    ``recipe`` holds epochs, learning_rate, weight_decay, batch_size and patience: training stops once more than
    ``patience`` epochs in a row brought no better dev accuracy. On a GPU each step is one CUDA graph if the objective
    is ``by_loss``, and ``precision`` may be bfloat16, of the epochs' dev accuracies too (a network without
    convolutions, which waits for launches and not for products, stays in float32). With a ``slot`` the training can be
    interrupted: called again with the same arguments it goes on, and on a CPU, alone, ends with the same bytes as if it
    had not been.
    ``names`` are what the log calls the models; ``more`` is how many such models the job trains after these, for its
    time left.
    Returns for each model the epoch and the train, dev and test accuracies of the weights kept, in float32, and the
    share of the test records' most frequent class: with no more than that it has learnt nothing. Raises
    `miaprune.training.stopping.Stopped` if the ``slot``'s job is told to stop, once the state is saved.
    """
    device, together, patience = data.inputs.device, len(models) > 1, recipe["patience"]
    starts = [f"{name}: " for name in names] or [""] * len(models)
    model = Stack(models) if together else models[0]
    on_gpu = device.type == "cuda"
    # Before the first step: the fused kernel wants moments laid out like their parameters.
    if not together:
        channels_last(model)
    train_index = [torch.from_numpy(split.train).to(device) for split in splits]
    dev = torch.stack([torch.from_numpy(split.dev).to(device) for split in splits])
    dev = dev if together else dev[0]
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
        [torch.Generator().manual_seed(seed) for seed in seeds],
        device,
        best_epoch=[0] * len(models),
        best_accuracy=[-1.0] * len(models),
        best=[{}] * len(models),
    )
    mixed = on_gpu and recipe.get("precision") == "bfloat16" and objective.by_loss and convolves(model)
    forward = Autocast(model) if mixed else model

    def step(batch: Tensor) -> None:
        run.optimizer.zero_grad()
        objective.backward(forward, inputs(data, batch), data.labels[batch])
        run.optimizer.step()

    def between() -> None:  # batches of an evaluation, each up to half a minute of an image network on a CPU
        if slot and slot.states.due:
            slot.step(run.state)

    take_step = Captured(step) if captured([objective], device) else step
    epochs, started, steps = recipe["epochs"], time.perf_counter(), 0
    torch.manual_seed(seeds[0])  # dropout draws from the global generator
    saved = slot.load() if slot else None
    if saved and saved.finished:
        logger.info(f"{starts[0]}trained in an earlier attempt")
        for i, one in enumerate(models):
            one.load_state_dict(unpack(saved.tensors, str(i)))
        found: list[Facts] = saved.numbers["facts"]
        return found
    if saved:
        run.load(saved)
        logger.info(f"{starts[0]}resumes in epoch {run.epoch}, after step {run.step}")
    while not run.over:
        model.train()
        run.epoch_draws = [generator.get_state() for generator in run.generators]
        drawn = (
            objective.batches(i, recipe["batch_size"], g) for i, g in zip(train_index, run.generators, strict=True)
        )
        for batches in islice(zip(*drawn, strict=True), run.step, None):
            batch = torch.stack(batches) if together else batches[0]
            take_step(batch)
            run.step, steps = run.step + 1, steps + 1
            if slot:
                slot.step(run.state)
            yield
        dev_accuracies = accuracies(forward, data, dev, between)
        run.keep(dev_accuracies, patience)
        run.over = run.epoch == epochs or all(run.epoch - best > patience for best in run.best_epoch)
        if run.over or run.epoch <= 10 or run.epoch % max(1, epochs // 20) == 0:  # a screenful
            line = f"{starts[0]}epoch {run.epoch}/{epochs}: {_accuracy(dev_accuracies, run.best_accuracy)}"
            if steps:  # taken by this attempt
                pace = (time.perf_counter() - started) / steps * run.step
                records = sum(len(split.train) for split in splits)
                line += _speed(pace, records, 0 if run.over else epochs - run.epoch, more * epochs)
            logger.info(line)
        if not run.over:
            run.epoch, run.step = run.epoch + 1, 0
    run.optimizer.zero_grad()  # the job holds on to the models, and needs no gradients
    facts = [
        {"epoch": epoch, "epochs_run": min(run.epoch, epoch + patience + 1)}
        | _keep(one, data, split, best, between, start)
        | objective.facts()
        for one, split, best, epoch, start in zip(models, splits, run.best, run.best_epoch, starts, strict=True)
    ]
    if on_gpu:  # what it evaluated in would stay its stream's: 6 GB of ResNet-18, beside those of five others
        torch.cuda.empty_cache()
    if slot:
        slot.finish(State(pack({str(i): best for i, best in enumerate(run.best)}), {"facts": facts}, finished=True))
    return facts


def _keep(
    model: nn.Module, data: Dataset, split: Split, best: Mapping[str, Tensor], between: Callable[[], None], name: str
) -> Facts:
    """Put these weights into the model and `evaluate` it.

    Raises FloatingPointError if they are not finite: the training has diverged.
    """
    if not all(tensor.isfinite().all() for tensor in best.values()):
        raise FloatingPointError(
            f"{name}the training diverged: its weights are not finite; lower learning_rate in config.yaml"
        )
    model.load_state_dict(best)
    return evaluate(model, data, split, between, name)


def evaluate(
    model: nn.Module, data: Dataset, split: Split, between: Callable[[], None] = lambda: None, name: str = ""
) -> Facts:
    """A model's accuracies on its split, what a guess of one class would reach on test, and whether it learnt more.

    ``between`` is called between batches; ``name`` begins the warning about a model that learnt nothing.
    """
    parts = {part: torch.from_numpy(getattr(split, part)).to(data.inputs.device) for part in ("train", "dev", "test")}
    found = {f"{part}_accuracy": accuracies(model, data, index, between)[0] for part, index in parts.items()}
    labels = data.labels[parts["test"]]
    guess = (labels == labels.bincount().argmax()).double().mean().item()  # rounded as `accuracies` are
    noise = ONE_SIDED * (guess * (1 - guess) / len(labels)) ** 0.5
    learnt = found["test_accuracy"] > guess + noise
    if not learnt:
        logger.warning(f"{name}has learnt nothing: the most frequent class is {guess:.4f} ± {noise:.4f} of test")
    return found | {"majority_accuracy": guess, "learnt": learnt}


def captured(objectives: Iterable[Objective], device: torch.device) -> bool:
    """Whether each step of such trainings is one CUDA graph."""
    return device.type == "cuda" and all(each.by_loss for each in objectives)


def convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def _accuracy(now: Sequence[float], best: Sequence[float]) -> str:
    """The dev accuracies of an epoch, of several models their means."""
    mean = f"mean of {len(now)} models' " if len(now) > 1 else ""
    return f"{mean}dev accuracy {fmean(now):.4f}, best {fmean(best):.4f}"


def _speed(pace: float, records: int, left: int, after: int) -> str:
    """How fast it goes at ``pace`` seconds per epoch; the time of ``left`` epochs, and of other models' ``after``."""
    line = f"; {pace:.3g} s/epoch, {records / pace:.0f} records/s, at most {span(pace * left)} left"
    return f"{line}, {span(pace * (left + after))} with the other models" if after else line
