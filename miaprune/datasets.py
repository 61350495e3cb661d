"""The datasets (method, section 2): from the published archives to one prepared file that loads at once.

`prepare` runs once per dataset. Every later job calls `load`, keeps all records in memory (or on the GPU) as
uint8, and takes its batches by index: there are no loader processes.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import itertools
import shutil
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from miaprune.files import FileError, digest, load_tensors, save_tensors, whole
from miaprune.grid import known

FORMAT = 1
"""Version of the prepared file; raise it when `load` can no longer read what an older `prepare` wrote."""

DOWNLOAD_TIMEOUT = 60  # seconds without a byte

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError)
"""What reading a damaged archive can raise (Pillow's and gzip's errors are OSErrors)."""


class DatasetError(FileError):
    """An archive or a prepared file that cannot be used; the message is one line that says what to do."""


@dataclass(frozen=True)
class Archive:
    """A published file: its name in ``{data_dir}/{dataset}``, ``algorithm:hexdigest``, and its address."""

    name: str
    checksum: str | None
    url: str | None


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
    inputs : uint8 or float32 [n, *input_shape], raw; or [n, ceil(width / 8)], eight features to the byte.
    labels : int64 [n], 0-based.
    mean, std : float32, broadcastable to one input, in units of the raw inputs.
    width : number of features where they are packed; None where they are not.
    digest : of inputs and labels, by `miaprune.files.digest`; None where it is not known.
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
    GridError : on an unknown name.
    DatasetError : if an archive is missing, damaged, or not what its publisher describes.
    """
    spec, folder = _spec(name), Path(data_dir, name)
    for archive in spec.archives:
        path = folder / archive.name
        if path.exists():
            _verify(path, archive)
        elif download and archive.url:
            _download(path, archive)
        else:
            raise DatasetError(_missing(path, archive))
    inputs, labels = spec.read(spec, folder)
    where = folder / spec.archives[0].name if spec.archives else name
    _check(spec, where, inputs, labels)
    table = len(spec.input_shape) == 1
    if np.issubdtype(inputs.dtype, np.floating):
        inputs = inputs.astype(np.uint8 if table else np.float32)
    tensors = {
        "inputs": torch.from_numpy(np.packbits(inputs, axis=1) if table else inputs),
        "labels": torch.from_numpy(labels.astype(np.uint8)),
    }
    facts = asdict(spec)
    del facts["read"], facts["archives"]
    save_tensors(out, tensors, {"format": FORMAT, "digest": f"sha256:{digest(tensors)}", **facts})


def load(path: str | Path) -> Dataset:
    """Read a prepared file, in well under a second whatever the dataset.

    Raises
    ------
    DatasetError : if the file is missing, truncated, or was not written by `prepare`.
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


def check_archives(name: str, data_dir: str | Path) -> None:
    """Check, before any job starts, those of a dataset's archives that lie in ``{data_dir}/{name}``.

    Raises
    ------
    GridError : on an unknown name.
    DatasetError : if one is damaged, or is missing and has no address to download it from.
    """
    for archive in _spec(name).archives:
        path = Path(data_dir, name, archive.name)
        if path.exists():
            _verify(path, archive)
        elif archive.url is None:
            raise DatasetError(_missing(path, archive))


def _spec(name: str) -> DatasetSpec:
    return SPECS[known("dataset", name, SPECS, "SPECS in miaprune/datasets.py has")]


def _check(spec: DatasetSpec, where: Path | str, inputs: np.ndarray, labels: np.ndarray) -> None:
    """Raise `DatasetError` unless a reader's arrays are what its line of `SPECS` says, and can be stored whole."""
    if inputs.shape != (spec.records, *spec.input_shape) or labels.shape != (spec.records,):
        found = f"inputs {list(inputs.shape)}, labels {list(labels.shape)}"
        raise DatasetError(f"{where}: {found}, but {spec.name} has {spec.records} records of {list(spec.input_shape)}")
    if spec.classes > 256:
        raise DatasetError(f"{spec.name}: {spec.classes} classes, but labels are stored in a byte: 256 at most")
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


def _missing(path: Path, archive: Archive) -> str:
    source = f" from {archive.url}" if archive.url else f" ({archive.checksum})" if archive.checksum else ""
    return f"{path} is missing: get it{source} and put it there"


def _download(path: Path, archive: Archive) -> None:
    """Fetch an archive to ``path``, whole and verified or not at all."""
    request = urllib.request.Request(str(archive.url), headers={"User-Agent": "miaprune"})
    with whole(path) as temporary:
        try:
            response = urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT)
            with response, open(temporary, "wb") as file:
                shutil.copyfileobj(response, file)
            fault = _fault(temporary, archive)
        except (OSError, http.client.HTTPException) as error:
            fault = repr(error)
        if fault:
            raise DatasetError(f"{_missing(path, archive)} (download failed: {fault})")


