"""The published archives: where they come from, and whether what lies in their place holds the same."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from miaprune.catalog import DATASETS
from miaprune.entries import known
from miaprune.files import FileError, whole

DOWNLOAD_TIMEOUT = 60  # seconds without a byte

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError)
"""What reading a damaged archive can raise (Pillow's and gzip's errors are OSErrors)."""


class DatasetError(FileError):
    """An archive or a prepared file that cannot be used; the message is one line that says what to do."""


@dataclass(frozen=True)
class Archive:
    """A published file that is to lie in ``{data_dir}/{dataset}``.

    Attributes
    ----------
    name : of the file.
    checksum : ``algorithm:hexdigest``; the algorithm is one of hashlib's, or ``git-sha1``, by which git names a file.
    url : its address.
    members : the files in it that are read, each by the end of its path. Every line or record of them is checked as it
        is read; so the archive may be packed anew, or be unpacked: they may lie in that folder, or up to two below.
    instead : another publication of the same records, taken where the first is not.
    records : SHA-256 of the train and of the test records that the reader makes of it; empty where none are known.
    """

    name: str
    checksum: str
    url: str
    members: tuple[str, ...] = ()
    instead: Archive | None = None
    records: tuple[str, ...] = ()


def _cifar(
    classes: int, md5: tuple[str, str], train: tuple[str, ...], test: str, records: tuple[str, ...]
) -> tuple[Archive]:
    """CIFAR-10 or -100: the release for Python, which is downloaded, or the binary one."""
    binary, pickled = (f"cifar-{classes}-{release}.tar.gz" for release in ("binary", "python"))
    site, names = "https://www.cs.toronto.edu/~kriz", (*train, test)
    second = Archive(
        binary, f"md5:{md5[0]}", f"{site}/{binary}", members=tuple(f"{name}.bin" for name in names), records=records
    )
    return (Archive(pickled, f"md5:{md5[1]}", f"{site}/{pickled}", names, second, records),)


_SHOKRI = "https://github.com/privacytrustlab/datasets/raw/master"
"""The tables' publisher; at 169de9de all three archives are there, and git's names of them are their checksums."""

ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "cifar10": _cifar(
        10,
        ("c32a1d4ab5d03f1284b67883e8d87530", "c58f30108f718f92721af3b95e74349a"),
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        (
            "a0181da372c0d63a5920fdbea2ec3f83ecbc552d378218e1cb473cf634941a3b",
            "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        ),
    ),
    "cifar100": _cifar(
        100,
        ("03b5dce01913d631647c71ecec9e9cb8", "eb9058c3a382ffc7106e4002c42a8d85"),
        ("train",),
        "test",
        (
            "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
            "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
        ),
    ),
    "svhn": (
        Archive(
            "train_32x32.mat",
            "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
            "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
        ),
        Archive(
            "test_32x32.mat",
            "md5:eb5a983be6a315427106f1b164d9cef3",
            "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
        ),
    ),
    "chmnist": (
        Archive(
            "Kather_texture_2016_image_tiles_5000.zip",
            "sha384:7d86abe1d04e68b77c055820c2a4c582a1d25d2983e38ab724eac75affce8b7cb2cbf5ba68848dcfd9d84005d87d6790",
            "https://zenodo.org/record/53169/files/Kather_texture_2016_image_tiles_5000.zip",
        ),
    ),
    "location": (
        Archive(
            "dataset_location.tgz",
            "sha256:927203f85a868f8ee17a0ded1dc61699efe602167beabe34fbf45b4b1de94b33",
            f"{_SHOKRI}/dataset_location.tgz",
            members=("bangkok",),
        ),
    ),
    "purchase": (
        Archive(
            "dataset_purchase.tgz",
            "git-sha1:3efa7476ad5ed7ac3e558d28585a186b38fc5f19",
            f"{_SHOKRI}/dataset_purchase.tgz",
            members=("dataset_purchase",),
        ),
    ),
    "texas": (
        Archive(
            "dataset_texas.tgz",
            "git-sha1:966f7ff40b24cf5912ff84759aab9adb8c25f30e",
            f"{_SHOKRI}/dataset_texas.tgz",
            members=("100/labels", "100/feats"),
        ),
    ),
}
"""By published data set, all the files that are to lie in ``{data_dir}/{dataset}/``."""


@dataclass(frozen=True)
class Copy:
    """An archive as it was found: the file, or the folder in which its members lie."""

    archive: Archive
    path: Path


def find(archive: Archive, folder: Path) -> Copy | None:
    """The copy of an archive that is in its data set's folder: the file before an unpacked one; None without one."""
    releases = [archive, *([archive.instead] if archive.instead else [])]
    for release in releases:
        if (folder / release.name).is_file():
            return Copy(release, folder / release.name)
    for release in releases:
        for place in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
            if release.members and all((place / member).is_file() for member in release.members):
                return Copy(release, place)
    return None


