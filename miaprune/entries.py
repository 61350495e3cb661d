"""What a catalogue has: a name and what stands behind it, and the error that says what is meant by a wrong name."""

from __future__ import annotations

import difflib
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any


class GridError(ValueError):
    """A name, value or combination that does not exist; the message is one line that says what would be right."""


FEW = 5
"""Of what exists, an error names so many, the nearest, and counts the rest."""


def known(kind: str, name: object, names: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``names``; raise `GridError` naming the nearest valid ones otherwise."""
    names = list(names)
    if name in names:
        return str(name)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise GridError(f"unknown {kind} {str(name)!r}: {hint}valid are {nearest(str(name), names)}")


def nearest(name: str, names: Iterable[str]) -> str:
    """The `FEW` of ``names`` that are most like ``name``, in their own order, and how many more there are."""
    names = list(names)
    few = difflib.get_close_matches(name, names, n=FEW, cutoff=0.0) if len(names) > FEW + 1 else names
    more = f" and {len(names) - len(few)} more" if len(few) < len(names) else ""
    return ", ".join(each for each in names if each in few) + more


@dataclass(frozen=True)
class Extension:
    """A user's file: its path as it was given, and the SHA-256 of what was run of it."""

    path: str
    sha256: str

    def place(self, error: BaseException) -> str:
        """The file, and the line of it that an error comes from as far as one does: ``my_lab.py, line 12``."""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.path]
        if isinstance(error, SyntaxError) and error.filename == self.path:
            lines.append(error.lineno)
        return f"{self.path}, line {lines[-1]}" if lines else self.path


@dataclass(frozen=True)
class Entry:
    """A name, what stands behind it, and where that comes from (None: built in). Called, it calls that.

    ``source`` is a function, a class, an object, or a text: "module:name" of such a one or of a dict that has it under
    its name.
    """

    name: str
    source: Any
    extension: Extension | None

    @property
    def target(self) -> Any:
        """What stands behind the name."""
        if not isinstance(self.source, str):
            return self.source
        found = resolve_name(self.source)
        return found[self.name] if isinstance(found, Mapping) else found

    def __call__(self, *arguments: Any) -> Any:
        return self.target(*arguments)

    def given(self, **available: Any) -> Any:
        """What it gives when it is called with those of the ``available`` arguments that its parameters name.

        Raises `GridError` where it needs another one; and, in a user's file, where it raises anything.
        """
        with self.blamed():
            return called(self.name, self.target, available)

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Turn what a user's code raises into a `GridError` of one line that names file and line."""
        try:
            yield
        except Exception as error:
            if self.extension is None or isinstance(error, GridError):
                raise
            raise GridError(f"{self.extension.place(error)}: {in_a_line(error)} (in {self.name})") from error


def in_a_line(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    said = str(error.msg if isinstance(error, SyntaxError) else error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def called(name: str, function: Callable[..., Any], available: Mapping[str, Any]) -> Any:
    """Call a function with those of the ``available`` arguments that its parameters name.

    Raises `GridError`, which calls it ``name``, if it needs another one.
    """
    wanted = parameters_of(function)
    if lacking := [each for each, needed in wanted.items() if needed and each not in available]:
        raise GridError(f"{name}: its parameter {lacking[0]!r} is none of {', '.join(available)}")
    return function(**{each: available[each] for each in wanted if each in available})


def parameters_of(function: Callable[..., Any]) -> dict[str, bool]:
    """By name the parameters of a function or class that may be named, and whether it needs them."""
    return {
        parameter.name: parameter.default is parameter.empty
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


@dataclass(frozen=True)
class DatasetEntry(Entry):
    """See `miaprune.catalog.dataset`; ``of``: the data set that it is a subset of, ``file``: what it is read from."""

    kind: str
    classes: int | None = None
    shape: tuple[int, ...] | None = None
    records: int | None = None
    scale: float = 1
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    of: str | None = None
    file: str | None = None
    label: str = "label"


@dataclass(frozen=True)
class ModelEntry(Entry):
    """See `miaprune.catalog.model`."""

    takes: tuple[str, ...]
    convolves: bool | None
    least_side: int


@dataclass(frozen=True)
class PrunerEntry(Entry):
    """See `miaprune.catalog.pruner`."""

    prunes: tuple[str, ...] | None
    unit: str
    sparsity: str | None


@dataclass(frozen=True)
class DefenseEntry(Entry):
    """See `miaprune.catalog.defense`."""

    least: float


@dataclass(frozen=True)
class AttackEntry(Entry):
    """See `miaprune.catalog.attack`."""

    sees: str
    network: bool
    family: str
