"""Attacks that train a classifier of member against non-member on the shadows' signals.

SAMIA (Yuan and Zhang, USENIX Security 2022, section 5) and three attacks on posteriors alone: `nn` (Shokri et
al., S&P 2017), `nn_top3` (Salem et al., NDSS 2019) and `nn_cls` (posteriors and the true class).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miaprune.attacks.base import Attack, Fitted, Options
from miaprune.devices import Captured
from miaprune.networks.layers import Dropout, Linear
from miaprune.signals import Signals
from miaprune.training.optim import SGD, Adam, Optimizer, one_cycle

SCORE_BATCH = 1024


class EncoderLayer(nn.Module):
    """A post-norm transformer encoder layer, the same function as `torch.nn.TransformerEncoderLayer`.

    Written out for the sake of `Dropout`: the library's layer draws its masks itself.
    """

    def __init__(self, width: int, heads: int, feedforward: int, p: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.up, self.down = Linear(width, feedforward), Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(p, rng)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def attend(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), dim=-1)
        mixed = self.dropout(weights) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.attend(x)))
        feedforward = self.down(self.dropout(F.gelu(self.up(x))))
        return self.norm2(x + self.dropout(feedforward))


class Samia(nn.Module):
    """Self-attention over classes: each class is a token of posterior, sensitivity and one-hot label.

    Input float32 [n, 3, C], output logits [n, 2] (non-member, member).
    """

    def __init__(self, inputs: tuple[int, ...], rng: np.random.Generator) -> None:
        super().__init__()
        features, classes = inputs
        self.norm = nn.BatchNorm1d(features * classes)
        self.embed = Linear(features, 64)
        self.encoder = nn.Sequential(*(EncoderLayer(64, 4, 128, 0.2, rng) for _ in range(3)))
        self.head = nn.Sequential(Linear(64 * classes, 64), nn.ReLU(), Linear(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.flatten(1)).view(x.shape).transpose(1, 2)
        return self.head(self.encoder(F.gelu(self.embed(tokens))).flatten(1))


def mlp(inputs: tuple[int, ...], rng: np.random.Generator) -> nn.Module:
    """The 512-256-128-2 network of the `nn` attacks; input float32 [n, d]."""
    return nn.Sequential(
        Linear(inputs[0], 512), nn.ReLU(), Dropout(0.2, rng),
        Linear(512, 256), nn.ReLU(), Dropout(0.2, rng),
        Linear(256, 128), nn.ReLU(), Linear(128, 2),
    )  # fmt: skip


def _one_hot(s: Signals) -> np.ndarray:
    return np.eye(s.classes, dtype=np.float32)[s.labels]


def samia_features(s: Signals) -> np.ndarray:
    """Posterior, sensitivity and one-hot label of each class, float32 [n, 3, C]."""
    return np.stack([s.posteriors, s.sensitivities, _one_hot(s)], axis=1)


def nn_features(s: Signals) -> np.ndarray:
    """The posteriors, float32 [n, C]."""
    return s.posteriors


def nn_top3_features(s: Signals) -> np.ndarray:
    """The three largest posteriors, the largest first, float32 [n, 3]."""
    return -np.sort(-s.posteriors, axis=1)[:, :3]


def nn_cls_features(s: Signals) -> np.ndarray:
    """The posteriors and the one-hot label, float32 [n, 2C]."""
    return np.concatenate([s.posteriors, _one_hot(s)], axis=1)


def optimiser(parameters: Iterable[Tensor], recipe: Options) -> Optimizer:
    """The recipe's optimiser."""
    if recipe["optimizer"] == "sgd":
        return SGD(parameters, recipe["weight_decay"], recipe["momentum"])
    return Adam(parameters, recipe["weight_decay"], decoupled=True)


def epochs_of(recipe: Options, steps_per_epoch: int) -> int:
    """The recipe's epochs; more where they would be fewer than its ``least_steps``, as one cycle needs them."""
    return max(recipe["epochs"], -(-recipe.get("least_steps", 0) // steps_per_epoch))


def learning_rate(recipe: Options, step: int, steps_per_epoch: int) -> float:
    """At step 0, 1, ...: one cycle, or divided by 10 at each of the recipe's ``milestones`` (epochs)."""
    if recipe["optimizer"] == "sgd":
        return float(recipe["lr"]) * 0.1 ** sum(step >= m * steps_per_epoch for m in recipe["milestones"])
    return one_cycle(step, epochs_of(recipe, steps_per_epoch) * steps_per_epoch, recipe["lr"])


def fit(
    build: Callable[[tuple[int, ...], np.random.Generator], nn.Module],
    features: Callable[[Signals], np.ndarray],
    shadows: Signals,
    recipe: Options,
    seed: int,
    device: str,
) -> Fitted:
    """Train the attack's network on the pooled shadows and return its weights.

    An epoch's batches are of nearly equal size, the recipe's at most: a remainder of one record would be no batch for
    SAMIA's batch norm.
    """
    x = torch.from_numpy(features(shadows)).to(device)
    y = torch.from_numpy(shadows.members.astype(np.int64)).to(device)
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        model = build(tuple(x.shape[1:]), np.random.Generator(np.random.SFC64(seed))).to(device)
        batches = -(-len(x) // recipe["batch_size"])
        optimizer = optimiser(model.parameters(), recipe)
        rate = torch.zeros((), dtype=torch.float32 if x.is_cuda else torch.float64, device=device)

        def take(index: Tensor) -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step(rate if x.is_cuda else rate.item())

        take_step = Captured(take) if x.is_cuda else take
        model.train()
        for step in range(epochs_of(recipe, batches) * batches):
            if step % batches == 0:
                order = torch.randperm(len(x)).to(device).tensor_split(batches)
            rate.fill_(learning_rate(recipe, step, batches))
            take_step(order[step % batches])
    return {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}


def score(
    build: Callable[[tuple[int, ...], np.random.Generator], nn.Module],
    features: Callable[[Signals], np.ndarray],
    fitted: Fitted,
    victim: Signals,
    recipe: Options,
    seed: int,
    device: str,
) -> np.ndarray:
    """Logit of member minus logit of non-member, float64 [n]."""
    x = torch.from_numpy(features(victim)).to(device)
    model = build(tuple(x.shape[1:]), np.random.default_rng(seed)).to(device).eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in fitted.items()})
    with torch.inference_mode():
        logits = torch.cat([model(batch) for batch in x.split(SCORE_BATCH)]).double().cpu()
    return (logits[:, 1] - logits[:, 0]).numpy()


def _attack(
    build: Callable[[tuple[int, ...], np.random.Generator], nn.Module],
    features: Callable[[Signals], np.ndarray],
) -> Attack:
    return Attack(fit=partial(fit, build, features), score=partial(score, build, features))


ATTACKS = {
    "samia": _attack(Samia, samia_features),
    "nn": _attack(mlp, nn_features),
    "nn_top3": _attack(mlp, nn_top3_features),
    "nn_cls": _attack(mlp, nn_cls_features),
}
