"""What a configuration adds to the catalogue: what users' files register, and data sets of their own."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from miaprune import catalog
from miaprune.entries import Extension, GridError, in_a_line


def register(config: Mapping[str, Any]) -> None:
    """Run the files of ``extensions``, and register the data sets of ``own_datasets``.

    Raises `miaprune.entries.GridError` where a file is missing or raises, or a name is taken.
    """
    for path in config["extensions"]:
        run(path)
    for name, block in config["own_datasets"].items():
        keys = set(block)
        if keys == {"of", "records"}:
            catalog.subset(name, **block)
        elif {"file", "kind"} <= keys and not keys & {"of", "records"} and len(keys & {"mean", "std"}) != 1:
            catalog.dataset_of_file(name, **block)
        else:
            raise GridError(
                f"own_datasets.{name} has {', '.join(block) or 'nothing'}; give of and records, or file and kind, and "
                "if need be label, classes, scale, mean with std"
            )


def run(path: str) -> None:
    """Run a user's file, whose decorators register; a file that has been run is not run again until it changes.

    As Python's own import does, but for the cache of its byte code, which may be older than the file.
    """
    try:
        code = Path(path).read_bytes()
    except OSError as error:
        raise GridError(f"extensions: {path}: cannot be read ({error.strerror}) in {Path.cwd()}") from None
    extension = Extension(path, hashlib.sha256(code).hexdigest())
    if catalog.registered_by(extension):
        return
    catalog.forget(path)
    module = ModuleType(f"miaprune_extension_{Path(path).stem}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # where dataclasses, for one, look for it
    try:
        with catalog.registering(extension):
            exec(compile(code, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        said = str(error) if isinstance(error, GridError) else in_a_line(error)
        hint = "; it finds what is installed, no files beside it" if isinstance(error, ModuleNotFoundError) else ""
        raise GridError(f"{extension.place(error)}: {said}{hint}") from error
    if not catalog.registered_by(extension):
        raise GridError(
            f'extensions: {path} registers nothing; decorate what is to have a name, as by @model("my_net")'
        )
