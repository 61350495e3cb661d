"""Signals: all that an attack sees of a model (method, section 6).

Signals are the boundary between training and attacking: small, cached, and enough to run every attack again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miaprune.files import FileError, load_arrays, save_tensors

if TYPE_CHECKING:  # attacks and figures read signals, and start faster without torch
    from torch import nn

    from miaprune.data.datasets import Dataset
    from miaprune.data.splits import Split

BATCH = 1024

ROUNDING = 1e-3
"""By how much a row of posteriors may miss 1: float32's rounding of 1 000 classes stays far below."""


@dataclass(frozen=True)
class Signals:
    """What a model reveals about n records of C classes.

    Attributes
    ----------
    posteriors : np.ndarray
        float32 [n, C], softmax of the logits; rows sum to 1.
    sensitivities : np.ndarray
        float32 [n, C], mean absolute change of each posterior per unit of input noise; [n, 0] where nobody measured it.
    labels : np.ndarray
        int64 [n], true class, 0-based; other integers are converted.
    members : np.ndarray
        bool [n], whether the record was in the model's training set.

    Raises
    ------
    ValueError
        If no attack could take these: arrays that do not agree, rows that are no probabilities, numbers that are not
        finite, labels that are no classes.
    """

    posteriors: np.ndarray
    sensitivities: np.ndarray
    labels: np.ndarray
    members: np.ndarray

    def __post_init__(self) -> None:  # 0.14 s for 444 000 records of 100 classes, 3 times as long as to pool them
        if fault := _fault(self):
            raise ValueError(fault)
        object.__setattr__(self, "labels", self.labels.astype(np.int64, copy=False))  # frozen for everybody else

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self.posteriors.shape[1]

    @property
    def confidence(self) -> np.ndarray:
        """Posterior of the true class, float32 [n]."""
        return np.take_along_axis(self.posteriors, self.labels[:, None], axis=1)[:, 0]

    @property
    def correct(self) -> np.ndarray:
        """Whether the predicted class is the true one, bool [n]."""
        return self.posteriors.argmax(axis=1) == self.labels

    def at(self, index: np.ndarray | slice) -> Signals:
        """Those of the records at ``index``, int64, bool or a slice."""
        return Signals(*(getattr(self, field)[index] for field in Signals.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.labels)


def pool(signals: Sequence[Signals]) -> Signals:
    """Concatenate the records of several models, as an attack on pooled shadows does (method, section 7)."""
    return Signals(*(np.concatenate([getattr(s, f) for s in signals]) for f in Signals.__dataclass_fields__))


def _fault(signals: Signals) -> str | None:
    """Why no attack can take these signals, in half a line with the number of records; None where all can."""
    named = {name: getattr(signals, name) for name in Signals.__dataclass_fields__}
    for name, array in named.items():
        if not isinstance(array, np.ndarray):
            return f"{name} are {type(array).__name__}; they must be a NumPy array"
    posteriors, sensitivities, labels, members = named.values()
    n = len(posteriors) if posteriors.ndim else 0
    agree = posteriors.ndim == 2 and sensitivities.shape in (posteriors.shape, (n, 0))
    if not agree or {labels.shape, members.shape} != {(n,)}:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in named.items())
        return f"shapes that do not agree: {shapes}"
    if labels.dtype.kind not in "iu" or members.dtype != bool:
        return f"labels are {labels.dtype} and members {members.dtype}; they must be integers and bool"
    # A comparison with NaN is false, so each line says what is right of a record.
    with np.errstate(invalid="ignore"):  # infinities of both signs
        sums_to_1 = abs(posteriors.sum(axis=1) - 1) <= ROUNDING
    for name, right in (
        ("posteriors that are no probabilities", (posteriors >= 0).all(axis=1) & sums_to_1),
        (
            "sensitivities that are negative or no finite numbers",
            ((sensitivities >= 0) & (sensitivities < np.inf)).all(axis=1),
        ),
        (f"labels outside 0..{signals.classes - 1}", (labels >= 0) & (labels < signals.classes)),
    ):
        if wrong := n - np.count_nonzero(right):
            return f"{wrong} of {n} records have {name}"
    return None


