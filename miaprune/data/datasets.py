"""The datasets (method, section 2): from the published archives to one prepared file that loads at once.

`prepare` runs once per dataset. Every later job calls `load`, keeps all records in memory (or on the GPU) as
uint8, and takes its batches by index: there are no loader processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import InitVar, asdict, dataclass, replace
from functools import cache
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from miaprune.data import readers
from miaprune.data.archives import ARCHIVES, Archive, DatasetError, fetch_archives, find
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

    Raises
    ------
    GridError
        On an unknown name.
    DatasetError
        If an archive is missing, damaged, or not what its publisher describes.
    """
    spec, folder = _spec(name), Path(data_dir, name)
    checked = fetch_archives(spec.archives, folder, download)
    inputs, labels = spec.read(spec, folder)
    copy = find(spec.archives[0], folder) if spec.archives else None
    where = copy.path if copy else name
    if fault := _unlike(spec, inputs, labels) or _fault(name, spec.classes, inputs, labels):
        raise DatasetError(f"{where}: {fault}")
    table = len(spec.input_shape) == 1
    if np.issubdtype(inputs.dtype, np.floating):
        inputs = inputs.astype(np.uint8 if table else np.float32)
    tensors = {
        "inputs": torch.from_numpy(np.packbits(inputs, axis=1) if table else inputs),
        "labels": torch.from_numpy(labels.astype(np.min_scalar_type(spec.classes - 1))),
    }
    facts = asdict(spec)
    del facts["read"], facts["archives"]
    save_tensors(out, tensors, {"format": FORMAT, "digest": f"sha256:{digest(tensors)}", "checked": checked, **facts})


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
    per_channel = _per_channel((-1, *shape[1:]))
    return Dataset(
        name=facts["name"],
        inputs=tensors["inputs"],
        labels=tensors["labels"].long(),
        classes=facts["classes"],
        mean=facts["scale"] * torch.tensor(facts["mean"] or [0.0]).view(per_channel),
        std=facts["scale"] * torch.tensor(facts["std"] or [1.0]).view(per_channel),
        width=shape[0] if len(shape) == 1 else None,
        digest=facts.get("digest"),
        checked=True,
    )


def _spec(name: str) -> DatasetSpec:
    return SPECS[known("dataset", name, SPECS, "SPECS in miaprune/data/datasets.py has")]


def _unlike(spec: DatasetSpec, inputs: np.ndarray, labels: np.ndarray) -> str | None:
    """In what a reader's arrays differ from its line of `SPECS`, or cannot be stored whole; None if in nothing."""
    if inputs.shape != (spec.records, *spec.input_shape) or labels.shape[:1] != (spec.records,):
        found = f"inputs {list(inputs.shape)}, labels {list(labels.shape)}"
        return f"{found}, but {spec.name} has {spec.records} records of {list(spec.input_shape)}"
    # Record by record: a comparison of all of Texas at once takes gigabytes.
    if len(spec.input_shape) == 1 and not all(((record == 0) | (record == 1)).all() for record in inputs):
        return (
            "features other than 0 and 1, but a table's are bits; give numbers as inputs of the shape "
            f"({spec.input_shape[0]}, 1, 1), in uint8 or floats"
        )
    return None


_RGB = (3, 32, 32)
# scale, mean, std
_CIFAR_NORM = (255, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_SVHN_NORM = (255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CHMNIST_NORM = (255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_DIGITS_NORM = (16, (0.0,), (1.0,))
_NOISY_NORM = (16, (0.14,), (0.35,))  # their mean and standard deviation
_BITS: tuple[int, tuple[float, ...], tuple[float, ...]] = (1, (), ())

SPECS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec("cifar10", _RGB, 10, 60_000, *_CIFAR_NORM, ARCHIVES["cifar10"], readers.read_cifar),
        DatasetSpec("cifar100", _RGB, 100, 60_000, *_CIFAR_NORM, ARCHIVES["cifar100"], readers.read_cifar),
        DatasetSpec("svhn", _RGB, 10, 99_289, *_SVHN_NORM, ARCHIVES["svhn"], readers.read_svhn),
        DatasetSpec("chmnist", _RGB, 8, 5_000, *_CHMNIST_NORM, ARCHIVES["chmnist"], readers.read_images),
        DatasetSpec("digits", (1, 8, 8), 10, 1_797, *_DIGITS_NORM, (), readers.read_digits),
        DatasetSpec("noisy_digits", (1, 12, 12), 10, 1_797, *_NOISY_NORM, (), readers.read_noisy_digits),
        DatasetSpec("location", (446,), 30, 5_010, *_BITS, ARCHIVES["location"], readers.read_csv),
        DatasetSpec("purchase", (600,), 100, 197_324, *_BITS, ARCHIVES["purchase"], readers.read_csv),
        DatasetSpec("texas", (6_169,), 100, 67_330, *_BITS, ARCHIVES["texas"], readers.read_texas),
    )
}
