"""The plain baseline: one cell of the study as such research code is usually written, from the paper's method.

DataLoaders with worker processes, float32, one model after another, a pass over dev and test after every epoch, a
checkpoint at every epoch that improves; then each attack loads the victim and the shadows and queries them anew, the
thresholds are found by trying every value, and `samia` and `nn*` are trained by the paper's recipe with torch's own
transformer layer. Nothing is slowed down on purpose: records are normalised once, not in the workers; sensitivities
are measured only for the attack that uses them; the searches are vectorised inside.

Splits, initial weights and metrics are the library's, since both sides are to be given and asked the same. `blindmi`
has no counterpart here.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from miaprune import grid, metrics, signals
from miaprune.data import splits
from miaprune.data.datasets import Dataset
from miaprune.files import load_tensors, save_tensors
from miaprune.networks import models
from miaprune.signals import Signals, pool
from workflow.configuration import attack_options, training_recipe

WORKERS = min(4, os.cpu_count() or 1)
QUERY_BATCH = 128
FAMILIES = {family: attacks for family, attacks in grid.families().items() if family != "reference"}
"""Of attacks on signals: those with reference models take a second (benchmarks/references.py)."""
FAMILY = {attack: family for family, attacks in FAMILIES.items() for attack in attacks}
ATTACKS = tuple(attack for attack in FAMILY if attack != "blindmi")
SAMPLED_ROLES, SAMPLED_THRESHOLDS = 2, 10
"""Of a cell that is cut short: the models that are trained and queried, and one threshold tried of so many."""


@dataclass
class Cell:
    """What is run, and what came out: seconds by phase, accuracies with 95 % intervals."""

    data: Dataset
    model: str
    sparsity: float
    config: dict[str, Any]  # config.yaml
    folder: Path  # of the checkpoints
    device: str
    limit: int | None = None  # cuts the cell short: epochs at most of all that is trained; then ``attacked`` is needed
    attacked: Path | None = None  # the folder of the six models to attack, finalised, in place of the cell's own
    seconds: Counter[str] = field(default_factory=Counter)
    epochs: Counter[str] = field(default_factory=Counter)  # run, by phase, summed over models, or by neural attack
    last: Counter[str] = field(default_factory=Counter)  # seconds of the last epochs among them
    test_accuracy: dict[str, float] = field(default_factory=dict)  # of the victim, by variant
    attacks: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[str, ...]:
        """The models that are trained and queried."""
        return grid.ROLES if self.limit is None else grid.ROLES[:SAMPLED_ROLES]

    @property
    def times(self) -> int:
        """How many models each of them stands for."""
        return len(grid.ROLES) // len(self.roles)

    @contextmanager
    def timed(self, phase: str, times: int = 1) -> Iterator[None]:
        """Add the seconds of this block to the phase's, or so many ``times`` them."""
        started = time.perf_counter()
        yield
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.seconds[phase] += times * (time.perf_counter() - started)

    def at_most(self, epochs: int) -> int:
        return epochs if self.limit is None else min(epochs, self.limit)

    def path(self, variant: str, role: str) -> Path:
        return self.folder / variant / f"{role}.safetensors"


def loader(inputs: Tensor, labels: Tensor, batch: int, device: str, shuffle: bool = False) -> DataLoader:
    records = TensorDataset(inputs, labels)
    return DataLoader(
        records,
        batch,
        shuffle=shuffle,
        num_workers=WORKERS,
        persistent_workers=WORKERS > 0,
        pin_memory=device == "cuda",
    )


def part(data: Dataset, index: np.ndarray, batch: int, device: str, shuffle: bool = False) -> DataLoader:
    records = torch.from_numpy(index)
    return loader(data.batch(records), data.labels[records], batch, device, shuffle)


# --- models ----------------------------------------------------------------------------------------------------------


