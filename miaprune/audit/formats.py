"""The formats that `miaprune.audit.sources` reads, each as pieces of records that fit in memory."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import safe_open

from miaprune.audit.evidence import Kind

FORMATS = (".npz", ".safetensors", ".csv", ".parquet")

PIECE = 8_000_000
"""Numbers that are read at a time: 32 MB of float32."""

COLUMNS: dict[Kind, str] = {"logits": "logit", "posteriors": "p"}


@dataclass(frozen=True)
class Piece:
    """Some records of a file: arrays with as many rows each, and None for what the file does not have.

    Of reference models records are counted through: record i of reference k is row k * n + i.
    """

    kind: Kind
    outputs: np.ndarray
    labels: np.ndarray | None
    members: np.ndarray
    sensitivities: np.ndarray | None = None
    reference: np.ndarray | None = None


def pieces(path: Path, asked: int | None) -> Iterator[Piece]:
    """The file's records, in pieces; raises `ValueError` on what is wrong, without the path.

    Of references ``asked`` is how many records the versions have; None of a version.
    """
    if path.suffix.lower() == ".npz":
        return _of_npz(path, asked)
    if path.suffix.lower() == ".safetensors":
        return _of_safetensors(path, asked)
    return _of_table(path, asked is not None)


def lacking(path: Path, name: str) -> str:
    """That an array or a column lacks, and what must be there."""
    if path.suffix.lower() in (".csv", ".parquet"):
        names = {"labels": "label", "members": "member", "outputs": "p0, p1, ... (or logit0, logit1, ...)"}
        return f"no column {names.get(name, name)}; it needs label, member and p0, p1, ... or logit0, logit1, ..."
    name = "logits or posteriors" if name == "outputs" else name
    return f"no array {name}; it needs logits or posteriors, labels and members"


def _kind(path: Path, names: Collection[str]) -> Kind:
    kinds = [kind for kind in COLUMNS if kind in names]
    if not kinds:
        raise ValueError(lacking(path, "outputs"))
    if len(kinds) > 1:
        raise ValueError("logits and posteriors; give one of the two")
    return kinds[0]


def _wanted(path: Path, names: Collection[str], asked: int | None) -> tuple[Kind, list[str]]:
    """The kind of outputs, and what of a file's arrays is read; of references no sensitivities."""
    kind = _kind(path, names)
    if "members" not in names:
        raise ValueError(lacking(path, "members"))
    also = () if asked is not None else ("sensitivities",)
    return kind, [str(name) for name in (kind, "labels", "members", *also) if name in names]


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], kind: Kind, asked: int | None) -> None:
    """Raise `ValueError` unless the arrays' shapes agree."""
    outputs, axes = shapes[kind], "[n, C]" if asked is None else f"[K, {asked}, C]"
    if len(outputs) != (2 if asked is None else 3) or asked not in (None, outputs[-2]):
        hint = "; one probability a record is not enough: give both classes'" if len(outputs) == 1 else ""
        raise ValueError(f"{kind} {list(outputs)}; they must be {axes}{hint}")
    expected = {"members": outputs[:-1], "labels": outputs[-2:-1], "sensitivities": outputs}
    for name, shape in expected.items():
        if name in shapes and shapes[name] != shape:
            said = f"{name} {list(shapes[name])} do not fit {kind} {list(outputs)}"
            raise ValueError(f"{said}; they must be {list(shape)}")


def _sliced(
    kind: Kind,
    shape: tuple[int, ...],
    rows: Mapping[str, Iterator[np.ndarray]],
    labels: np.ndarray | None,
    members: np.ndarray,
) -> Iterator[Piece]:
    """Pieces of arrays, of which the large ones come in pieces of the same sizes already."""
    members, first = members.reshape(-1), 0
    for outputs in rows[kind]:
        here = slice(first, first := first + len(outputs))
        of_labels = None if labels is None else labels[np.arange(here.start, here.stop) % shape[-2]]
        sensitivities = next(rows["sensitivities"]) if "sensitivities" in rows else None
        yield Piece(kind, outputs, of_labels, members[here], sensitivities)


