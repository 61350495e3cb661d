"""The published archives: where they come from, and whether a file is one of them."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from miaprune.files import FileError, whole
from miaprune.grid import known

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


ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "cifar10": (
        Archive(
            "cifar-10-python.tar.gz",
            "md5:c58f30108f718f92721af3b95e74349a",
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ),
    ),
    "cifar100": (
        Archive(
            "cifar-100-python.tar.gz",
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
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
    "cifar10_jpeg": (
        Archive("cifar10_jpeg.zip", "sha256:907df706baa630e728c0dd0cf95d93045f34c1fdefda3fc050bc72d50b21c7ec", None),
    ),
    "digits": (),
    "location": (
        Archive(
            "dataset_location.tgz",
            "sha256:927203f85a868f8ee17a0ded1dc61699efe602167beabe34fbf45b4b1de94b33",
            "https://github.com/privacytrustlab/datasets/raw/master/dataset_location.tgz",
        ),
    ),
    # Their publisher gives no checksums; every line is validated instead.
    "purchase": (
        Archive("dataset_purchase.tgz", None, "https://www.comp.nus.edu.sg/~reza/files/dataset_purchase.tgz"),
    ),
    "texas": (Archive("dataset_texas.tgz", None, "https://www.comp.nus.edu.sg/~reza/files/dataset_texas.tgz"),),
}
"""By data set, the files that are to lie in ``{data_dir}/{dataset}/``."""


def fetch_archives(archives: tuple[Archive, ...], folder: Path, download: bool = True) -> None:
    """Verify the archives in ``folder``, downloading what is missing; raises `DatasetError`."""
    for archive in archives:
        path = folder / archive.name
        if path.exists():
            _verify(path, archive)
        elif download and archive.url:
            _download(path, archive)
        else:
            raise DatasetError(_missing(path, archive))


def check_archives(name: str, data_dir: str | Path) -> None:
    """Check, before any job starts, those of a dataset's archives that lie in ``{data_dir}/{name}``.

    Raises
    ------
    GridError : on an unknown name.
    DatasetError : if one is damaged, or is missing and has no address to download it from.
    """
    for archive in ARCHIVES[known("dataset", name, ARCHIVES)]:
        path = Path(data_dir, name, archive.name)
        if path.exists():
            _verify(path, archive)
        elif archive.url is None:
            raise DatasetError(_missing(path, archive))


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
