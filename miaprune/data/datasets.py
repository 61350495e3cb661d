"""The datasets (method, section 2): from the published archives to one prepared file that loads at once.

`prepare` runs once per dataset. Every later job calls `load`, keeps all records in memory (or on the GPU) as
uint8, and takes its batches by index: there are no loader processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from miaprune.data import readers
from miaprune.data.archives import ARCHIVES, Archive, DatasetError, fetch_archives
from miaprune.files import FileError, digest, load_tensors, save_tensors
from miaprune.grid import known

FORMAT = 1
"""Version of the prepared file; raise it when `load` can no longer read what an older `prepare` wrote."""

Reader = Callable[["DatasetSpec", Path], tuple[np.ndarray, np.ndarray]]
"""(spec, folder of the archives) -> inputs uint8 or floats [n, *input_shape], labels int [n], 0-based."""


@dataclass(frozen=True)
class DatasetSpec:
    """What a dataset must look like, and how its archives are read.

    A raw input x is normalised to (x / scale - mean) / std per channel, or with ``mean`` and ``std`` empty and a
    ``scale`` of 1 taken as it is; so are tables, whose features are 0 or 1.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    records: int
    scale: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    archives: tuple[Archive, ...]
    read: Reader


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
        int64 [n], 0-based.
    classes : int
        How many there are.
    mean, std : Tensor
        float32, broadcastable to one input, in units of the raw inputs.
    width : int, optional
        Number of features where they are packed; None where they are not.
    digest : str, optional
        Of inputs and labels, by `miaprune.files.digest`; None where it is not known.
    """

    name: str
    inputs: Tensor
    labels: Tensor
    classes: int
    mean: Tensor
    std: Tensor
    width: int | None = None
    digest: str | None = None

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
        )


@cache
def _bits(device: torch.device) -> Tensor:
    """The bits of every byte, highest first, float32 [256, 8]."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return torch.from_numpy(bits).to(device, torch.float32)


def prepare(name: str, data_dir: str | Path, out: str | Path, download: bool = True) -> None:
    """Read the archives in ``{data_dir}/{name}``, downloading what is missing, and write one file ``out``.

    Raises
    ------
    GridError
        On an unknown name.
    DatasetError
        If an archive is missing, damaged, or not what its publisher describes.
    """
    spec, folder = _spec(name), Path(data_dir, name)
    fetch_archives(spec.archives, folder, download)
    inputs, labels = spec.read(spec, folder)
    where = folder / spec.archives[0].name if spec.archives else name
    _check(spec, where, inputs, labels)
    table = len(spec.input_shape) == 1
    if np.issubdtype(inputs.dtype, np.floating):
        inputs = inputs.astype(np.uint8 if table else np.float32)
    tensors = {
        "inputs": torch.from_numpy(np.packbits(inputs, axis=1) if table else inputs),
        "labels": torch.from_numpy(labels.astype(np.min_scalar_type(spec.classes - 1))),
    }
    facts = asdict(spec)
    del facts["read"], facts["archives"]
    save_tensors(out, tensors, {"format": FORMAT, "digest": f"sha256:{digest(tensors)}", **facts})


def load(path: str | Path) -> Dataset:
    """Read a prepared file, in well under a second whatever the dataset.

    Raises
    ------
    DatasetError
        If the file is missing, truncated, or was not written by `prepare`.
    """
    try:
        tensors, facts = load_tensors(path)
    except OSError as error:
        raise DatasetError(str(error) if isinstance(error, FileError) else f"{path}: {error}") from None
    if facts.get("format") != FORMAT:
        raise DatasetError(f"{path}: not a dataset prepared by this version of miaprune; delete it and run again")
    shape = facts["input_shape"]
    per_channel = (-1, *(1 for _ in shape[1:]))
    return Dataset(
        name=facts["name"],
        inputs=tensors["inputs"],
        labels=tensors["labels"].long(),
        classes=facts["classes"],
        mean=facts["scale"] * torch.tensor(facts["mean"] or [0.0]).view(per_channel),
        std=facts["scale"] * torch.tensor(facts["std"] or [1.0]).view(per_channel),
        width=shape[0] if len(shape) == 1 else None,
        digest=facts.get("digest"),
    )


def _spec(name: str) -> DatasetSpec:
    return SPECS[known("dataset", name, SPECS, "SPECS in miaprune/data/datasets.py has")]


def _check(spec: DatasetSpec, where: Path | str, inputs: np.ndarray, labels: np.ndarray) -> None:
    """Raise `DatasetError` unless a reader's arrays are what its line of `SPECS` says, and can be stored whole."""
    if inputs.shape != (spec.records, *spec.input_shape) or labels.shape != (spec.records,):
        found = f"inputs {list(inputs.shape)}, labels {list(labels.shape)}"
        raise DatasetError(f"{where}: {found}, but {spec.name} has {spec.records} records of {list(spec.input_shape)}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(f"{where}: labels are {labels.dtype}; they must be integers from 0 on")
    for label in (labels.min(), labels.max()):
        if not 0 <= label < spec.classes:
            raise DatasetError(f"{where}: class {label} found, but {spec.name} has {spec.classes} classes from 0 on")
    if np.issubdtype(inputs.dtype, np.floating) and not np.isfinite(inputs).all():
        raise DatasetError(f"{where}: inputs that are no finite numbers; take these records or features out")
    # Record by record: a comparison of all of Texas at once takes gigabytes.
    if len(spec.input_shape) == 1 and not all(((record == 0) | (record == 1)).all() for record in inputs):
        raise DatasetError(
            f"{where}: features other than 0 and 1, but a table's are bits; give numbers as inputs of the shape "
            f"({spec.input_shape[0]}, 1, 1), in uint8 or floats"
        )


_RGB = (3, 32, 32)
# scale, mean, std
_CIFAR_NORM = (255, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_SVHN_NORM = (255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CHMNIST_NORM = (255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_DIGITS_NORM = (16, (0.0,), (1.0,))
_BITS: tuple[int, tuple[float, ...], tuple[float, ...]] = (1, (), ())

_location_csv = partial(readers.read_csv, member="bangkok")
_purchase_csv = partial(readers.read_csv, member="dataset_purchase")

SPECS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec("cifar10", _RGB, 10, 60_000, *_CIFAR_NORM, ARCHIVES["cifar10"], readers.read_cifar),
        DatasetSpec("cifar100", _RGB, 100, 60_000, *_CIFAR_NORM, ARCHIVES["cifar100"], readers.read_cifar),
        DatasetSpec("svhn", _RGB, 10, 99_289, *_SVHN_NORM, ARCHIVES["svhn"], readers.read_svhn),
        DatasetSpec("chmnist", _RGB, 8, 5_000, *_CHMNIST_NORM, ARCHIVES["chmnist"], readers.read_images),
        # CIFAR-10 re-encoded as JPEG: figures on it are never to be reported as CIFAR-10.
        DatasetSpec("cifar10_jpeg", _RGB, 10, 60_000, *_CIFAR_NORM, ARCHIVES["cifar10_jpeg"], readers.read_images),
        DatasetSpec("digits", (1, 8, 8), 10, 1_797, *_DIGITS_NORM, (), readers.read_digits),
        DatasetSpec("location", (446,), 30, 5_010, *_BITS, ARCHIVES["location"], _location_csv),
        DatasetSpec("purchase", (600,), 100, 197_324, *_BITS, ARCHIVES["purchase"], _purchase_csv),
        DatasetSpec("texas", (6_169,), 100, 67_330, *_BITS, ARCHIVES["texas"], readers.read_texas),
    )
}
