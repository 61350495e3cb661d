"""The one training loop: original models and fine-tuning after pruning alike (method, sections 4 and 5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from miaprune.datasets import Dataset
    from miaprune.splits import Split

EVALUATION_BATCH = 2048


class Objective(Protocol):
    """What one training step minimises, and on which batches. Defences are objectives."""

    def batches(self, index: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """One epoch's batches of record indices, drawn from ``index`` (int64 [n])."""

    def backward(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        """Leave the batch's gradient in the parameters' ``.grad``; x float32 [b, ...], y int64 [b]."""

    def facts(self) -> dict[str, Any]:
        """What the checkpoint should say about this objective after training."""


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


@torch.inference_mode()
def logits(model: nn.Module, data: Dataset, index: Tensor) -> Tensor:
    """Eval-mode logits of the records at ``index``, float32 [n, C], in large batches."""
    model.eval()
    return torch.cat([model(data.batch(batch)) for batch in index.split(EVALUATION_BATCH)])


def accuracy(model: nn.Module, data: Dataset, index: Tensor) -> float:
    """Share of the records at ``index`` that the model classifies correctly."""
    return (logits(model, data, index).argmax(1) == data.labels[index]).double().mean().item()


def train(
    model: nn.Module,
    data: Dataset,
    split: Split,
    recipe: Mapping[str, Any],
    objective: Objective,
    seed: int,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train in place, early-stopped on dev accuracy; leave the best-dev weights in the model.

    ``recipe`` holds epochs, learning_rate, weight_decay, batch_size and patience: training stops once more than
    ``patience`` epochs in a row brought no better dev accuracy. Returns the epoch and the train, dev and test
    accuracies of the weights kept.
    """
    device = data.inputs.device
    index = {part: torch.from_numpy(getattr(split, part)).to(device) for part in ("train", "dev", "test")}
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe["learning_rate"], weight_decay=recipe["weight_decay"])
    generator = torch.Generator().manual_seed(seed)
    best: dict[str, Tensor] = {}
    best_epoch, best_accuracy, started = 0, -1.0, time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout draws from the global generator
        for epoch in range(1, recipe["epochs"] + 1):
            model.train()
            for batch in objective.batches(index["train"], recipe["batch_size"], generator):
                optimizer.zero_grad()
                objective.backward(model, data.batch(batch), data.labels[batch])
                optimizer.step()
            dev_accuracy = accuracy(model, data, index["dev"])
            if dev_accuracy > best_accuracy:
                best_epoch, best_accuracy = epoch, dev_accuracy
                best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            speed = (time.perf_counter() - started) / epoch
            log(f"epoch {epoch}/{recipe['epochs']}: dev accuracy {dev_accuracy:.4f}, {speed:.2f} s/epoch")
            if epoch - best_epoch > recipe["patience"]:
                break
    model.load_state_dict(best)
    kept = {f"{part}_accuracy": accuracy(model, data, index[part]) for part in ("train", "dev", "test")}
    return {"epoch": best_epoch, "epochs_run": epoch, **kept, **objective.facts()}
