"""Adam and SGD on torch's own kernels, without `torch.optim`'s classes.

Constructing one of those imports `torch._dynamo`: 1.1 s of CPU in every process that trains by itself, and in every
submission to a cluster. The functions below them do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class Optimizer(Protocol):
    """What changes parameters by their gradients."""

    def zero_grad(self) -> None:
        """Drop the gradients."""

    def step(self, lr: float | Tensor) -> None:
        """Take one step with this learning rate; a tensor, float32 on the parameters' GPU, may change in a graph."""

    def state(self) -> dict[str, Tensor]:
        """All that changes from step to step besides the parameters, ``index/name``."""

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""


class _Stateful:
    """Parameters, and per parameter named tensors: those of ``names``, zeros at first, and a step count."""

    def __init__(self, parameters: Iterable[Tensor], names: Sequence[str]) -> None:
        self.parameters = list(parameters)
        self.kept: dict[str, list[Tensor]] = {
            name: [torch.zeros_like(p, memory_format=torch.preserve_format) for p in self.parameters] for name in names
        }

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def gradients(self) -> list[Tensor]:
        return [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]

    def state(self) -> dict[str, Tensor]:
        return {f"{i}/{name}": t for name, tensors in self.kept.items() for i, t in enumerate(tensors)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        for name, kept in self.kept.items():
            for i, t in enumerate(kept):
                t.copy_(tensors[f"{i}/{name}"])


class Adam(_Stateful):
    """`torch.optim.Adam` with L2 weight decay, or AdamW where the decay is ``decoupled``; one fused kernel a step.

    Of Location's fc on a core of an Intel Xeon a step takes 0.25 ms, by `torch.optim.Adam` as it comes 0.69.
    """

    def __init__(self, parameters: Iterable[Tensor], weight_decay: float, decoupled: bool = False) -> None:
        super().__init__(parameters, ("exp_avg", "exp_avg_sq"))
        self.kept["step"] = [torch.zeros((), device=p.device) for p in self.parameters]
        self.weight_decay, self.decoupled = weight_decay, decoupled

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> None:
        adam(
            self.parameters, self.gradients(), self.kept["exp_avg"], self.kept["exp_avg_sq"], [], self.kept["step"],
            fused=True, decoupled_weight_decay=self.decoupled, amsgrad=False, beta1=0.9, beta2=0.999, lr=lr,
            weight_decay=self.weight_decay, eps=1e-8, maximize=False,
        )  # fmt: skip


class SGD(_Stateful):
    """`torch.optim.SGD` with L2 weight decay and momentum."""

    def __init__(self, parameters: Iterable[Tensor], weight_decay: float, momentum: float) -> None:
        super().__init__(parameters, ("momentum_buffer",))
        self.weight_decay, self.momentum = weight_decay, momentum

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> None:
        # A buffer of zeros equals none at all: torch's first step starts it with the gradient.
        momenta: list[Any] = self.kept["momentum_buffer"]
        rate: Any = lr  # sgd's annotations know floats alone, its kernels tensors too
        sgd(
            self.parameters, self.gradients(), momenta, fused=True, weight_decay=self.weight_decay,
            momentum=self.momentum, lr=rate, dampening=0.0, nesterov=False, maximize=False,
        )  # fmt: skip


def one_cycle(step: int, steps: int, peak: float, rise: float = 0.3) -> float:
    """The learning rate of step 0 .. steps - 1: up to ``peak`` by a cosine, then down to nearly nothing (Smith, 2018).

    As `torch.optim.lr_scheduler.OneCycleLR` has it: from peak / 25 over ``rise`` of the steps, down to peak / 250 000.
    """
    top = rise * steps - 1
    start, end, share = (
        (peak / 25, peak, step / top) if step <= top else (peak, peak / 25e4, (step - top) / (steps - 1 - top))
    )
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