def network(name: str, data: Dataset, seed: int) -> nn.Module:
    """`fc` written out anew, as a stranger would; the convolutional ones are torchvision's."""
    if name != "fc":
        return models.build(name, data.input_shape, data.classes, seed)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(data.input_shape), 256), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(128, data.classes),
    )  # fmt: skip
    return models.initialise(model, torch.Generator().manual_seed(seed))


@torch.no_grad()
def test(model: nn.Module, batches: DataLoader, device: str) -> float:
    model.eval()
    correct = 0
    for x, y in batches:
        x, y = x.to(device), y.to(device)
        correct += (model(x).argmax(1) == y).sum().item()
    return correct / len(batches.dataset)


def train(
    model: nn.Module, data: Dataset, split: splits.Split, recipe: dict[str, Any], path: Path, device: str
) -> tuple[float, int, float]:
    """Train and keep the best-dev weights in ``path``.

    Returns their test accuracy, the number of epochs run, and the seconds of the last one.
    """
    batch = recipe["batch_size"]
    train_batches = part(data, split.train, batch, device, shuffle=True)
    dev_batches, test_batches = part(data, split.dev, batch, device), part(data, split.test, batch, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe["learning_rate"], weight_decay=recipe["weight_decay"])
    best_dev, best_test, best_epoch = -1.0, 0.0, 0
    for epoch in range(1, recipe["epochs"] + 1):
        started = time.perf_counter()
        model.train()
        for x, y in train_batches:
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        dev_accuracy, test_accuracy = test(model, dev_batches, device), test(model, test_batches, device)
        took = time.perf_counter() - started  # reading the accuracies has waited for the GPU
        if dev_accuracy > best_dev:
            best_dev, best_test, best_epoch = dev_accuracy, test_accuracy, epoch
            save_tensors(path, model.state_dict(), {})
        if epoch - best_epoch > recipe["patience"]:
            break
    return best_test, epoch, took


