"""Defences applied in fine-tuning, each an objective that `miaprune.training.loop.train` takes (method, section 9)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from miaprune.catalog import DEFENSES
from miaprune.entries import known
from miaprune.grid import derive_seed
from miaprune.networks.models import initialise
from miaprune.networks.pruning import masks
from miaprune.training.objectives import CrossEntropy, Objective
from miaprune.training.resume import load_optimizer, optimizer_state, pack, unpack

if TYPE_CHECKING:
    from miaprune.data.datasets import Dataset
    from miaprune.data.splits import Split


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
    return (second.exp() * (second - first)).sum(dim=1).mean()


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

    by_loss = False  # it also trains an inference model

    def __init__(
        self,
        strength: float,
        data: Dataset,
        split: Split,
        inference_steps: int,
        inference_lr: float,
        batch_size: int,
        seed: int,
    ) -> None:
        device = data.inputs.device
        self.strength, self.data, self.batch_size = strength, data, batch_size
        self.inference_steps = inference_steps
        # A seed of its own: the plain one already gives the order of the batches.
        self.generator = torch.Generator().manual_seed(derive_seed(seed, "inference"))
        self.groups = [torch.from_numpy(index).to(device) for index in (split.dev, split.train)]
        with torch.random.fork_rng(devices=[]):  # constructing a layer draws throw-away weights
            inference = nn.Sequential(
                nn.Linear(2 * data.classes, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(),
                nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2),
            )  # fmt: skip
        self.inference = initialise(inference, self.generator).to(device)
        self.optimizer = torch.optim.Adam(self.inference.parameters(), inference_lr, fused=True)

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

    def state(self) -> dict[str, Tensor]:
        return pack(
            {
                "inference": self.inference.state_dict(),
                "optimizer": optimizer_state(self.optimizer),
                "draws": {"inference": self.generator.get_state()},
            }
        )

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.inference.load_state_dict(unpack(tensors, "inference"))
        load_optimizer(self.optimizer, unpack(tensors, "optimizer"))
        self.generator.set_state(tensors["draws/inference"])


class DifferentialPrivacy:
    """DP-SGD (Abadi et al., CCS 2016): Poisson-sampled batches, per-record clipping, Gaussian noise.

    Batch norm stays at the original model's statistics, as a batch's statistics would mix its records. Pruned
    weights get neither gradient nor noise. ``chunk`` bounds how many per-record gradients are held at a time.
    """

    by_loss = False  # it clips each record's gradient

    def __init__(self, strength: float, clip: float, delta: float, chunk: int, seed: int, data: Dataset) -> None:
        self.noise_multiplier, self.clip, self.delta, self.chunk = strength, clip, delta, chunk
        # A seed of its own: the plain one also draws the batches, and the noise must not depend on who is in them.
        self.noise_generator = torch.Generator(data.inputs.device).manual_seed(derive_seed(seed, "noise"))
        self.rate, self.expected_batch, self.steps = 0.0, 0, 0

    def batches(self, index: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        self.expected_batch = min(size, len(index))
        self.rate = self.expected_batch / len(index)
        for _ in range(-(-len(index) // size)):
            yield index[(torch.rand(len(index), generator=generator) < self.rate).to(index.device)]

    def clipped_sum(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Sum over the batch of each record's gradient, scaled down to L2 norm ``clip`` where it is longer."""
        parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

        def record_loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

        per_record = vmap(grad(record_loss), in_dims=(None, 0, 0), randomness="different")
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for xs, ys in zip(x.split(self.chunk), y.split(self.chunk), strict=True):
            if len(xs) == 0:  # Poisson sampling can draw nobody: the step is then noise alone
                continue
            gradients = per_record(parameters, xs, ys)
            norms = torch.stack([g.reshape(len(xs), -1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
            factors = (self.clip / norms.clamp(min=1e-12)).clamp(max=1.0)
            for name, g in gradients.items():
                total[name] += torch.einsum("n,n...->...", factors, g)
            del gradients, g  # else they are still held while the next chunk's are computed
        return total

    def backward(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                module.eval()
        kept = masks(model)
        total = self.clipped_sum(model, x, y)
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:  # a user's network may have frozen layers
                continue
            noise = torch.randn(parameter.shape, generator=self.noise_generator, device=parameter.device)
            mask = kept.get(name.removesuffix("_orig"), torch.ones((), device=parameter.device))
            # In place: the optimiser's fused kernel wants gradients laid out like their parameters.
            noisy = total[name].add_(noise, alpha=self.noise_multiplier * self.clip)
            parameter.grad = noisy.mul_(mask).div_(self.expected_batch)
        self.steps += 1

    def facts(self) -> dict[str, Any]:
        """What the steps taken so far guarantee a training record, from Opacus' Renyi accountant.

        All steps count, also those after the epoch whose weights are kept: they took part in choosing it.
        """
        return {
            "privacy": {
                "epsilon": epsilon(self.noise_multiplier, self.rate, self.steps, self.delta),
                "delta": self.delta,
                "steps": self.steps,
                "covers": "what the fine-tuning alone reveals of its training records; not the original model and the "
                "pruning of it (trained without privacy on the same records), not the dev records it is stopped by",
            }
        }

    def state(self) -> dict[str, Tensor]:
        # The rate too: a training that goes on may have no step left that sets it.
        rate = torch.tensor(self.rate, dtype=torch.float64)
        return {"noise": self.noise_generator.get_state(), "steps": torch.tensor(self.steps), "rate": rate}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.noise_generator.set_state(tensors["noise"])
        self.steps, self.rate = int(tensors["steps"]), float(tensors["rate"])


def epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """The epsilon of DP-SGD at ``delta`` after ``steps`` Poisson-sampled steps (Opacus, RDP accountant)."""
    from opacus.accountants import RDPAccountant  # its import costs seconds, and only `dp` needs it

    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return float(accountant.get_epsilon(delta))


def build(
    defense: str,
    strength: float,
    options: Mapping[str, Any],
    data: Dataset,
    split: Split,
    recipe: Mapping[str, Any],
    seed: int,
) -> Objective:
    """The objective of one of `miaprune.catalog.DEFENSES` for one fine-tuning run of ``recipe`` on ``split``.

    ``strength`` is λ of ppb, θ of adv and the noise multiplier σ of dp; ``options`` is the defence's block of
    ``defense_options`` in ``config.yaml``. An objective holds the state of its run, so it serves one run.
    """
    entry = DEFENSES[known("defense", defense, DEFENSES)]
    objective: Objective = entry.given(
        **{**recipe, **options, "strength": strength, "data": data, "split": split, "seed": seed}
    )
    if entry.extension:  # nobody knows whether it can be captured as a graph
        objective.by_loss = False
    return objective
