"""The device that computes: what makes a step cheap on it, what keeps float32 exact, and its name."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Steps before the capture, in which cuDNN and the allocator settle."""


def name_of(device: torch.device) -> str:
    """The card's name, or "cpu" and what the rounding depends on: its instructions and, of several, the threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {torch.backends.cpu.get_cpu_capability()}" + (f", {threads} threads" if threads > 1 else "")


class Autocast(nn.Module):
    """A model that computes in bfloat16 what may be; weights, statistics and what it returns are float32.

    A training step of ResNet-18 takes an H100 2.2 ms so, 8.2 in float32 (as a CUDA graph; benchmarks/gpu.md).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            y: Tensor = self.model(x)
        return y.float()


def channels_last(model: nn.Module) -> None:
    """Lay out a built-in model's images and filters as its convolutions compute quickest; values are what they were.

    Other models stay as they are: in one that views its images as rows they would raise an error.
    A step of ResNet-18 in bfloat16 takes an H100 2.2 ms so, 3.4 otherwise. On two cores of an Intel Xeon `cnn` was
    evaluated 1.8 times as fast and trained 1.1 to 1.4 times, ResNet-18 1.2 and 1.03 times (docs/performance.md).
    """
    if getattr(model, "any_layout", False):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Captured:
    """A training step as CUDA graphs: a step of a small network is hundreds of launches, a replay is one.

    ResNet-18's takes an H100 2.2 ms as a graph, 10.2 launched kernel by kernel; SAMIA's of 10 classes 0.8 and 10.

    ``step`` takes a batch of record indices on the current GPU and must neither wait for it nor branch on its values.
    There is a graph for each size of batch, its last dimension; they share their memory.
    """

    def __init__(self, step: Callable[[Tensor], None]) -> None:
        self.step = step
        self.taken: Counter[int] = Counter()
        self.batches: dict[int, Tensor] = {}
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()  # one for warm-up and capture, as the allocator's blocks are a stream's

    def __call__(self, batch: Tensor) -> None:
        size = batch.shape[-1]
        if size not in self.batches:
            self.batches[size] = torch.empty_like(batch)
        held = self.batches[size].copy_(batch)
        if self.taken[size] < WARM_UP:
            current = torch.cuda.current_stream()
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream), warnings.catch_warnings():
                # torch's optimisers warn of a step that is not captured: the next ones are.
                warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
                self.step(held)
            current.wait_stream(self.stream)
        else:
            if size not in self.graphs:
                self.graphs[size] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graphs[size], self.pool, self.stream):  # records the step, does not take it
                    self.step(held)
            self.graphs[size].replay()
        self.taken[size] += 1


@contextmanager
def float32_exactly() -> Iterator[None]:
    """Until the block ends, float32 is float32 in products and convolutions, not TF32 with a mantissa of 10 bits.

    cuDNN then times its algorithms for each new shape and takes the quickest. In true float32 the one that it takes
    otherwise is slow: ResNet-18's forward passes took an H100 3 times as long, VGG-16's twice, and the search one to
    six seconds. In bfloat16 a search gained nothing.
    """
    cudnn = torch.backends.cudnn
    precision, tf32, searches = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32, cudnn.benchmark = False, True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32, cudnn.benchmark = tf32, searches


@contextmanager
def streams(count: int, device: torch.device) -> Iterator[Callable[[int], AbstractContextManager[object]]]:
    """``count`` streams beside the current one of a GPU: yields a context for each, within which its work is launched.

    They begin with what has been launched before, and what comes after the block waits for them. Of one stream, and on
    a CPU, there is nothing beside the current one.
    """
    if device.type != "cuda" or count == 1:
        yield lambda i: nullcontext()
        return
    current, others = torch.cuda.current_stream(device), [torch.cuda.Stream(device) for _ in range(count)]
    for stream in others:
        stream.wait_stream(current)
    try:
        yield lambda i: torch.cuda.stream(others[i])
    finally:
        for stream in others:
            current.wait_stream(stream)