def prunable(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def load(cell: Cell, variant: str, role: str) -> nn.Module:
    model = network(cell.model, cell.data, seed=0)
    if variant != "original":
        for module in prunable(model):
            prune.identity(module, "weight")  # its checkpoint has weights and masks
    model.load_state_dict(load_tensors(cell.path(variant, role))[0])
    return model.to(cell.device)


def recipe_of(cell: Cell, stage: str) -> dict[str, Any]:
    recipe = training_recipe(cell.config, stage, cell.data.name)
    return recipe | {"epochs": cell.at_most(recipe["epochs"])}


def train_originals(cell: Cell) -> None:
    for i, role in enumerate(cell.roles):
        torch.manual_seed(cell.config["seeds"][0] + i)
        model = network(cell.model, cell.data, cell.config["seeds"][0] + i)
        fit_role(cell, model.to(cell.device), "original", role, recipe_of(cell, "training"))


def prune_and_finetune(cell: Cell, variant: str) -> None:
    for i, role in enumerate(cell.roles):
        torch.manual_seed(cell.config["seeds"][0] + i)
        model = load(cell, "original", role)
        for module in prunable(model):
            prune.l1_unstructured(module, "weight", amount=int(module.weight.numel() * cell.sparsity))
        fit_role(cell, model, variant, role, recipe_of(cell, "finetuning"))


def fit_role(cell: Cell, model: nn.Module, variant: str, role: str, recipe: dict[str, Any]) -> None:
    split = splits.of_role(role, len(cell.data), cell.config["seeds"][0])
    test_accuracy, epochs, took = train(model, cell.data, split, recipe, cell.path(variant, role), cell.device)
    phase = "originals" if variant == "original" else "pruned"
    cell.epochs[phase] += cell.times * epochs
    cell.last[phase] += cell.times * took
    if role == "victim":
        cell.test_accuracy[variant] = test_accuracy


# --- signals ---------------------------------------------------------------------------------------------------------


def attacked(cell: Cell, variant: str, role: str) -> nn.Module:
    if cell.attacked is None:
        return load(cell, variant, role)
    model = network(cell.model, cell.data, seed=0)
    model.load_state_dict(load_tensors(cell.attacked / f"{role}.safetensors")[0])
    return model.to(cell.device)


@torch.no_grad()
def query(cell: Cell, variant: str, role: str, with_sensitivity: bool) -> Signals:
    """A model's posteriors, and the sensitivities if they are wanted, of its members and non-members."""
    model, split = attacked(cell, variant, role).eval(), splits.of_role(role, len(cell.data), cell.config["seeds"][0])
    draws, epsilon = cell.config["signals"]["draws"], cell.config["signals"]["epsilon"]
    index = np.concatenate([split.train, split.test])
    posteriors, sensitivities = [], []
    torch.backends.cudnn.allow_tf32 = not with_sensitivity  # with it they would be rounding noise
    for x, _ in part(cell.data, index, QUERY_BATCH, cell.device):
        x = x.to(cell.device)
        p = model(x).softmax(1)
        change = torch.zeros_like(p)
        if with_sensitivity:
            for _ in range(draws):
                change += (model(x + epsilon * torch.randn_like(x)).softmax(1) - p).abs() / epsilon
        posteriors.append(p.cpu().numpy())
        sensitivities.append((change / draws).cpu().numpy())
    torch.backends.cudnn.allow_tf32 = True  # as it is by default
    members = np.arange(len(index)) < len(split.train)
    return Signals(np.concatenate(posteriors), np.concatenate(sensitivities), cell.data.labels[index].numpy(), members)


# --- attacks ---------------------------------------------------------------------------------------------------------


class Samia(nn.Module):
    """The paper's attack on [n, C, 3]: each class a token of posterior, sensitivity and one-hot label."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.2, "gelu", batch_first=True)
        self.norm = nn.BatchNorm1d(3 * classes)
        self.embed = nn.Linear(3, 64)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64 * classes, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.flatten(1)).view(x.shape)
        return self.head(self.encoder(F.gelu(self.embed(x))))


def mlp(inputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 512), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2),
    )  # fmt: skip


def features(attack: str, s: Signals) -> Tensor:
    one_hot = np.eye(s.classes, dtype=np.float32)[s.labels]
    found = {
        "samia": lambda: np.stack([s.posteriors, s.sensitivities, one_hot], axis=2),
        "nn": lambda: s.posteriors,
        "nn_top3": lambda: np.sort(s.posteriors, axis=1)[:, ::-1][:, :3].copy(),
        "nn_cls": lambda: np.concatenate([s.posteriors, one_hot], axis=1),
    }
    return torch.from_numpy(found[attack]())


def neural_attack(cell: Cell, attack: str, shadows: Signals, victim: Signals) -> np.ndarray:
    """Train on the shadows by the paper's recipe; returns the victim's scores, member logit minus non-member logit."""
    recipe = attack_options(cell.config, attack, "paper")
    epochs = cell.at_most(recipe["epochs"])
    torch.manual_seed(cell.config["seeds"][0])
    x, y = features(attack, shadows), torch.from_numpy(shadows.members).long()
    model = (Samia(shadows.classes) if attack == "samia" else mlp(x.shape[1])).to(cell.device)
    optimizer = torch.optim.SGD(
        model.parameters(), recipe["lr"], momentum=recipe["momentum"], weight_decay=recipe["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, recipe["milestones"], gamma=0.1)
    batches = loader(x, y, recipe["batch_size"], cell.device, shuffle=True)
    model.train()
    for _ in range(epochs):
        started = time.perf_counter()
        for inputs, members in batches:
            inputs, members = inputs.to(cell.device), members.to(cell.device)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), members).backward()
            optimizer.step()
        schedule.step()
        if cell.device == "cuda":
            torch.cuda.synchronize()
    cell.epochs[attack] += epochs
    cell.last[attack] += time.perf_counter() - started
    model.eval()
    x, y = features(attack, victim), torch.from_numpy(victim.members).long()
    with torch.no_grad():
        logits = torch.cat([model(inputs.to(cell.device)) for inputs, _ in loader(x, y, QUERY_BATCH, cell.device)])
    return (logits[:, 1] - logits[:, 0]).double().cpu().numpy()


def best_threshold(values: np.ndarray, members: np.ndarray, every: int = 1) -> float:
    """Try every value (or every tenth, ...) as a threshold and take the one of the best balanced accuracy."""
    best, best_accuracy = values[0], -1.0
    inside, outside = values[members], values[~members]
    for threshold in values[::every]:
        balanced = ((inside >= threshold).mean() + (outside < threshold).mean()) / 2
        if balanced > best_accuracy:
            best, best_accuracy = threshold, balanced
    return best


def value_of(attack: str, s: Signals) -> np.ndarray:
    """The number that a threshold attack compares, the larger the more like a member."""
    p, true = s.posteriors.astype(np.float64), np.arange(len(s))
    log = np.log(np.maximum(p, 1e-30))
    if attack == "top1_conf":
        return p.max(1)
    if attack in ("conf", "conf_global"):
        return p[true, s.labels]
    if attack == "xent":
        return (p * log).sum(1)
    modified = p * np.log(np.maximum(1 - p, 1e-30))
    modified[true, s.labels] = (1 - p[true, s.labels]) * log[true, s.labels]
    return modified.sum(1)


def threshold_attack(attack: str, shadows: Signals, victim: Signals, every: int = 1) -> np.ndarray:
    if attack == "corr":
        return np.where(victim.posteriors.argmax(1) == victim.labels, 1.0, -1.0)
    known, asked = value_of(attack, shadows), value_of(attack, victim)
    if attack in ("top1_conf", "conf_global"):
        return asked - best_threshold(known, shadows.members, every)
    scores = np.empty(len(victim))
    for label in range(shadows.classes):
        of_class = shadows.labels == label
        if not 0 < shadows.members[of_class].sum() < of_class.sum():
            of_class = np.ones(len(shadows), dtype=bool)  # a class without members or non-members: all records
        asked_here = victim.labels == label
        scores[asked_here] = asked[asked_here] - best_threshold(known[of_class], shadows.members[of_class], every)
    return scores


def signals_for(cell: Cell, variant: str, attack: str) -> list[Signals]:
    """The queries before an attack, of each model with noise for SAMIA and without for the others.

    Cut short, of two models and once without noise for all attacks that need none; the attack then reads our signals.
    """
    with_sensitivity = attack == "samia"
    if cell.limit is None:
        with cell.timed("signals"):
            return [query(cell, variant, role, with_sensitivity) for role in grid.ROLES]
    alike = 1 if with_sensitivity else len(ATTACKS) - 1
    if attack in ATTACKS[:2]:  # samia and the first of the others
        with cell.timed("signals", cell.times * alike):
            for role in cell.roles:
                query(cell, variant, role, with_sensitivity)
    assert cell.attacked
    return [signals.load(cell.attacked / "signals.safetensors", role) for role in grid.ROLES]


def run(cell: Cell) -> Cell:
    """Originals, pruned models, then each attack with its own queries; fills in the cell and returns it."""
    variant = f"l1_{cell.sparsity}"
    with cell.timed("originals", cell.times):
        train_originals(cell)
    with cell.timed("pruned", cell.times):
        prune_and_finetune(cell, variant)
    for attack in ATTACKS:
        victim, *shadows = signals_for(cell, variant, attack)
        pooled = pool(shadows)
        family, neural = FAMILY[attack], attack in grid.NEURAL_ATTACKS
        every = 1 if neural or cell.limit is None else SAMPLED_THRESHOLDS
        with cell.timed(family, every):
            scores = (
                neural_attack(cell, attack, pooled, victim)
                if neural
                else threshold_attack(attack, pooled, victim, every)
            )
        with cell.timed(family):
            interval = metrics.bootstrap_interval(scores, victim.members, cell.config["seeds"][0])
        cell.attacks[attack] = {"accuracy": metrics.accuracy(scores, victim.members), "accuracy_ci": interval}
    return cell