def measure(
    model: nn.Module,
    data: Dataset,
    split: Split,
    draws: int,
    epsilon: float,
    seed: int,
    role: str = "the model",
    margins: np.ndarray | None = None,
) -> Signals:
    """Query a model for the signals of its members (train) and non-members (test).

    The sensitivity of a record x is, per class, the mean over ``draws`` of u ~ N(0, I) of
    |softmax f(x + epsilon u) - softmax f(x)| / epsilon, in the normalised input space (method, section 6). Members come
    first; everything is computed in float32, on the data's device, and returned on the CPU. Into ``margins``, float32
    [N] for all records of the data set, go those of the records queried: from the same logits, they cost nothing.

    Raises
    ------
    ValueError : if no attack could take what ``role``, named so in the message, says.
    """
    import torch
    from torch.nn import functional as F

    from miaprune.devices import channels_last, float32_exactly
    from miaprune.margins import of_logits

    device = data.inputs.device
    index = torch.from_numpy(np.concatenate([split.train, split.test])).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    on_gpu = device.type == "cuda"
    channels_last(model)
    model.eval()
    posteriors, sensitivities, own = [], [], []
    # epsilon is tiny: in TF32 the sensitivities would be rounding noise.
    with float32_exactly(), torch.inference_mode():
        for batch in index.split(BATCH):
            if on_gpu:  # the last one too has this size: another one would be another search
                batch = F.pad(batch, (0, BATCH - len(batch)))
            x = data.batch(batch)
            logits = model(x.clone())  # a network may change its input in place
            p = torch.softmax(logits, dim=1)
            total = torch.zeros_like(p)
            for _ in range(draws):
                noise = torch.randn(x.shape, generator=generator, device=device)
                total += (torch.softmax(model(x + epsilon * noise), dim=1) - p).abs()
            posteriors.append(p)
            sensitivities.append(total / (draws * epsilon))
            own.append(of_logits(logits, data.labels[batch]))
    try:
        measured = Signals(
            posteriors=torch.cat(posteriors)[: len(index)].cpu().numpy(),
            sensitivities=torch.cat(sensitivities)[: len(index)].cpu().numpy(),
            labels=data.labels[index].cpu().numpy(),
            members=np.arange(len(index)) < len(split.train),
        )
    except ValueError as error:
        raise ValueError(f"{role}: {error}; did its training diverge? A lower learning rate may help") from None
    if margins is not None:
        margins[index.cpu().numpy()] = torch.cat(own)[: len(index)].cpu().numpy()
    return measured


def save(path: str | Path, signals: Mapping[str, Signals], metadata: Mapping[str, Any]) -> None:
    """Write the signals of several models, by role (``victim``, ``shadow_0``, ...), and facts about each."""
    arrays: dict[str, np.ndarray] = {}
    for role, s in signals.items():
        smallest = np.min_scalar_type(s.classes - 1)
        arrays[f"{role}/posteriors"], arrays[f"{role}/sensitivities"] = s.posteriors, s.sensitivities
        arrays[f"{role}/labels"], arrays[f"{role}/members"] = s.labels.astype(smallest), s.members
    save_tensors(path, arrays, metadata)


def load(path: str | Path, role: str) -> Signals:
    """Read one model's signals; raises `miaprune.files.FileError` on a file that is damaged or not to be attacked."""
    arrays, _ = load_arrays(path, prefix=f"{role}/")
    if arrays.keys() != Signals.__dataclass_fields__.keys():
        raise FileError(f"{path}: lacks signals of {role}; delete it and run again")
    try:
        return Signals(**arrays)
    except ValueError as error:
        raise FileError(f"{path}: {role}: {error}; delete it and run again") from None


def load_shadows(path: str | Path, shadows: int) -> Signals:
    """Read and pool the signals of all shadow models."""
    return pool([load(path, f"shadow_{i}") for i in range(shadows)])
