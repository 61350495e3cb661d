"""What makes a training step cheap on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Steps before the capture, in which cuDNN and the allocator settle."""


class Autocast(nn.Module):
    """A model that computes in bfloat16 what may be; weights, statistics and what it returns are float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            y: Tensor = self.model(x)
        return y.float()


class Captured:
    """A training step as one CUDA graph: a step of a small network is hundreds of launches, a replay is one.

    ``step`` takes a batch of record indices and must neither wait for the GPU nor branch on its values. Batches of
    another size than the first are stepped as they come.
    """

    def __init__(self, step: Callable[[Tensor], None]) -> None:
        self.step = step
        self.taken = 0
        self.batch: Tensor | None = None
        self.graph = torch.cuda.CUDAGraph()
        self.stream = torch.cuda.Stream()  # one for warm-up and capture: gradients stay bound to their first stream

    def __call__(self, batch: Tensor) -> None:
        if self.batch is None:
            self.batch = batch.clone()
        if batch.shape != self.batch.shape:
            self.step(batch)
            return
        self.batch.copy_(batch)
        if self.taken < WARM_UP:
            current = torch.cuda.current_stream()
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream):
                self.step(self.batch)
            current.wait_stream(self.stream)
        else:
            if self.taken == WARM_UP:
                with torch.cuda.graph(self.graph, stream=self.stream):  # records the step, does not take it
                    self.step(self.batch)
            self.graph.replay()
        self.taken += 1
