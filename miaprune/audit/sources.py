"""What models said, read from files: .npz, .safetensors, .csv or .parquet, by one convention for all.

Arrays ``logits`` or ``posteriors`` [n, C], ``labels`` [n], ``members`` [n] and, for SAMIA, ``sensitivities`` [n, C]; in
tables columns ``label``, ``member``, ``logit0``, ``logit1``, ... or ``p0``, ``p1``, ..., ``sensitivity0``, .... Of K
reference models [K, n, C] and ``members`` [K, n]; in tables the column ``reference``, 0 to K - 1, each with all
records in the same order. Files are read in pieces: of references only margins are kept. No pickle is read.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from miaprune.audit.evidence import (
    References,
    Version,
    as_labels,
    as_members,
    fault_of,
    fault_of_members,
    margins_of,
    posteriors_of,
    saturated_in,
)
from miaprune.audit.formats import FORMATS, lacking, pieces
from miaprune.files import FileError
from miaprune.signals import Signals

DAMAGED = (zipfile.BadZipFile, zlib.error, SafetensorError)
"""What a format's own library raises on a file that is not as it should be."""

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy")


def check_path(path: str | Path) -> Path:
    """The path of a file that may be what is asked for; raises `FileError`, within milliseconds, if it can't be."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS[:-1]) + f" or {FORMATS[-1]}"
        what = "a checkpoint or a pickle, which is" if path.suffix.lower() in PICKLES else "a format that is"
        raise FileError(f"{path}: {what} never read; save what the model said as {known}")
    if path.is_dir():
        raise FileError(f"{path}: a folder; give the file")
    if not path.exists():
        raise FileError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise FileError(f"{path}: empty")
    if path.suffix.lower() != ".safetensors" and start[:1] == b"\x80" and start[1:] < b"\x06":
        raise FileError(f"{path}: a pickle, which is never read; save arrays with np.savez")
    return path


def read_version(path: str | Path) -> Version:
    """One version of the audited model; raises `FileError` on what no attack can take."""
    path, said, margins, saturated, first = check_path(path), [], [], 0, 0
    with _faults(path):
        for piece in pieces(path, None):
            if piece.labels is None:
                raise ValueError(lacking(path, "labels"))
            labels = as_labels(piece.labels)
            if fault := fault_of(piece.kind, piece.outputs, labels, first):
                raise ValueError(fault)
            rows = piece.sensitivities
            rows = np.empty((len(labels), 0), np.float32) if rows is None else rows.astype(np.float32, copy=False)
            said.append((posteriors_of(piece.kind, piece.outputs), rows, labels, as_members(piece.members)))
            margins.append(margins_of(piece.kind, piece.outputs, labels))
            saturated += saturated_in(piece.kind, piece.outputs, labels)
            first += len(labels)
        if not said:
            raise ValueError("no records")
        columns = [np.concatenate(column) for column in zip(*said, strict=True)]
        del said
        if fault := fault_of_members(columns[3]):
            raise ValueError(fault)
        return Version(Signals(*columns), np.concatenate(margins), saturated, source_of(path))


def read_references(path: str | Path, labels: np.ndarray) -> References:
    """What reference models said of the audited records, whose labels are int64 [n]; raises `FileError`."""
    path, n, first = check_path(path), len(labels), 0
    margins: list[np.ndarray] = []
    members: list[np.ndarray] = []
    with _faults(path):
        for piece in pieces(path, n):
            rows = np.arange(first, first + len(piece.outputs))
            true = labels[rows % n]
            if piece.labels is not None and (other := as_labels(piece.labels) != true).any():
                place = int(other.argmax())
                record, reference = rows[place] % n, rows[place] // n
                raise ValueError(
                    f"record {record} of reference {reference}: label {piece.labels[place]}, but the versions have "
                    f"{true[place]}; references are asked the same {n} records in the same order"
                )
            if piece.reference is not None and (other := as_labels(piece.reference) != rows // n).any():
                place = int(other.argmax())
                raise ValueError(
                    f"row {rows[place]}: reference {piece.reference[place]}, not {rows[place] // n}; each must have "
                    f"the {n} audited records, one reference after the other"
                )
            if fault := fault_of(piece.kind, piece.outputs, true, first):
                raise ValueError(fault)
            margins.append(margins_of(piece.kind, piece.outputs, true))
            members.append(as_members(piece.members))
            first += len(rows)
        if not first or first % n:
            raise ValueError(f"{first} records of references, no multiple of the {n} audited ones")
        shape = (first // n, n)
        return References(
            np.concatenate(margins).reshape(shape), np.concatenate(members).reshape(shape), source_of(path)
        )


def source_of(path: Path) -> dict[str, Any]:
    """What a result says of a file: its name and SHA-256."""
    with path.open("rb") as file:
        return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """What may go wrong in reading, as a `FileError` of one line that names the file."""
    try:
        yield
    except FileError:
        raise
    except (ValueError, OSError, EOFError, NotImplementedError, *DAMAGED) as error:
        raise FileError(f"{path}: {str(error).splitlines()[0] if str(error) else 'damaged'}") from None
    except MemoryError:
        raise FileError(f"{path}: larger than the memory") from None
