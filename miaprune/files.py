"""Files that are written whole or not at all, and read back with a clear word when they are damaged."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

if TYPE_CHECKING:  # torch takes 2 s to import, and half of the jobs read arrays only
    from torch import Tensor


class FileError(OSError):
    """A file that cannot be used; the message is one line: what is wrong, where, what to do."""


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that becomes ``path`` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # safetensors leaves 0600: on a shared disk colleagues could not read it
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text, in UTF-8, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_facts(path: str | Path, facts: Any, expected: Mapping[str, Any]) -> None:
    """Raise `FileError` if what the file at ``path`` says of itself is not what is expected; it may say less."""
    if not isinstance(facts, Mapping):  # a checkpoint in place of signals, say
        raise FileError(f"{path}: not the file of this name that miaprune writes; delete it and run again")
    for key, value in expected.items():
        if facts.get(key, value) != value:
            raise FileError(
                f"{path}: of {key} {facts[key]}, not {value}; is it another run's? Give each its own results_dir, or "
                "delete the file and run again"
            )


def _umask() -> int:
    """The process' file mode creation mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def arrays_of(tensors: Mapping[str, Tensor | np.ndarray]) -> dict[str, np.ndarray]:
    """The same values as contiguous arrays in the host's memory."""
    return {
        name: np.asarray(t if isinstance(t, np.ndarray) else t.detach().cpu().numpy(), order="C")
        for name, t in tensors.items()
    }


def digest(tensors: Mapping[str, Tensor | np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and values: 1 GB/s or so."""
    sha = hashlib.sha256()
    for name, array in sorted(arrays_of(tensors).items()):
        sha.update(f"{name} {array.dtype} {array.shape};".encode())
        sha.update(array.reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write tensors or arrays and JSON-serialisable metadata as safetensors; raises `FileError` if it cannot.

    A floating-point tensor ``x`` with many zeros, such as a pruned weight, is stored as three others where that is
    smaller: ``x:shape`` (int64), ``x:mask`` (uint8: a bit for each value in C order, the first in the highest bit, 0
    where it is +0.0) and ``x:values``, all that are not. Everything else is plain safetensors. `load_arrays` gives back
    exactly the same bytes; so does, without miaprune::

        x = np.zeros(f["x:shape"], f["x:values"].dtype)
        x.flat[np.unpackbits(f["x:mask"], count=x.size).view(bool)] = f["x:values"]
    """
    # One metadata key: safetensors writes several in no fixed order, and the same job must give the same bytes.
    text = json.dumps(metadata, sort_keys=True)
    stored: dict[str, np.ndarray] = {}
    for name, array in arrays_of(tensors).items():
        stored |= _compact(name, array)
    with whole(path) as temporary:
        try:
            save_file(stored, temporary, metadata={"miaprune": text})
        except SafetensorError as error:  # such as no space left
            raise FileError(f"{path}: cannot be written ({error})") from None


PARTS = (":shape", ":mask", ":values")
"""What follows a tensor's name where it is stored in parts."""

ENTRIES = 512
"""Bytes that two more entries in a file's header and the shape may take: what a mask must save at least."""


def _compact(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """What `save_tensors` stores of an array."""
    if array.dtype.kind == "f":
        # By bits, not by value: -0.0 equals 0.0.
        there = array.reshape(-1).view(f"u{array.itemsize}") != 0
        count = np.count_nonzero(there)
        if count * array.itemsize + array.size // 8 + ENTRIES < array.nbytes:
            parts = (np.array(array.shape, np.int64), np.packbits(there), array.reshape(-1)[there])
            return {name + part: stored for part, stored in zip(PARTS, parts, strict=True)}
    return {name: array}


def _restore(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that `_compact` was given; raises KeyError or ValueError if they don't fit each other."""
    for name in dict.fromkeys(stored.rpartition(":")[0] for stored in arrays if stored.endswith(PARTS)):
        shape, mask, values = (arrays.pop(name + part) for part in PARTS)
        size = math.prod(map(int, shape))
        if min(shape, default=1) < 0 or mask.dtype != np.uint8 or mask.shape != (-(-size // 8),):
            raise ValueError(f"the mask of {name} does not fit its shape")
        there = np.unpackbits(mask, count=size).view(bool)
        if values.shape != (np.count_nonzero(there),):
            raise ValueError(f"the values of {name} do not fit its mask")
        arrays[name] = np.zeros(tuple(shape), values.dtype)
        arrays[name].reshape(-1)[there] = values
    return arrays


def load_arrays(path: str | Path, prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays whose names start with ``prefix`` (cut off) and the metadata.

    Raises
    ------
    FileError : if the file is truncated, or was not written by `save_tensors`.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = json.loads(file.metadata()["miaprune"])
            if not isinstance(metadata, dict):
                raise TypeError("its metadata are not facts by name")
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no mapping)
            return _restore({name.removeprefix(prefix): file.get_tensor(name) for name in names}), metadata
    except (SafetensorError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise FileError(f"{path}: damaged or not written by miaprune ({error}); delete it and run again") from None


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all tensors and the metadata; raises as `load_arrays`."""
    import torch

    arrays, metadata = load_arrays(path)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata


def load_metadata(path: str | Path) -> dict[str, Any]:
    """Read only the metadata: quick, whatever the size of the tensors."""
    return load_arrays(path, prefix="\0none")[1]
