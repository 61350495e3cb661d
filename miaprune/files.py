"""Files that are written whole or not at all, and read back with a clear word when they are damaged."""

from __future__ import annotations

import hashlib
import json
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
    """Write tensors or arrays and JSON-serialisable metadata as safetensors."""
    # One metadata key: safetensors writes several in no fixed order, and the same job must give the same bytes.
    text = json.dumps(metadata, sort_keys=True)
    with whole(path) as temporary:
        save_file(arrays_of(tensors), temporary, metadata={"miaprune": text})


def load_arrays(path: str | Path, prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays whose names start with ``prefix`` (cut off) and the metadata.

    Raises
    ------
    FileError : if the file is truncated, or was not written by `save_tensors`.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = json.loads(file.metadata()["miaprune"])
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no mapping)
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}, metadata
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path}: damaged or not written by miaprune ({error}); delete it and run again") from None


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all tensors and the metadata; raises as `load_arrays`."""
    import torch

    arrays, metadata = load_arrays(path)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata


def load_metadata(path: str | Path) -> dict[str, Any]:
    """Read only the metadata: quick, whatever the size of the tensors."""
    return load_arrays(path, prefix="\0none")[1]