def _verify(path: Path, archive: Archive) -> None:
    fault = _fault(path, archive)
    if fault:
        again = f"download it again from {archive.url}" if archive.url else "put a whole copy there"
        raise DatasetError(f"{path}: {fault}; delete it and {again}")


def _fault(path: Path, archive: Archive) -> str | None:
    """What is wrong with an archive: its checksum or, of a tar for which none is published, its list of members."""
    if archive.checksum is not None:
        algorithm = archive.checksum.split(":")[0]
        with open(path, "rb") as file:
            actual = f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
        return None if actual == archive.checksum else f"checksum {actual} does not match {archive.checksum}"
    if not archive.name.endswith((".tgz", ".tar.gz")):
        return None
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
                    return f"member {member.name!r} is a link or lies outside the archive"
    except DAMAGED as error:
        return f"damaged archive ({error})"
    return None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what the standard library says of a damaged archive or member into a `DatasetError`."""
    try:
        yield
    except DatasetError:
        raise
    except KeyError as error:
        raise DatasetError(f"{path}: not the published archive: {error.args[0]}") from None
    except DAMAGED as error:
        raise DatasetError(f"{path}: damaged archive ({error}); delete it and run again") from None


def _table(lines: Iterable[bytes], spec: DatasetSpec, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse CSV lines ``label,bit,...,bit`` (label 1..classes, maybe quoted) to [n, d] and 0-based labels.

    One line at a time, straight from the bytes: Texas is 830 MB of text, and an error can name its line.
    """
    width = spec.input_shape[0]
    bits, labels = bytearray(), []
    for number, line in enumerate(lines, start=1):
        label, _, features = line.translate(None, b'" \r\n').partition(b",")
        if not label.isdigit() or not 1 <= int(label) <= spec.classes:
            found = label[:20].decode(errors="replace")
            raise DatasetError(f"{where}, line {number}: label {found!r} is not in 1..{spec.classes}")
        cells = np.frombuffer(features, np.uint8)
        values, commas = cells[::2] - ord("0"), cells[1::2]
        if len(cells) != 2 * width - 1 or (commas != ord(",")).any() or (values > 1).any():
            fields = features.decode(errors="replace").split(",")
            if len(fields) != width:
                raise DatasetError(f"{where}, line {number}: {len(fields)} features, but {spec.name} has {width}")
            column, value = next((i, f) for i, f in enumerate(fields, start=1) if f not in ("0", "1"))
            raise DatasetError(f"{where}, line {number}: feature {column} is {value!r}, neither 0 nor 1")
        labels.append(int(label) - 1)
        bits += values.tobytes()
    return np.frombuffer(bits, np.uint8).reshape(-1, width), np.array(labels)


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """A stream of one file of the archive; nothing is ever extracted to disk."""
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(f"{name!r} is no file")
    return file


def _read_csv(spec: DatasetSpec, folder: Path, member: str) -> tuple[np.ndarray, np.ndarray]:
    """A tar of one CSV, label first."""
    path = folder / spec.archives[0].name
    with _readable(path), tarfile.open(path, "r:gz") as tar:
        return _table(_member(tar, member), spec, f"{path}: {member}")


