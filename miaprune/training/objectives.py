"""What a training step minimises (method, section 4); the defences, which are objectives too, are in `defenses`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Objective(Protocol):
    """What one training step minimises, and on which batches. Defences are objectives."""

    by_loss: bool
    """Whether all it does is to differentiate a loss of the logits. Then a step may be captured as a CUDA graph."""

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

    by_loss = True

    def batches(self, index: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        order = torch.randperm(len(index), generator=generator).to(index.device)
        batches = index[order].split(size)
        if len(batches) > 1 and len(batches[-1]) == 1:  # a batch norm takes no single record
            batches = (*batches[:-2], torch.cat(batches[-2:]))
        yield from batches

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
