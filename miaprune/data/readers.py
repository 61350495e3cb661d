"""The archives' formats: each reader gives all records, inputs uint8 or floats [n, ...] and 0-based labels int [n]."""

from __future__ import annotations

import hashlib
import io
import itertools
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from miaprune.catalog import DATASETS
from miaprune.data.archives import ARCHIVES, DAMAGED, Archive, Copy, DatasetError, find, members


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


@contextmanager
def _opened(archive: Archive, folder: Path) -> Iterator[tuple[Copy, Mapping[str, IO[bytes]]]]:
    """The copy of an archive, and its members; raises `DatasetError`, also on what is read of them."""
    copy = find(archive, folder) or Copy(archive, folder / archive.name)
    with _readable(copy.path), members(copy) as files:
        yield copy, files


def _shape(name: str) -> tuple[int, ...]:
    """The shape of one record of a published data set."""
    shape = DATASETS[name].shape
    assert shape is not None
    return shape


def _table(lines: Iterable[bytes], name: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse CSV lines ``label,bit,...,bit`` (label 1..classes, maybe quoted) to [n, d] and 0-based labels.

    One line at a time, straight from the bytes: Texas is 830 MB of text, and an error can name its line. Empty lines
    may only come last.
    """
    width, classes = _shape(name)[0], DATASETS[name].classes or 0
    bits, labels = bytearray(), []
    given = enumerate((line.translate(None, b'" \r\n') for line in lines), start=1)
    for number, line in given:
        if not line and not any(after for _, after in given):
            break
        label, _, features = line.partition(b",")
        if not label.isdigit() or not 1 <= int(label) <= classes:
            found = label[:20].decode(errors="replace")
            raise DatasetError(f"{where}, line {number}: label {found!r} is not in 1..{classes}")
        cells = np.frombuffer(features, np.uint8)
        values, commas = cells[::2] - ord("0"), cells[1::2]
        if len(cells) != 2 * width - 1 or (commas != ord(",")).any() or (values > 1).any():
            fields = features.decode(errors="replace").split(",")
            if len(fields) != width:
                raise DatasetError(f"{where}, line {number}: {len(fields)} features, but {name} has {width}")
            column, value = next((i, f) for i, f in enumerate(fields, start=1) if f not in ("0", "1"))
            raise DatasetError(f"{where}, line {number}: feature {column} is {value!r}, neither 0 nor 1")
        labels.append(int(label) - 1)
        bits += values.tobytes()
    return np.frombuffer(bits, np.uint8).reshape(-1, width), np.array(labels)


def read_csv(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """One CSV, label first."""
    (archive,) = ARCHIVES[name]
    (member,) = archive.members
    with _opened(archive, folder) as (copy, files):
        return _table(files[member], name, f"{copy.path}: {member}")


def read_texas(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The labels in one file, the features in another."""
    (archive,) = ARCHIVES[name]
    with _opened(archive, folder) as (copy, files):
        # The labels whole and first: alternating between two members would rewind the gzip stream each time.
        labels = files["100/labels"].read().splitlines()
        pairs = itertools.zip_longest(labels, files["100/feats"], fillvalue=b"")
        lines = (b"%b,%b" % pair if any(map(bytes.strip, pair)) else b"" for pair in pairs)
        return _table(lines, name, f"{copy.path}: 100/labels and feats")


def read_images(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images of a zip with a folder per class, classes and images in alphabetical order."""
    from PIL import Image

    path, (_, height, width) = folder / ARCHIVES[name][0].name, _shape(name)
    images, labels = [], []
    with _readable(path), zipfile.ZipFile(path) as archive:
        members = [PurePosixPath(n) for n in archive.namelist() if n.endswith(".tif")]
        classes = sorted({member.parent.name for member in members})
        for member in sorted(members):
            with _readable(path / member), Image.open(io.BytesIO(archive.read(str(member)))) as image:
                # Pillow widens the bilinear filter when it shrinks an image, so this is antialiased.
                images.append(np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)))
            labels.append(classes.index(member.parent.name))
    if not images:
        raise DatasetError(f"{path}: not the published archive: no .tif images in it")
    return np.stack(images).transpose(0, 3, 1, 2), np.array(labels)


_reconstruct: Any = np.empty(1).__reduce__()[0]
_frombuffer: Any = np.empty(1).__reduce_ex__(5)[0]

_PICKLED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # how Python 3 pickles bytes for Python 2
    ("builtins", "bytes"): bytes,
    ("builtins", "bytearray"): bytearray,
}
"""All that a pickle may call: what makes arrays and bytes, under the names that old and new writers give it."""


class _Unpickler(pickle.Unpickler):
    """Reads dicts, lists, numbers, texts and arrays; raises `pickle.UnpicklingError` on anything that is called."""

    def find_class(self, module: str, name: str) -> Any:
        known = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        if (known, name) not in _PICKLED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which no batch of images needs")
        return _PICKLED[known, name]


def _unpickled(batch: bytes, where: str) -> np.ndarray:
    """A batch of the Python release as the binary one has it: uint8 [n, labels + 3072]."""
    try:
        raw = _Unpickler(io.BytesIO(batch), encoding="latin1").load()
        facts = {key.decode() if isinstance(key, bytes) else key: value for key, value in raw.items()}
        labels = [facts["labels"]] if "labels" in facts else [facts["coarse_labels"], facts["fine_labels"]]
        return np.column_stack([np.asarray(column, np.uint8) for column in (*labels, facts["data"])])
    except Exception as error:  # damaged bytes may mean anything to pickle, and so raise anything
        raise DatasetError(f"{where}: no batch of the Python release ({error}); delete it and run again") from None


def read_cifar(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Both halves, train first, of either release, by the SHA-256 of its records; of CIFAR-100 the fine labels."""
    (archive,) = ARCHIVES[name]
    labels, width = 1 if name == "cifar10" else 2, int(np.prod(_shape(name)))
    with _opened(archive, folder) as (copy, files):
        stored = {member: file.read() for member, file in files.items()}  # as they lie in the tar: it is read once
    for member, batch in stored.items():
        if not member.endswith(".bin"):
            stored[member] = _unpickled(batch, f"{copy.path}: {member}").tobytes()
    *train, test = (stored[member] for member in copy.archive.members)
    halves = {"train": b"".join(train), "test": test}
    for (half, records), expected in zip(halves.items(), archive.records, strict=True):
        if (actual := hashlib.sha256(records).hexdigest()) != expected:
            raise DatasetError(
                f"{copy.path}: the {half} records have SHA-256 {actual}, but those published have {expected}; "
                "delete this copy and run again"
            )
    table = np.frombuffer(bytearray().join(halves.values()), np.uint8).reshape(-1, labels + width)
    return table[:, labels:].reshape(-1, *_shape(name)), table[:, labels - 1].astype(np.int64)


def read_svhn(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Train and test, without the extra images."""
    from torchvision import datasets

    parts = [datasets.SVHN(folder, split=split) for split in ("train", "test")]
    return np.concatenate([part.data for part in parts]), np.concatenate([part.labels for part in parts])


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's bundled digits: grey values 0..16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images.astype(np.uint8)[:, None], digits.target


def read_noisy_digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits with a border of 2 pixels, and to every pixel Gaussian noise of standard deviation 3 added.

    The grey values are 0..16: no two records are as alike as two clean digits of a kind, so that a network remembers
    its training records, as networks do that are trained on more and larger images. The noise is one draw, the same for
    everybody.
    """
    images, labels = read_digits()
    padded = np.pad(images.astype(np.float32), ((0, 0), (0, 0), (2, 2), (2, 2)))
    return padded + np.random.default_rng(0).normal(0.0, 3.0, padded.shape).astype(np.float32), labels
