"""The archives' formats: each reader gives all records, inputs uint8 or floats [n, ...] and 0-based labels int [n]."""

from __future__ import annotations

import io
import itertools
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import numpy as np

from miaprune.data.archives import DAMAGED, DatasetError

if TYPE_CHECKING:
    from miaprune.data.datasets import DatasetSpec


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


def read_csv(spec: DatasetSpec, folder: Path, member: str) -> tuple[np.ndarray, np.ndarray]:
    """A tar of one CSV, label first."""
    path = folder / spec.archives[0].name
    with _readable(path), tarfile.open(path, "r:gz") as tar:
        return _table(_member(tar, member), spec, f"{path}: {member}")


def read_texas(spec: DatasetSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    path = folder / spec.archives[0].name
    with _readable(path), tarfile.open(path, "r:gz") as tar:
        # The labels whole and first: alternating between two members would rewind the gzip stream each time.
        labels = _member(tar, "texas/100/labels").read().splitlines()
        pairs = itertools.zip_longest(labels, _member(tar, "texas/100/feats"), fillvalue=b"")
        return _table((b"%b,%b" % pair for pair in pairs), spec, f"{path}: texas/100/labels and feats")


def read_images(spec: DatasetSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
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


def read_cifar(spec: DatasetSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Both halves, train first; torchvision extracts the verified archive and checks what it reads."""
    from torchvision import datasets

    dataset = datasets.CIFAR100 if spec.name == "cifar100" else datasets.CIFAR10
    parts = [dataset(folder, train=train, download=True) for train in (True, False)]
    inputs = np.concatenate([part.data for part in parts]).transpose(0, 3, 1, 2)
    return inputs, np.concatenate([part.targets for part in parts])


def read_svhn(spec: DatasetSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Train and test, without the extra images."""
    from torchvision import datasets

    parts = [datasets.SVHN(folder, split=split) for split in ("train", "test")]
    return np.concatenate([part.data for part in parts]), np.concatenate([part.labels for part in parts])


def read_digits(spec: DatasetSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's bundled digits: grey values 0..16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images.astype(np.uint8)[:, None], digits.target
