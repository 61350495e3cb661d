"""Layers that compute what torch's own do, faster on a CPU; on a GPU they are torch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _OneDnnLinear(torch.autograd.Function):
    """x @ weight.T + bias by oneDNN, all three tensors float32 and on a CPU; x [n, inputs]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), gradient = ctx.saved_tensors, gradients[0]
        dx = _product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return dx, _product(x.t(), gradient.t()).t(), gradient.sum(0)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """`torch.nn.Linear` by oneDNN where the processor is a CPU.

    Torch multiplies float32 matrices with MKL, which takes no AVX-512 on AMD's processors: 250 against 110 GFLOP/s
    on one core of a Zen 5, forward and backward alike.
    """

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() and not is_functorch_wrapped_tensor(x)
        if not ONEDNN or not plain:
            return super().forward(x)
        y: Tensor = _OneDnnLinear.apply(x.reshape(-1, self.in_features), self.weight, self.bias)
        return y.view(*x.shape[:-1], self.out_features)


class Dropout(nn.Module):
    """Dropout whose random bits come from an explicit generator on a CPU, from the global one on a GPU.

    On a CPU the masks are cut from 64-bit words of NumPy's SFC64, four to a word: a decision costs 1 ns against
    the 12 ns of `torch.nn.functional.dropout`, which was the largest single cost of SAMIA's training step. The
    probability is rounded to 1/65536.
    """

    def __init__(self, p: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if x.is_cuda:
            return F.dropout(x, self.p)
        words = self.rng.integers(0, 2**64, size=-(-x.numel() // 4), dtype=np.uint64)
        kept = words.view(np.uint16)[: x.numel()] >= round(self.p * 65536)
        return x * torch.from_numpy(kept * np.float32(1 / (1 - self.p))).view(x.shape)
