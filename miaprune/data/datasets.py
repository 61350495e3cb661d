"""The datasets (method, section 2): from the published archives to one prepared file that loads at once.

`prepare` runs once per dataset. Every later job calls `load`, keeps all records in memory (or on the GPU) as
uint8, and takes its batches by index: there are no loader processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from miaprune.catalog import DATASETS
from miaprune.data import own
from miaprune.data.archives import ARCHIVES, DatasetError, fetch_archives, find
from miaprune.entries import DatasetEntry, known
from miaprune.files import FileError, digest, load_tensors, save_tensors

FORMAT = 1
"""Version of the prepared file; raise it when `load` can no longer read what an older `prepare` wrote."""


@dataclass(frozen=True)
class Dataset:
    """A whole dataset in memory.

    Attributes
    ----------
    name : str
        What errors and results call it.
    inputs : Tensor
        uint8 or float32 [n, *input_shape], raw; or uint8 [n, ceil(width / 8)], eight features to the byte.
    labels : Tensor
        int64 [n], 0-based; other integers are converted.
    classes : int
        How many there are.
    mean, std : Tensor
        float32, broadcastable to one input: (C, 1, 1) or () of images. In units of the raw inputs.
    width : int, optional
        Number of features where they are packed; None where they are not.
    digest : str, optional
        Of inputs and labels, by `miaprune.files.digest`; None where it is not known.
    checked : bool
        Whether what is below has been checked already, which takes a table of floats a second.

    Raises
    ------
    ValueError
        If one of these is no tensor, the labels are not one integer a record in 0..classes - 1, an input is no finite
        number, or inputs cannot be normalised by ``mean`` and ``std``. Of tensors without values (device ``meta``)
        shapes are checked.
    """

    name: str
    inputs: Tensor
    labels: Tensor
    classes: int
    mean: Tensor
    std: Tensor
    width: int | None = None
    digest: str | None = None
    checked: InitVar[bool] = False

    def __post_init__(self, checked: bool) -> None:
        if checked:
            return
        if fault := _misfit(self):
            raise ValueError(f"{self.name}: {fault}")
        object.__setattr__(self, "labels", self.labels.long())  # frozen for everybody else

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record's inputs."""
        return tuple(self.inputs.shape[1:]) if self.width is None else (self.width,)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> Tensor:
        """Normalised inputs of the records at ``index`` (int64 [b]), float32 [b, *input_shape]."""
        inputs = self.inputs[index]
        if self.width is None:
            return inputs.float().sub_(self.mean).div_(self.std)
        # Bits stay packed until here: Texas then loads in milliseconds, not in a second, and a look-up of 128
        # records (0.7 ms on a CPU) is quicker than converting them from bytes (1.2 ms).
        return embedding(inputs.int(), _bits(inputs.device)).flatten(1)[:, : self.width]

    def to(self, device: torch.device | str) -> Dataset:
        """The same dataset with all its tensors on ``device``."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            labels=self.labels.to(device),
            mean=self.mean.to(device),
            std=self.std.to(device),
            checked=True,
        )


@cache
def _bits(device: torch.device) -> Tensor:
    """The bits of every byte, highest first, float32 [256, 8]."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return torch.from_numpy(bits).to(device, torch.float32)


def _array(tensor: Tensor) -> np.ndarray:
    """The same values on the CPU, not copied if they are there; zeros, a single byte of them, where it has none."""
    if tensor.is_meta:
        kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        return np.broadcast_to(np.zeros((), kind), tuple(tensor.shape))
    return tensor.detach().cpu().numpy()


