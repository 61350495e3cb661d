"""A setting's models trained together: one after another on a CPU, side by side on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from miaprune.devices import streams
from miaprune.training.loop import Facts, captured, convolves, train
from miaprune.training.objectives import Objective
from miaprune.training.resume import States

if TYPE_CHECKING:
    from miaprune.data.datasets import Dataset
    from miaprune.data.splits import Split

logger = logging.getLogger(__name__)


def in_turn(trainings: Sequence[Generator[None, None, list[Facts]]], device: torch.device) -> list[list[Facts]]:
    """Run trainings to their ends, a step of each at a time; returns what each does.

    On a GPU each has a stream of its own there, so that their steps are computed at the same time as far as the card
    has room. The global generators are left as they were. Several trainings with dropout share them: each draws by what
    the others drew, and after a resume otherwise.
    """
    facts: dict[int, list[Facts]] = {}
    with torch.random.fork_rng([device] if device.type == "cuda" else []), streams(len(trainings), device) as on_stream:
        while len(facts) < len(trainings):
            for i, training in enumerate(trainings):
                if i not in facts:
                    try:
                        with on_stream(i):
                            next(training)
                    except StopIteration as end:
                        facts[i] = end.value
    return [facts[i] for i in range(len(trainings))]


def train_roles(
    models: Mapping[str, nn.Module],
    data: Dataset,
    splits: Mapping[str, Split],
    recipe: Mapping[str, Any],
    objectives: Mapping[str, Objective],
    seeds: Mapping[str, int],
    states: States | None = None,
) -> dict[str, Facts]:
    """Train a setting's models, by role, in as few stacks as there can be; arguments and facts as `train` has them.

    Where a step is one launch, a GPU trains all stacks side by side: one small network does not fill it, and launched
    kernel by kernel, they would wait for the launches. A step of ResNet-18 takes an H100 10 ms launched so, 2.2 ms as a
    graph, 1.1 ms as one of six; of DenseNet-121 80, 11 and 5.4 ms, of VGG-16 12, 3.0 and 1.9 ms.
    """
    device = data.inputs.device
    stacks = _stacks(models, splits, objectives, device)
    facts: dict[str, Facts] = {}
    for side_by_side in [stacks] if captured(objectives.values(), device) else [[stack] for stack in stacks]:
        beside = " side by side" if len(side_by_side) > 1 else ""
        logger.info(f"trains {', '.join(role for roles in side_by_side for role in roles)}{beside}")
        after = len(models) - len(facts) - sum(map(len, side_by_side))
        trainings = [
            train(
                [models[role] for role in roles],
                data,
                [splits[role] for role in roles],
                recipe,
                objectives[roles[0]],
                [seeds[role] for role in roles],
                slot=states.slot("+".join(roles)) if states else None,
                names=roles,
                more=after,
            )
            for roles in side_by_side
        ]
        for roles, trained in zip(side_by_side, in_turn(trainings, device), strict=True):
            facts |= zip(roles, trained, strict=True)
    return facts


def _stacks(
    models: Mapping[str, nn.Module],
    splits: Mapping[str, Split],
    objectives: Mapping[str, Objective],
    device: torch.device,
) -> list[list[str]]:
    """The roles that are trained together: on a GPU those without convolutions, whose splits are of equal sizes.

    A stack of convolutions is one grouped convolution, which no library computes well. On a CPU one model after
    another fits into its caches and ends when it has to: Location's six take 2.2 s, as one stack 4.3 s.
    """
    stacks: dict[tuple[int, int] | str, list[str]] = {}
    for role, model in models.items():
        together = device.type == "cuda" and objectives[role].by_loss and not convolves(model)
        key = (len(splits[role].train), len(splits[role].dev)) if together else role
        stacks.setdefault(key, []).append(role)
    return list(stacks.values())
