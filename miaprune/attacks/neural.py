"""Attacks that train a classifier of member against non-member on the shadows' signals.

SAMIA (Yuan and Zhang, USENIX Security 2022, section 5) and three attacks on posteriors alone: `nn` (Shokri et
al., S&P 2017), `nn_top3` (Salem et al., NDSS 2019) and `nn_cls` (posteriors and the true class).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from miaprune import metrics
from miaprune.attacks import checks
from miaprune.attacks.base import MARKS, Attack, Fitted, Options
from miaprune.attacks.networks import Samia, mlp
from miaprune.devices import Captured
from miaprune.grid import derive_seed
from miaprune.signals import Signals

SCORE_BATCH = 1024
"""Records that are scored at a time; of more than 100 classes fewer, as SAMIA's attention grows with their square."""

WIDE = 640
"""AdamW's rate of a weight matrix with more inputs than this is lower by as much: SAMIA's head has 64 for each class.

Adam moves all weights of a unit by the rate, so that the unit's input moves by the rate times their number: at 100
classes and 1e-3 a few steps killed every unit of SAMIA's head (benchmarks/attack_training.md).
"""

MANY = 80
"""Of more classes than this a recipe's ``least_steps`` are more in proportion: SAMIA's head has weights for each class.

At 200 classes, a strong leak and 27 000 records 422 steps fell short of a threshold by more than the check allows, 844
did not (benchmarks/attack_training.md).
"""

REFITS = 3
"""How often a network that learnt nothing is fitted anew, with other draws and for longer (`epochs_of`)."""

Build = Callable[[tuple[int, ...]], nn.Module]
Features = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From records' posteriors and sensitivities, float32 [n, C], and labels, int64 [n], to what a network sees of them."""
Inputs = Callable[[Tensor], Tensor]
"""What a network sees of the records with these indices: made for a batch, as for all it would be larger than they."""

logger = logging.getLogger(__name__)


def _one_hot(posteriors: Tensor, labels: Tensor) -> Tensor:
    return torch.zeros_like(posteriors).scatter_(1, labels[:, None], 1.0)


def samia_features(posteriors: Tensor, sensitivities: Tensor, labels: Tensor) -> Tensor:
    """Posterior, sensitivity and one-hot label of each class, float32 [n, 3, C]."""
    return torch.stack([posteriors, sensitivities, _one_hot(posteriors, labels)], dim=1)


def nn_features(posteriors: Tensor, sensitivities: Tensor, labels: Tensor) -> Tensor:
    """The posteriors, float32 [n, C]."""
    return posteriors


def nn_top3_features(posteriors: Tensor, sensitivities: Tensor, labels: Tensor) -> Tensor:
    """The three largest posteriors, the largest first, float32 [n, 3]; of two classes two."""
    return posteriors.topk(min(3, posteriors.shape[1])).values


def nn_cls_features(posteriors: Tensor, sensitivities: Tensor, labels: Tensor) -> Tensor:
    """The posteriors and the one-hot label, float32 [n, 2C]."""
    return torch.cat([posteriors, _one_hot(posteriors, labels)], dim=1)


def inputs_of(features: Features, signals: Signals, device: str) -> Inputs:
    """What a network sees of these records, made from their signals on ``device``."""
    held = [torch.from_numpy(array).to(device) for array in (signals.posteriors, signals.sensitivities, signals.labels)]
    return lambda index: features(*(tensor[index] for tensor in held))


def optimiser(model: nn.Module, recipe: Options, on_gpu: bool = False) -> Optimizer:
    """The recipe's optimiser; AdamW's rate is lower for wide matrices (see `WIDE`)."""
    lr, decay = recipe["lr"], recipe["weight_decay"]
    if recipe["optimizer"] == "sgd":
        return SGD(model.parameters(), lr, recipe["momentum"], weight_decay=decay, fused=True)
    by_share: dict[float, list[Tensor]] = {}
    for p in model.parameters():
        by_share.setdefault(min(1.0, WIDE / p.shape[1]) if p.dim() == 2 else 1.0, []).append(p)
    groups = [{"params": group, "lr": lr * share} for share, group in by_share.items()]
    return AdamW(groups, weight_decay=decay, fused=True, capturable=on_gpu)