def _read_texas(spec: DatasetSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    path = folder / spec.archives[0].name
    with _readable(path), tarfile.open(path, "r:gz") as tar:
        # The labels whole and first: alternating between two members would rewind the gzip stream each time.
        labels = _member(tar, "texas/100/labels").read().splitlines()
        pairs = itertools.zip_longest(labels, _member(tar, "texas/100/feats"), fillvalue=b"")
        return _table((b"%b,%b" % pair for pair in pairs), spec, f"{path}: texas/100/labels and feats")


def _read_images(spec: DatasetSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images of a zip with a folder per class, classes in alphabetical order; train/ comes before test/."""
    from PIL import Image

    path, (_, height, width) = folder / spec.archives[0].name, spec.input_shape
    images, labels = [], []
    with _readable(path), zipfile.ZipFile(path) as archive:
        names = [PurePosixPath(n) for n in archive.namelist() if n.endswith((".jpg", ".tif"))]
        classes = sorted({name.parent.name for name in names})
        for name in sorted(names, key=lambda n: (n.parts[0] == "test", n)):
            with _readable(path / name), Image.open(io.BytesIO(archive.read(str(name)))) as image:
                # Pillow widens the bilinear filter when it shrinks an image, so this is antialiased.
                images.append(np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)))
            labels.append(classes.index(name.parent.name))
    if not images:
        raise DatasetError(f"{path}: not the published archive: no .jpg or .tif images in it")
    return np.stack(images).transpose(0, 3, 1, 2), np.array(labels)


def _read_cifar(spec: DatasetSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Both halves, train first; torchvision extracts the verified archive and checks what it reads."""
    from torchvision import datasets

    dataset = datasets.CIFAR100 if spec.name == "cifar100" else datasets.CIFAR10
    parts = [dataset(folder, train=train, download=True) for train in (True, False)]
    inputs = np.concatenate([part.data for part in parts]).transpose(0, 3, 1, 2)
    return inputs, np.concatenate([part.targets for part in parts])


def _read_svhn(spec: DatasetSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Train and test, without the extra images."""
    from torchvision import datasets

    parts = [datasets.SVHN(folder, split=split) for split in ("train", "test")]
    return np.concatenate([part.data for part in parts]), np.concatenate([part.labels for part in parts])


def _read_digits(spec: DatasetSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's bundled digits: grey values 0..16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images.astype(np.uint8)[:, None], digits.target


_RGB = (3, 32, 32)
# scale, mean, std
_CIFAR_NORM = (255, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_SVHN_NORM = (255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CHMNIST_NORM = (255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_DIGITS_NORM = (16, (0.0,), (1.0,))
_BITS: tuple[int, tuple[float, ...], tuple[float, ...]] = (1, (), ())

_CIFAR10 = Archive(
    "cifar-10-python.tar.gz",
    "md5:c58f30108f718f92721af3b95e74349a",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
_CIFAR100 = Archive(
    "cifar-100-python.tar.gz",
    "md5:eb9058c3a382ffc7106e4002c42a8d85",
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
)
_SVHN_TRAIN = Archive(
    "train_32x32.mat",
    "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
    "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
)
_SVHN_TEST = Archive(
    "test_32x32.mat",
    "md5:eb5a983be6a315427106f1b164d9cef3",
    "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
)
_CHMNIST = Archive(
    "Kather_texture_2016_image_tiles_5000.zip",
    "sha384:7d86abe1d04e68b77c055820c2a4c582a1d25d2983e38ab724eac75affce8b7cb2cbf5ba68848dcfd9d84005d87d6790",
    "https://zenodo.org/record/53169/files/Kather_texture_2016_image_tiles_5000.zip",
)
_CIFAR10_JPEG = Archive(
    "cifar10_jpeg.zip", "sha256:907df706baa630e728c0dd0cf95d93045f34c1fdefda3fc050bc72d50b21c7ec", None
)
_LOCATION = Archive(
    "dataset_location.tgz",
    "sha256:927203f85a868f8ee17a0ded1dc61699efe602167beabe34fbf45b4b1de94b33",
    "https://github.com/privacytrustlab/datasets/raw/master/dataset_location.tgz",
)
# Their publisher gives no checksums; every line is validated instead.
_PURCHASE = Archive("dataset_purchase.tgz", None, "https://www.comp.nus.edu.sg/~reza/files/dataset_purchase.tgz")
_TEXAS = Archive("dataset_texas.tgz", None, "https://www.comp.nus.edu.sg/~reza/files/dataset_texas.tgz")

_location_csv = partial(_read_csv, member="bangkok")
_purchase_csv = partial(_read_csv, member="dataset_purchase")

SPECS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec("cifar10", _RGB, 10, 60_000, *_CIFAR_NORM, (_CIFAR10,), _read_cifar),
        DatasetSpec("cifar100", _RGB, 100, 60_000, *_CIFAR_NORM, (_CIFAR100,), _read_cifar),
        DatasetSpec("svhn", _RGB, 10, 99_289, *_SVHN_NORM, (_SVHN_TRAIN, _SVHN_TEST), _read_svhn),
        DatasetSpec("chmnist", _RGB, 8, 5_000, *_CHMNIST_NORM, (_CHMNIST,), _read_images),
        # CIFAR-10 re-encoded as JPEG: figures on it are never to be reported as CIFAR-10.
        DatasetSpec("cifar10_jpeg", _RGB, 10, 60_000, *_CIFAR_NORM, (_CIFAR10_JPEG,), _read_images),
        DatasetSpec("digits", (1, 8, 8), 10, 1_797, *_DIGITS_NORM, (), _read_digits),
        DatasetSpec("location", (446,), 30, 5_010, *_BITS, (_LOCATION,), _location_csv),
        DatasetSpec("purchase", (600,), 100, 197_324, *_BITS, (_PURCHASE,), _purchase_csv),
        DatasetSpec("texas", (6_169,), 100, 67_330, *_BITS, (_TEXAS,), _read_texas),
    )
}
