"""Defences applied in fine-tuning, each an objective that `miaprune.training.train` takes (method, section 9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from miaprune.pruning import masks
from miaprune.training import CrossEntropy

if TYPE_CHECKING:
    from miaprune.datasets import Dataset
    from miaprune.splits import Split


def pair_divergence(logits: Tensor) -> Tensor:
    """Mean KL(softmax of the second half ‖ softmax of the first half) over the batch's pairs of sorted logits.

    ``logits`` float [b, C]; each record's are sorted in descending order first, an odd last record is dropped.
    A batch without a pair has divergence 0.
    """
    pairs = len(logits) // 2
    if pairs == 0:
        return logits.sum() * 0
    log_p = F.log_softmax(logits.sort(dim=1, descending=True).values, dim=1)
    first, second = log_p[:pairs], log_p[pairs : 2 * pairs]
    return F.kl_div(first, second, reduction="batchmean", log_target=True)


class PairBalancing(CrossEntropy):
    """PPB, pair-based posterior balancing (Yuan and Zhang, USENIX Security 2022, section 6)."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y) + self.strength * pair_divergence(logits)


class AdversarialRegularisation(CrossEntropy):
    """The min-max game of Nasr et al. (CCS 2018): an inference model and the classifier take turns.

    Before each classifier step the inference model takes ``inference_steps`` steps, each on ``batch_size`` members
    (train) and as many non-members (dev); the classifier then minimises its cross-entropy minus ``strength``
    times the inference model's loss on the batch being called members.
    """

    def __init__(
        self, strength: float, data: Dataset, split: Split, inference_steps: int, batch_size: int, seed: int
    ) -> None:
        device = data.inputs.device
        self.strength, self.data, self.batch_size = strength, data, batch_size
        self.inference_steps = inference_steps
        self.generator = torch.Generator().manual_seed(seed)
        self.groups = [torch.from_numpy(index).to(device) for index in (split.dev, split.train)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inference = nn.Sequential(
                nn.Linear(2 * data.classes, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(),
                nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2),
            ).to(device)  # fmt: skip
        self.optimizer = torch.optim.Adam(self.inference.parameters(), lr=1e-3)

    def _membership_loss(self, logits: Tensor, y: Tensor, members: Tensor) -> Tensor:
        features = torch.cat([logits.softmax(1), F.one_hot(y, self.data.classes)], dim=1)
        return F.cross_entropy(self.inference(features), members)

    def _train_inference(self, model: nn.Module) -> None:
        model.eval()  # the classifier is only queried: no dropout drawn, no batch-norm statistics moved
        for _ in range(self.inference_steps):
            drawn = [
                group[torch.randint(len(group), (self.batch_size,), generator=self.generator).to(group.device)]
                for group in self.groups
            ]
            index = torch.cat(drawn)
            members = torch.arange(2, device=index.device).repeat_interleave(self.batch_size)
            with torch.no_grad():
                logits = model(self.data.batch(index))
            self.optimizer.zero_grad()
            self._membership_loss(logits, self.data.labels[index], members).backward()
            self.optimizer.step()
        model.train()

    def backward(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self._train_inference(model)
        logits = model(x)
        called_members = self._membership_loss(logits, y, torch.ones_like(y))
        (F.cross_entropy(logits, y) - self.strength * called_members).backward()


class DifferentialPrivacy:
    """DP-SGD (Abadi et al., CCS 2016): Poisson-sampled batches, per-record clipping, Gaussian noise.

    Batch norm stays at the original model's statistics, as a batch's statistics would mix its records. Pruned
    weights get neither gradient nor noise. ``chunk`` bounds how many per-record gradients are held at a time.
    """

    def __init__(self, noise_multiplier: float, clip: float, batch_size: int, delta: float, chunk: int, seed: int):
        self.noise_multiplier, self.clip, self.delta, self.chunk = noise_multiplier, clip, delta, chunk
        self.batch_size, self.seed, self.rate, self.steps = batch_size, seed, 0.0, 0
        self.noise_generator: torch.Generator | None = None

    def batches(self, index: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        self.rate = min(1.0, size / len(index))
        for _ in range(-(-len(index) // size)):
            yield index[(torch.rand(len(index), generator=generator) < self.rate).to(index.device)]

    def clipped_sum(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Sum over the batch of each record's gradient, scaled down to L2 norm ``clip`` where it is longer."""
        parameters = {name: p.detach() for name, p in model.named_parameters()}

        def record_loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

        per_record = vmap(grad(record_loss), in_dims=(None, 0, 0), randomness="different")
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for xs, ys in zip(x.split(self.chunk), y.split(self.chunk), strict=True):
            if len(xs) == 0:  # Poisson sampling can draw nobody: the step is then noise alone
                continue
            gradients = per_record(parameters, xs, ys)
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
            factors = (self.clip / norms.clamp(min=1e-12)).clamp(max=1.0)
            for name, g in gradients.items():
                total[name] += torch.einsum("n,n...->...", factors, g)
        return total

    def backward(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        if self.noise_generator is None:
            self.noise_generator = torch.Generator(x.device).manual_seed(self.seed)
        kept = masks(model)
        total = self.clipped_sum(model, x, y)
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=self.noise_generator, device=parameter.device)
            mask = kept.get(name.removesuffix("_orig"), torch.ones((), device=parameter.device))
            noisy = total[name] + self.noise_multiplier * self.clip * noise
            parameter.grad = noisy * mask / self.batch_size
        self.steps += 1

    def facts(self) -> dict[str, Any]:
        """What the steps taken so far guarantee, from Opacus' Renyi accountant."""
        return {
            "privacy": {
                "epsilon": epsilon(self.noise_multiplier, self.rate, self.steps, self.delta),
                "delta": self.delta,
                "steps": self.steps,
                "covers": "the fine-tuning alone: the original model was trained without privacy on the same records",
            }
        }


def epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """The epsilon of DP-SGD at ``delta`` after ``steps`` Poisson-sampled steps (Opacus, RDP accountant)."""
    from opacus.accountants import RDPAccountant  # its import costs seconds, and only `dp` needs it

    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return float(accountant.get_epsilon(delta))