@contextmanager
def members(copy: Copy) -> Iterator[Mapping[str, IO[bytes]]]:
    """Streams of a copy's members by name, in the order in which they are stored; nothing is unpacked to disk.

    Raises
    ------
    KeyError : on a member that an archive lacks.
    """
    names = copy.archive.members
    if copy.path.is_dir():
        with ExitStack() as files:
            yield {name: files.enter_context(open(copy.path / name, "rb")) for name in names}
        return
    with tarfile.open(copy.path, "r:gz") as tar:
        found = _named(tar, names)
        streams = {name: tar.extractfile(member) for name, member in found.items()}
        yield {name: stream for name, stream in streams.items() if stream}


def _named(tar: tarfile.TarFile, names: tuple[str, ...]) -> dict[str, tarfile.TarInfo]:
    """The members whose paths end with these names, as ``./name`` and ``folder/name`` do, as they are stored."""
    found = {}
    for member in tar:
        for name in names:
            parts = PurePosixPath(name).parts
            if member.isfile() and PurePosixPath(member.name).parts[-len(parts) :] == parts:
                found[name] = member
    if lacking := [name for name in names if name not in found]:
        raise KeyError(f"no file {lacking[0]!r} in it")
    return found


def fetch_archives(archives: tuple[Archive, ...], folder: Path, download: bool = True) -> list[str]:
    """Verify the archives in ``folder``, downloading what is missing; returns what was checked, archive by archive.

    Raises
    ------
    DatasetError : if one is missing, damaged, or not the published one where no copy would do.
    """
    checked = []
    for archive in archives:
        copy = find(archive, folder)
        if copy is None and download:
            copy = Copy(archive, folder / archive.name)
            _download(copy.path, archive)
        if copy is None:
            raise DatasetError(_missing(folder / archive.name, archive))
        checked.append(_verify(copy))
    return checked


def check_archives(name: str, data_dir: str | Path) -> None:
    """Check, before any job starts, those of a dataset's archives, if it has any, that lie in ``{data_dir}/{name}``.

    Raises
    ------
    GridError : on an unknown name.
    DatasetError : if one is damaged.
    """
    folder = Path(data_dir, name)
    for archive in ARCHIVES.get(known("dataset", name, DATASETS), ()):
        copy = find(archive, folder)
        if copy is not None:
            _verify(copy)


def _missing(path: Path, archive: Archive) -> str:
    unpacked = f", and no folder there has {', '.join(archive.members)}" if archive.members else ""
    return f"{path} is missing{unpacked}: get it from {archive.url} and put it there"


def _download(path: Path, archive: Archive) -> None:
    """Fetch an archive to ``path``, whole and as published or not at all."""
    request = urllib.request.Request(archive.url, headers={"User-Agent": "miaprune"})
    with whole(path) as temporary:
        try:
            response = urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT)
            with response, open(temporary, "wb") as file:
                shutil.copyfileobj(response, file)
            fault = _unpublished(temporary, archive)
        except (OSError, http.client.HTTPException) as error:
            fault = repr(error)
        if fault:
            raise DatasetError(f"{_missing(path, archive)} (download failed: {fault})")


def _verify(copy: Copy) -> str:
    """What has been checked of a copy, or will be by its reader; raises `DatasetError` if it cannot be used."""
    archive, path = copy.archive, copy.path
    if path.is_dir():
        return _by_content(archive) or f"{', '.join(archive.members)}: every line is valid; the archive was not there"
    fault = unpublished = _unpublished(path, archive)
    if fault and archive.members:
        fault = _damaged(path, archive)
    if fault:
        raise DatasetError(f"{path}: {fault}; delete it and download it again from {archive.url}")
    if content := _by_content(archive):
        return content
    if unpublished:
        return f"{path.name}: every line is valid; it is not the published file, whose checksum is {archive.checksum}"
    return f"{path.name}: {archive.checksum}"


def _by_content(archive: Archive) -> str | None:
    """What a reader checks of the records themselves: it is sure, in whatever form they came."""
    return f"all records: sha256:{', sha256:'.join(archive.records)}" if archive.records else None


def _unpublished(path: Path, archive: Archive) -> str | None:
    """What tells a file from the published archive; None where nothing does."""
    algorithm = archive.checksum.partition(":")[0]
    actual = f"{algorithm}:{_hexdigest(path, algorithm)}"
    return None if actual == archive.checksum else f"checksum {actual} does not match {archive.checksum}"


def _hexdigest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        if algorithm != "git-sha1":
            return hashlib.file_digest(file, algorithm).hexdigest()
        blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
        return hashlib.file_digest(file, lambda: blob).hexdigest()


def _damaged(path: Path, archive: Archive) -> str | None:
    """What is wrong with a tar that somebody packed anew, as far as its list of members and gzip's checksum tell."""
    try:
        with gzip.open(path) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                _named(tar, archive.members)
            while stream.read(2**20):  # the checksum stands behind all that tar reads
                pass
    except KeyError as error:
        return f"not the published archive: {error.args[0]}"
    except DAMAGED as error:
        return f"damaged archive ({error})"
    return None
