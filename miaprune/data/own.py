"""Data sets of users' own: arrays from their files, and from whatever their functions give to what can be stored."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from miaprune.catalog import IMAGE
from miaprune.data.archives import DatasetError
from miaprune.entries import DatasetEntry

LEAST = 16
"""Records that a split needs: 8 in the victim's half, 8 in the adversary's."""


def read_file(file: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of a file, by its suffix: .csv, .npz, .parquet or .safetensors.

    An .npz or .safetensors has arrays ``inputs`` [n, ...] and ``labels`` [n]; a table has a row for each record, a
    column of numbers for each feature, and the column ``label``. Raises `DatasetError`.
    """
    suffix = Path(file).suffix
    try:
        if suffix == ".npz":
            with np.load(file, allow_pickle=False) as stored:
                return _two(file, dict(stored))
        if suffix == ".safetensors":
            from safetensors.numpy import load_file

            return _two(file, load_file(file))
        return _columns(file, label)
    except DatasetError:
        raise
    except ImportError:
        raise DatasetError(f"{file}: to read Parquet, pandas needs pyarrow; install it or write CSV") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(f"{file}: cannot be read as {suffix} ({said})") from None


def _two(file: str, stored: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if lacking := [name for name in ("inputs", "labels") if name not in stored]:
        raise DatasetError(f"{file}: has no array {lacking[0]!r}, but {', '.join(stored)}; name two inputs and labels")
    return stored["inputs"], stored["labels"]


def _columns(file: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    import pandas as pd

    table = pd.read_csv(file) if Path(file).suffix == ".csv" else pd.read_parquet(file)
    if label not in table:
        few = [str(column) for column in table.columns[-5:]]
        raise DatasetError(f"{file}: has no column {label!r}, the last ones are {', '.join(few)}; say label: ...")
    features = table.drop(columns=label)
    for column in features:
        if features[column].dtype.kind not in "biuf":
            raise DatasetError(f"{file}: column {column!r} is no number; leave it out or code it by numbers")
    if len(features.columns) == 0:
        raise DatasetError(f"{file}: has no column beside {label!r}")
    return features.to_numpy(dtype=np.float64), table[label].to_numpy()


def arrays(entry: DatasetEntry, found: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What a user's function or file gave as arrays that can be checked and stored, and what the classes were called.

    Inputs are uint8 or float32, [n, features] or [n, channels, height, width]; labels are numbered in sorted order
    where the entry says of no ``classes``. Raises `DatasetError`.
    """
    import pandas as pd

    try:
        given, labelled = found
        inputs, labels = np.asarray(given), np.asarray(labelled)
    except (TypeError, ValueError):
        raise DatasetError(f"{entry.name}: give two arrays, inputs [n, ...] and labels [n]") from None
    if inputs.dtype == bool:
        inputs = inputs.astype(np.uint8)
    elif inputs.dtype.kind in "iuf" and inputs.dtype != np.uint8:
        inputs = inputs.astype(np.float32)
    if entry.kind == IMAGE and inputs.ndim == 3:
        inputs = inputs[:, None]
    dimensions = 4 if entry.kind == IMAGE else 2
    if inputs.ndim != dimensions:
        right = "[n, channels, height, width]" if entry.kind == IMAGE else "[n, features]"
        raise DatasetError(f"{entry.name}: inputs {list(inputs.shape)}, but those of a kind {entry.kind} are {right}")
    if dimensions == 4 and inputs.shape[3] in (1, 3) and inputs.shape[1] > 3:
        raise DatasetError(
            f"{entry.name}: inputs {list(inputs.shape)} have their channels last; give inputs.transpose(0, 3, 1, 2)"
        )
    if entry.classes is not None:
        return inputs, labels, []
    if labels.ndim != 1:
        raise DatasetError(f"{entry.name}: labels {list(labels.shape)}; give one label for each record")
    missing = pd.isna(labels)
    if missing.any():
        raise DatasetError(f"{entry.name}: labels of {np.count_nonzero(missing)} of {len(labels)} records are missing")
    names, numbered = np.unique(labels.astype(str) if labels.dtype == object else labels, return_inverse=True)
    return inputs, numbered, [str(name) for name in names.tolist()]


def too_little(inputs: np.ndarray, labels: np.ndarray) -> str | None:
    """Why nothing can be learnt from these records, in half a line that says what would be right; None if it can."""
    if len(labels) < LEAST:
        return f"{len(labels)} records, but a split needs {LEAST} or more: half for the victim, half for the adversary"
    if len(np.unique(labels)) < 2:
        return f"all records are of class {labels[0]}; a classifier needs two or more"
    if inputs[0].size == 0:
        return "inputs have no features"
    return None


def bits(inputs: np.ndarray) -> bool:
    """Whether a table's features are all 0 or 1; record by record, as of all of Texas at once it takes gigabytes."""
    return inputs.ndim == 2 and all(((record == 0) | (record == 1)).all() for record in inputs)


def moments(inputs: np.ndarray, scale: float) -> tuple[list[float], list[float]]:
    """Mean and standard deviation (1 where it is 0) of each feature, or of each channel, of inputs / scale."""
    axes = (0, *range(2, inputs.ndim))
    mean = inputs.mean(axis=axes, dtype=np.float64)
    centre = mean.reshape(-1, *(1 for _ in axes[1:]))
    parts = (inputs[i : i + 1024] for i in range(0, len(inputs), 1024))  # float64 of all at once is large
    squares = sum(((part - centre) ** 2).sum(axis=axes) for part in parts)
    std = np.sqrt(squares / (inputs.size / inputs.shape[1])) / scale
    return (mean / scale).tolist(), np.where(std > 0, std, 1.0).tolist()


def misfit(name: str, numbers: Sequence[float], channels: int) -> str | None:
    """Why these cannot be means or deviations of inputs with so many channels or features; None if they can."""
    if len(numbers) not in (1, channels):
        return f"{name} has {len(numbers)} numbers; give one, or one for each of {channels}"
    if not np.isfinite(numbers).all() or (name == "std" and min(numbers) <= 0):
        return f"{name} must be finite numbers{' above 0' * (name == 'std')}"
    return None