def epochs_of(recipe: Options, steps_per_epoch: int, classes: int, attempt: int = 0) -> int:
    """The recipe's epochs, or as many as its ``least_steps`` need for signals of so many classes (see `MANY`).

    One cycle takes twice as many with each attempt (from 0). Of models that know their members by heart `nn` sees
    posteriors so near to 0 and 1 that it needs more steps than are good for it elsewhere, where it learns its shadows
    by heart (benchmarks/attack_training.md). The paper's recipe stays as it is.
    """
    times = 1 if recipe["optimizer"] == "sgd" else 2**attempt
    least = recipe.get("least_steps", 0) * max(classes, MANY) // MANY
    return max(times * recipe["epochs"], -(-times * least // steps_per_epoch))


def schedule(optimizer: Optimizer, recipe: Options, steps_per_epoch: int) -> LRScheduler:
    """One cycle, or a tenth of the rate from each of the recipe's ``milestones`` (epochs) on."""
    if recipe["optimizer"] == "sgd":
        return MultiStepLR(optimizer, [m * steps_per_epoch for m in recipe["milestones"]])
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, peaks, total_steps=recipe["epochs"] * steps_per_epoch, cycle_momentum=False)


def train(build: Build, inputs: Inputs, y: Tensor, recipe: Options, seed: int) -> nn.Module:
    """A network trained to tell members from ``inputs``; y int64 [n] (1: member) on the device that computes.

    An epoch's batches are of nearly equal size, the recipe's at most: a remainder of one record would be no batch for
    SAMIA's batch norm.
    """
    with torch.random.fork_rng(devices=[y.device] if y.is_cuda else []):
        torch.manual_seed(seed)
        model = _build(build, inputs, y.device)
        batches = -(-len(y) // recipe["batch_size"])
        optimizer = optimiser(model, recipe, on_gpu=y.is_cuda)
        rates = schedule(optimizer, recipe, batches)
        if y.is_cuda:  # a captured step reads its rates from the card
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=y.device)

        def take(index: Tensor) -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs(index)), y[index]).backward()
            optimizer.step()

        take_step = Captured(take) if y.is_cuda else take
        model.train()
        for step in range(recipe["epochs"] * batches):
            if step % batches == 0:
                order = torch.randperm(len(y)).to(y.device).tensor_split(batches)
            if step:
                rates.step()
            take_step(order[step % batches])
    return model.eval()


def _build(build: Build, inputs: Inputs, device: str | torch.device) -> nn.Module:
    """A network that fits its inputs."""
    first = torch.zeros(1, dtype=torch.int64, device=device)
    return build(tuple(inputs(first).shape[1:])).to(device)


def fit(name: str, shadows: Signals, recipe: Options, seed: int, device: str) -> Fitted:
    """Train the attack's network on the pooled shadows.

    Returned are its weights, in which ``attempt`` they were found, from 1, and whether it is ``trained``.

    A network that learnt nothing, as `miaprune.attacks.checks.failed` has it, is trained anew with other draws and for
    longer, `REFITS` times at most; if that fails too, the one with the highest AUC on the shadows is returned and
    marked.
    """
    build, features = NETWORKS[name]
    inputs = inputs_of(features, shadows, device)
    batches = -(-len(shadows) // recipe["batch_size"])
    y = torch.from_numpy(shadows.members.astype(np.int64)).to(device)
    checked = checks.sample(shadows, seed)
    threshold = checks.threshold_auc(name, checked)
    best: Fitted = {}
    best_auc = -1.0
    for attempt in range(1 + REFITS):
        draws = derive_seed(seed, "refit", str(attempt)) if attempt else seed
        epochs = epochs_of(recipe, batches, shadows.classes, attempt)
        model = train(build, inputs, y, {**recipe, "epochs": epochs}, draws)
        scores = _scores(model, inputs_of(features, checked, device), checked, device)
        failed = checks.failed(scores, checked.members, threshold)
        auc = 0.0 if np.isnan(scores).any() else metrics.auc(scores, checked.members)
        if auc > best_auc or not failed:
            best = {k: tensor.detach().cpu().numpy() for k, tensor in model.state_dict().items()}
            best["attempt"] = np.array(1 + attempt)
            best_auc = auc
        says = f"on the shadows an AUC of {auc:.4f}, the best threshold {threshold:.4f}; "
        says += f"{np.mean(scores >= 0):.1%} called members"
        if not failed:
            logger.info(f"{name}: {says}")
            break
        logger.warning(f"{name} learnt nothing in attempt {attempt + 1} of {1 + REFITS}: {says}")
    return best | {"trained": np.array(not failed)}


def _scores(model: nn.Module, inputs: Inputs, signals: Signals, device: str) -> np.ndarray:
    """Logit of member minus logit of non-member, float64 [n]."""
    size = max(1, min(SCORE_BATCH, SCORE_BATCH * 100**2 // signals.classes**2))
    with torch.inference_mode():
        batches = torch.arange(len(signals), device=device).split(size)
        logits = torch.cat([model(inputs(batch)) for batch in batches]).double().cpu()
    return (logits[:, 1] - logits[:, 0]).numpy()


def score(name: str, fitted: Fitted, victim: Signals, recipe: Options, seed: int, device: str) -> np.ndarray:
    """Logit of member minus logit of non-member, float64 [n]."""
    build, features = NETWORKS[name]
    inputs = inputs_of(features, victim, device)
    with torch.random.fork_rng(devices=[]):  # constructing a layer draws throw-away weights
        model = _build(build, inputs, device).eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in fitted.items() if name not in MARKS})
    scores = _scores(model, inputs, victim, device)
    # Of a network that came to NaN, which is marked, no score tells anything.
    return scores if checks.trained(fitted) else np.nan_to_num(scores)


NETWORKS: dict[str, tuple[Build, Features]] = {
    "samia": (Samia, samia_features),
    "nn": (mlp, nn_features),
    "nn_top3": (mlp, nn_top3_features),
    "nn_cls": (mlp, nn_cls_features),
}
"""What each attack trains, and on what of the signals."""

ATTACKS = {name: Attack(fit=partial(fit, name), score=partial(score, name)) for name in NETWORKS}
