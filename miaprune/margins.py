"""Margins: what attacks with reference models see (method, section 13).

The margin of a record with label y under a model with logits z is z_y minus the logsumexp of the others, so that the
posterior of y is 1 / (1 + exp(-margin)). It is measured of every record of a data set under every model of a setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miaprune import grid
from miaprune.data import splits
from miaprune.files import FileError, load_arrays, save_tensors

if TYPE_CHECKING:  # attacks read margins, and start faster without torch
    from torch import Tensor, nn

    from miaprune.data.datasets import Dataset

BATCH = 1024

UNSEEN, TRAIN, DEV, TEST = range(4)
"""A record's part in a model's split; what is unseen lies in the other half."""


@dataclass(frozen=True)
class Margins:
    """Margins of N records under a victim and K reference models.

    Attributes
    ----------
    victim : np.ndarray
        float32 [N].
    references : np.ndarray
        float32 [K, N].
    parts : np.ndarray
        int8 [K, N]: the record's part in the reference's split, `UNSEEN`, `TRAIN`, `DEV` or `TEST`. The reference is
        OUT for a record (never trained or selected on) that is unseen or in *test*.
    records : np.ndarray
        int64 [n], the places of the records that are attacked, in the order of their scores.
    """

    victim: np.ndarray
    references: np.ndarray
    parts: np.ndarray
    records: np.ndarray

    @property
    def out(self) -> np.ndarray:
        """Whether reference k is OUT for the record, bool [K, N]."""
        return (self.parts == UNSEEN) | (self.parts == TEST)


def of_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Margins float [n] of logits [n, C] and labels int64 [n]."""
    true = labels[:, None]
    others = logits.scatter(1, true, -float("inf")).logsumexp(dim=1)
    return logits.gather(1, true)[:, 0] - others


def fill(model: nn.Module, data: Dataset, margins: np.ndarray, role: str = "the model") -> None:
    """Measure, in place, those of a model's margins float32 [N] that are NaN: eval mode, no noise, float32.

    Raises
    ------
    ValueError : if some are no finite numbers then; ``role`` is whose, in the message.
    """
    import torch
    from torch.nn import functional as F

    from miaprune.devices import channels_last, float32_exactly

    device = data.inputs.device
    missing = torch.from_numpy(np.flatnonzero(np.isnan(margins))).to(device)
    on_gpu = device.type == "cuda"
    channels_last(model)
    model.eval()
    with float32_exactly(), torch.inference_mode():
        for batch in missing.split(BATCH):
            n = len(batch)
            if on_gpu:  # the last one too has this size: another one would be another search
                batch = F.pad(batch, (0, BATCH - n))
            measured = of_logits(model(data.batch(batch)), data.labels[batch])
            margins[batch[:n].cpu().numpy()] = measured[:n].cpu().numpy()
    if wrong := np.count_nonzero(~np.isfinite(margins)):
        raise ValueError(f"{role}: {wrong} of {len(margins)} margins are no finite numbers; did its training diverge?")


def parts_of(n: int, seed: int, references: int) -> np.ndarray:
    """The part of each of n records in each reference's split, int8 [references, n]; reference i has seed + i."""
    parts = np.zeros((references, n), np.int8)
    for i in range(references):
        split = splits.shadow_split(n, seed, i)
        for part, records in ((TRAIN, split.train), (DEV, split.dev), (TEST, split.test)):
            parts[i, records] = part
    return parts


def save(path: str | Path, margins: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write margins float32 [N] by role, and facts about each model."""
    save_tensors(path, margins, metadata)


def load(paths: Sequence[str | Path], seed: int, references: int) -> Margins:
    """Read a setting's margins and put the splits of ``seed`` beside them; asked are the victim's (non-)members.

    The first file has those of victim and shadows, each other those of one of `miaprune.grid.chunks`.

    Raises
    ------
    miaprune.files.FileError : on a file that is damaged, lacks a model or has margins that no attack can take.
    """
    arrays: dict[str, np.ndarray] = {}
    files: dict[str, str | Path] = {}
    for path in paths:
        found = load_arrays(path)[0]
        arrays |= found
        files |= dict.fromkeys(found, path)
    roles = ["victim", *map(grid.reference, range(references))]
    if lacking := [role for role in roles if role not in arrays]:
        place = 0 if lacking[0] in grid.ROLES else 1 + (roles.index(lacking[0]) - len(grid.ROLES)) // grid.CHUNK
        raise FileError(f"{paths[: place + 1][-1]}: lacks margins of {lacking[0]}; delete it and run again")
    n = arrays["victim"].size
    for role in roles:
        if arrays[role].shape != (n,) or not np.isfinite(arrays[role]).all():
            raise FileError(f"{files[role]}: {role}: not the margins of {n} records; delete it and run again")
    split = splits.victim_split(n, seed)
    stacked = np.stack([arrays[role] for role in roles[1:]])
    asked = np.concatenate([split.train, split.test])
    return Margins(arrays["victim"], stacked, parts_of(n, seed, references), asked)