def _rows_at_a_time(classes: int) -> int:
    return max(1, PIECE // max(1, classes))


def _of_npz(path: Path, asked: int | None) -> Iterator[Piece]:
    """Compressed or not, an array is read as a stream."""
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy"): name for name in archive.namelist()}
        kind, wanted = _wanted(path, names, asked)
        shapes = {}
        for name in wanted:
            with archive.open(names[name]) as file:
                shapes[name], _, dtype = _header(file)
                if dtype.hasobject:
                    raise ValueError(f"{name} are Python objects, a pickle, which is never read; save numbers")
        _check_shapes(shapes, kind, asked)
        small = {}
        for name in {"labels", "members"} & set(wanted):
            with archive.open(names[name]) as file:
                small[name] = np.lib.format.read_array(file, allow_pickle=False)
        size = _rows_at_a_time(shapes[kind][-1])
        rows = {name: _streamed(archive, names[name], size) for name in wanted if name not in small}
        yield from _sliced(kind, shapes[kind], rows, small.get("labels"), small["members"])


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type of the array that a file in NumPy's format begins."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _streamed(archive: zipfile.ZipFile, name: str, size: int) -> Iterator[np.ndarray]:
    """An array's rows [..., C] counted through, ``size`` at a time."""
    with archive.open(name) as file:
        shape, fortran, dtype = _header(file)
        classes, rows = shape[-1], math.prod(shape[:-1])
        if fortran:  # its rows lie nowhere together
            values = np.frombuffer(file.read(), dtype).reshape(shape, order="F").reshape(rows, classes)
            yield from (values[first : first + size] for first in range(0, rows, size))
            return
        for first in range(0, rows, size):
            here = min(size, rows - first)
            raw = file.read(here * classes * dtype.itemsize)
            if len(raw) < here * classes * dtype.itemsize:
                raise ValueError(f"truncated in {name}")
            yield np.frombuffer(raw, dtype).reshape(here, classes)


def _of_safetensors(path: Path, asked: int | None) -> Iterator[Piece]:
    with safe_open(path, framework="np") as file:
        kind, wanted = _wanted(path, file.keys(), asked)
        slices = {name: file.get_slice(name) for name in wanted}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        _check_shapes(shapes, kind, asked)
        for name, part in slices.items():
            if part.get_dtype() == "BF16":
                raise ValueError(f"{name} are bfloat16, which NumPy lacks; save float32")
        small = {name: file.get_tensor(name) for name in {"labels", "members"} & set(wanted)}
        size = _rows_at_a_time(shapes[kind][-1])

        def rows(name: str) -> Iterator[np.ndarray]:
            """An array's rows counted through; no piece has rows of two references."""
            part, shape = slices[name], shapes[name]
            for k in range(shape[0]) if asked is not None else [None]:
                for first in range(0, shape[-2], size):
                    last = min(first + size, shape[-2])
                    yield part[first:last] if k is None else part[k : k + 1, first:last][0]

        large = {name: rows(name) for name in wanted if name not in small}
        yield from _sliced(kind, shapes[kind], large, small.get("labels"), small["members"])


def _of_table(path: Path, of_references: bool) -> Iterator[Piece]:
    table = _csv if path.suffix.lower() == ".csv" else _parquet
    columns, batches = table(path)
    kind = _kind(path, [kind for kind, stem in COLUMNS.items() if f"{stem}0" in columns])
    for name in ["member", *(["reference"] if of_references else ["label"])]:
        if name not in columns:
            raise ValueError(lacking(path, name))
    outputs = _numbered(columns, COLUMNS[kind])
    sensitivities = [] if of_references else _numbered(columns, "sensitivity")
    if sensitivities and len(sensitivities) != len(outputs):
        raise ValueError(f"{len(sensitivities)} columns of sensitivities, but {len(outputs)} of {kind}")
    whole = [name for name in ("label", "member", "reference") if name in columns]
    for batch in batches([*whole, *outputs, *sensitivities], _rows_at_a_time(len(outputs))):
        if not len(batch):
            continue
        yield Piece(
            kind,
            _matrix(batch, outputs),
            _column(batch, "label") if "label" in whole else None,
            _column(batch, "member"),
            _matrix(batch, sensitivities) if sensitivities else None,
            _column(batch, "reference") if of_references else None,
        )


def _numbered(columns: list[str], stem: str) -> list[str]:
    """The columns stem0, stem1, ..., in this order; raises `ValueError` if one lacks."""
    numbers = sorted(int(name[len(stem) :]) for name in columns if re.fullmatch(rf"{stem}\d+", name))
    for i, number in enumerate(numbers):
        if i != number:
            raise ValueError(f"no column {stem}{i}, but {stem}{numbers[-1]}")
    return [f"{stem}{i}" for i in numbers]


def _column(batch: Any, name: str) -> np.ndarray:
    """A column of a pandas table, without gaps."""
    column = batch[name]
    if column.isna().any():
        raise ValueError(f"row {column.index[column.isna()][0]}: no {name}")
    if column.dtype == object or str(column.dtype) == "str":
        raise ValueError(f"{_text(column)}; it must be {_ASKED[name]}")
    return column.to_numpy()


def _text(column: Any) -> str:
    """Where a column of a pandas table has text, and which."""
    import pandas as pd

    place = pd.to_numeric(column, errors="coerce").isna().to_numpy().argmax()
    return f"row {column.index[place]}: {column.name} is {column.iloc[place]!r}"


_ASKED = {"label": "0, 1, ...", "member": "0 and 1, or true and false", "reference": "0, 1, ..."}


def _matrix(batch: Any, names: list[str]) -> np.ndarray:
    """Columns of numbers of a pandas table, [b, C]."""
    for name in names:
        if batch[name].dtype.kind not in "fiu":
            raise ValueError(f"{_text(batch[name])}; it must be a number")
    values = batch[names].to_numpy(np.float64 if batch[names[0]].dtype.itemsize > 4 else np.float32)
    return np.ascontiguousarray(values)


def _csv(path: Path) -> tuple[list[str], Any]:
    import pandas as pd

    columns = [str(name) for name in pd.read_csv(path, nrows=1, header=None, dtype=str).iloc[0]]
    if twice := [name for name in columns if name != "nan" and columns.count(name) > 1]:
        raise ValueError(f"two columns {twice[0]}")

    def batches(names: list[str], size: int) -> Iterator[Any]:
        yield from pd.read_csv(path, usecols=names, chunksize=size)

    return columns, batches


def _parquet(path: Path) -> tuple[list[str], Any]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ValueError("Parquet needs pyarrow, which is not installed; pip install pyarrow, or save .npz") from None
    try:
        file = parquet.ParquetFile(path)
    except ArrowException as error:
        raise ValueError(str(error)) from None

    def batches(names: list[str], size: int) -> Iterator[Any]:
        first = 0
        for batch in file.iter_batches(min(size, 1 << 16), columns=names):
            table = batch.to_pandas()
            table.index += first
            first += len(table)
            yield table

    return list(file.schema_arrow.names), batches