def _misfit(data: Dataset) -> str | None:
    """Why nothing can be trained on this data set, in half a line that says what would be right; None if it can."""
    for name in ("inputs", "labels", "mean", "std"):
        if not isinstance(value := getattr(data, name), Tensor):
            return f"{name} is {type(value).__name__}; it must be a tensor, such as torch.as_tensor makes"
    if not isinstance(data.classes, Integral):
        return f"classes is {data.classes!r}; it must be an integer"
    # bfloat16 is a type that NumPy has not.
    if data.labels.dtype == torch.bfloat16:
        return "labels are bfloat16; they must be integers from 0 on"
    inputs = data.inputs.float() if data.inputs.dtype == torch.bfloat16 else data.inputs
    if fault := _fault(data.name, data.classes, _array(inputs), _array(data.labels)):
        return fault
    if data.width is not None:
        packed = len(inputs), -(-data.width // 8)
        if inputs.dtype != torch.uint8 or inputs.shape != packed:
            return f"{data.width} features packed eight to the byte are uint8 {list(packed)}"
    else:
        shapes = data.mean.shape, data.std.shape, data.input_shape
        try:
            fit = torch.broadcast_shapes(*shapes) == data.input_shape
        except RuntimeError:
            fit = False
        if not fit:
            found = "mean {}, std {}, each input {}".format(*map(list, shapes))
            return f"{found}; give mean and std of shape {_per_channel(data.input_shape)} or ()"
    if data.std.is_meta or (data.mean.isfinite().all() and (data.std > 0).all()):
        return None
    return "mean and std must be finite numbers and std above 0; set it to 1 where a feature is constant"


def _per_channel(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a number a channel that goes with inputs of this one: (C, 1, 1) of images."""
    return (shape[0], *(1 for _ in shape[1:]))


def _fault(name: str, classes: int, inputs: np.ndarray, labels: np.ndarray) -> str | None:
    """Why these cannot be a data set's records, in half a line that says what would be right; None if they can."""
    n = len(inputs) if inputs.ndim else 0
    if inputs.ndim < 2 or labels.shape != (n,):
        found = f"inputs {list(inputs.shape)}, labels {list(labels.shape)}"
        return f"{found}; give inputs [n, ...] and, for each record, one label, the number of its class"
    if not n:
        return "there are no records"
    if labels.dtype.kind not in "iu":
        return f"labels are {labels.dtype}; they must be integers from 0 on"
    for label in (labels.min(), labels.max()):
        if not 0 <= label < classes:
            count = np.count_nonzero(labels == label)
            return f"class {label} found ({count} of {n} records), but {name} has {classes} classes from 0 on"
    if inputs.dtype.kind not in "biuf":
        return f"inputs are {inputs.dtype}; they must be uint8 or floats"
    if inputs.dtype.kind == "f":
        parts = (inputs[i : i + 1024].reshape(min(1024, n - i), -1) for i in range(0, n, 1024))  # all at once is large
        if wrong := n - sum(np.count_nonzero(np.isfinite(part).all(axis=1)) for part in parts):
            return f"inputs of {wrong} of {n} records are no finite numbers; take these records or features out"
    return None


def prepare(name: str, data_dir: str | Path, out: str | Path, download: bool = True) -> None:
    """Read the archives in ``{data_dir}/{name}``, downloading what is missing, and write one file ``out``.

    A subset is drawn from the file that was prepared of its parent, ``{data_dir}/{parent}/{parent}.safetensors``. What
    has neither mean nor std in the catalogue is standardised, a table of bits excepted: those are stored packed.

    Raises
    ------
    GridError
        On an unknown name.
    DatasetError
        If an archive is missing, damaged, or not what its publisher describes, or if nothing can be trained on it.
    """
    entry, folder = DATASETS[known("dataset", name, DATASETS)], Path(data_dir, name)
    if entry.of is not None:
        _draw(entry, Path(data_dir, entry.of, f"{entry.of}.safetensors"), out)
        return
    archives = ARCHIVES.get(name, ())
    checked = fetch_archives(archives, folder, download)
    found = entry.given(name=name, folder=folder, file=entry.file, label=entry.label)
    inputs, labels, names = own.arrays(entry, found)
    classes = entry.classes or len(names)
    copy = find(archives[0], folder) if archives else None
    where = copy.path if copy else entry.file or name
    if fault := _unlike(entry, inputs, labels) or _fault(name, classes, inputs, labels):
        raise DatasetError(f"{where}: {fault}")
    users = entry.extension or entry.file
    if users and (fault := own.too_little(inputs, labels)):
        raise DatasetError(f"{where}: {fault}")
    mean, std = entry.mean, entry.std
    packed = not mean and own.bits(inputs)
    if not packed:
        if not mean:
            mean, std = map(tuple, own.moments(inputs, entry.scale))
        for kind, numbers in (("mean", mean), ("std", std)):
            if fault := own.misfit(kind, numbers, inputs.shape[1]):
                raise DatasetError(f"{name}: {fault}")
    tensors = {
        "inputs": torch.from_numpy(np.packbits(inputs.astype(np.uint8), axis=1) if packed else inputs),
        "labels": torch.from_numpy(labels.astype(np.min_scalar_type(classes - 1))),
    }
    facts = {"name": name, "input_shape": inputs.shape[1:], "classes": classes, "records": len(inputs)}
    facts |= {"scale": entry.scale, "mean": mean, "std": std, "packed": packed, "names": names}
    _save(out, tensors, facts | {"checked": checked})


DRAW = 0
"""The seed of every subset's draw, whatever the run's seeds are."""


def _draw(entry: DatasetEntry, parent: Path, out: str | Path) -> None:
    """Write a subset of a prepared file: some of its records, each as likely as any other, in their order there.

    The draw is fixed: it depends on the numbers of records alone, and a smaller subset lies within a larger one.
    """
    tensors, facts = _read(parent)
    n, records = len(tensors["labels"]), entry.records or 0
    if records > n:
        raise DatasetError(f"{entry.name}: {records} records of {entry.of}, which has {n}")
    drawn = torch.from_numpy(np.sort(np.random.RandomState(DRAW).permutation(n)[:records]))
    chosen = {name: tensor[drawn] for name, tensor in tensors.items()}
    if fault := own.too_little(chosen["inputs"].numpy(), chosen["labels"].numpy()):
        raise DatasetError(f"{entry.name}: {fault}")
    checked = [*facts.get("checked", []), f"{records} of {n} records of {entry.of}, sha256:{digest(tensors)}"]
    _save(out, chosen, facts | {"name": entry.name, "records": records, "checked": checked})


def _save(out: str | Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write a prepared file."""
    save_tensors(out, tensors, facts | {"format": FORMAT, "digest": f"sha256:{digest(tensors)}"})


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the facts of a prepared file; raises `DatasetError` on another."""
    try:
        tensors, facts = load_tensors(path)
    except OSError as error:
        raise DatasetError(str(error) if isinstance(error, FileError) else f"{path}: {error}") from None
    if facts.get("format") != FORMAT:
        raise DatasetError(f"{path}: not a dataset prepared by this version of miaprune; delete it and run again")
    return tensors, facts


def load(path: str | Path) -> Dataset:
    """Read a prepared file, in well under a second whatever the dataset.

    Raises
    ------
    DatasetError
        If the file is missing, truncated, or was not written by `prepare`.
    """
    tensors, facts = _read(path)
    shape = facts["input_shape"]
    per_channel = _per_channel((-1, *shape[1:]))
    return Dataset(
        name=facts["name"],
        inputs=tensors["inputs"],
        labels=tensors["labels"].long(),
        classes=facts["classes"],
        mean=facts["scale"] * torch.tensor(facts["mean"] or [0.0]).view(per_channel),
        std=facts["scale"] * torch.tensor(facts["std"] or [1.0]).view(per_channel),
        width=shape[0] if facts.get("packed", len(shape) == 1) else None,
        digest=facts.get("digest"),
        checked=True,
    )


def _unlike(entry: DatasetEntry, inputs: np.ndarray, labels: np.ndarray) -> str | None:
    """In what arrays differ from what the catalogue says of a data set; None if in nothing."""
    records = len(inputs) if entry.records is None else entry.records
    shape = inputs.shape[1:] if entry.shape is None else entry.shape
    if inputs.shape == (records, *shape) and labels.shape[:1] == (records,):
        return None
    found = f"inputs {list(inputs.shape)}, labels {list(labels.shape)}"
    return f"{found}, but {entry.name} has {records} records of {list(shape)}"
