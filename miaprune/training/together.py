"""A setting's models trained together: one after another on a CPU, side by side on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from miaprune.devices import streams
from miaprune.training.loop import Facts, captured, train
from miaprune.training.objectives import Objective
from miaprune.training.resume import States

if TYPE_CHECKING:
    from miaprune.data.datasets import Dataset
    from miaprune.data.splits import Split

logger = logging.getLogger(__name__)


def in_turn(trainings: Sequence[Generator[None, None, Facts]], device: torch.device) -> list[Facts]:
    """Run trainings to their ends, a step of each at a time; returns what each does.

    On a GPU each has a stream of its own there, so that their steps are computed at the same time as far as the card
    has room. The global generators are left as they were. Several trainings with dropout share them: each draws by what
    the others drew, and after a resume otherwise.
    """
    facts: dict[int, Facts] = {}
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
    """Train a setting's models, by role; arguments and facts as `train` has them.

    Where a step is one launch, a GPU trains all side by side: one small network does not fill it, and launched kernel
    by kernel, they would wait for the launches. A step of ResNet-18 takes an H100 10 ms launched so, 2.2 ms as a graph,
    1.1 ms as one of six; of DenseNet-121 80, 11 and 5.4 ms, of VGG-16 12, 3.0 and 1.9 ms.
    """
    device = data.inputs.device
    facts: dict[str, Facts] = {}
    for side_by_side in [list(models)] if captured(objectives.values(), device) else [[role] for role in models]:
        beside = " side by side" if len(side_by_side) > 1 else ""
        logger.info(f"trains {', '.join(side_by_side)}{beside}")
        after = len(models) - len(facts) - len(side_by_side)
        trainings = [
            train(
                models[role],
                data,
                splits[role],
                recipe,
                objectives[role],
                seeds[role],
                slot=states.slot(role) if states else None,
                name=role,
                more=after,
            )
            for role in side_by_side
        ]
        facts |= zip(side_by_side, in_turn(trainings, device), strict=True)
    return facts
