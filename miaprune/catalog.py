"""What there is, by name: data sets, models, pruners, defences, attacks, and the facts about them that planning needs.

Built-in names and those of a user's extensions come in by the same five functions, which are decorators. A function may
also be given as text, "module:name", and is then imported when it is first called: planning imports nothing heavy.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


class GridError(ValueError):
    """A name, value or combination that does not exist; the message is one line that says what would be right."""


FEW = 5
"""Of what exists, an error names so many, the nearest, and counts the rest."""


def known(kind: str, name: object, names: Iterable[str], where: str = "valid are") -> str:
    """Return ``name`` if it is one of ``names``; raise `GridError` naming the nearest valid ones otherwise.

    ``where`` says whose ``names`` they are.
    """
    names = list(names)
    if name in names:
        return str(name)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise GridError(f"unknown {kind} {str(name)!r}: {hint}{where} {nearest(str(name), names)}")


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


@dataclass(frozen=True)
class Entry:
    """A name, what stands behind it, and where that comes from (None: built in).

    Called, it calls what stands behind it.
    """

    name: str
    source: Any
    extension: Extension | None

    @property
    def target(self) -> Any:
        """The function, class or object itself."""
        if not isinstance(self.source, str):
            return self.source
        module, _, name = self.source.partition(":")
        return getattr(import_module(module), name)

    def __call__(self, *arguments: Any) -> Any:
        return self.target(*arguments)

    def given(self, **available: Any) -> Any:
        """What it gives when it is called with those of the ``available`` arguments that its parameters name."""
        names = inspect.signature(self.target).parameters
        return self.target(**{name: value for name, value in available.items() if name in names})


@dataclass(frozen=True)
class DatasetEntry(Entry):
    """A data set; see `dataset`. ``of`` is the data set that it is a subset of."""

    kind: str
    classes: int | None = None
    shape: tuple[int, ...] | None = None
    records: int | None = None
    scale: float = 1
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    of: str | None = None


@dataclass(frozen=True)
class ModelEntry(Entry):
    """A network; see `model`."""

    takes: tuple[str, ...]
    convolves: bool
    least_side: int = 0


DATASETS: dict[str, DatasetEntry] = {}
MODELS: dict[str, ModelEntry] = {}

IMAGE, TABLE = "image", "table"
KINDS = (IMAGE, TABLE)


def takes(model: str, dataset: str) -> bool:
    """Whether a model takes a data set: by its name, by its kind unless its images are too small, or as its parent."""
    data, net = DATASETS[dataset], MODELS[model]
    if dataset in net.takes or (data.of and takes(model, data.of)):
        return True
    small = data.shape is not None and data.kind == IMAGE and min(data.shape[1:]) < net.least_side
    return data.kind in net.takes and data.of is None and not small


def dataset(
    name: str,
    *,
    kind: str,
    classes: int | None = None,
    shape: Sequence[int] | None = None,
    records: int | None = None,
    scale: float = 1,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Callable[[T], T]:
    """Register a data set under ``name``."""

    def register(function: T) -> T:
        sides = tuple(shape) if shape else None
        facts = kind, classes, sides, records, scale, tuple(mean), tuple(std)
        _enter("dataset", DATASETS, DatasetEntry(name, function, None, *facts))
        return function

    return register


def subset(name: str, of: str, records: int) -> None:
    """Register ``records`` records of another data set as one of its own."""
    whole = DATASETS[known("dataset", of, DATASETS)]
    if whole.records is not None and records > whole.records:
        raise GridError(f"{name}: {records} records of {of}, which has {whole.records}")
    entry = DatasetEntry(
        name, None, None, whole.kind, whole.classes, whole.shape, records, whole.scale, whole.mean, whole.std, of
    )
    _enter("dataset", DATASETS, entry)


def model(name: str, *, takes: Sequence[str], convolves: bool | None = None, least_side: int = 0) -> Callable[[T], T]:
    """Register a network under ``name``."""
    convolves = set(takes) != {TABLE} if convolves is None else convolves

    def register(function: T) -> T:
        _enter("model", MODELS, ModelEntry(name, function, None, tuple(takes), convolves, least_side))
        return function

    return register


NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
RESERVED = {
    "dataset": ("tables", "figures", "logs", "benchmarks", "states", "demo"),
}


def _enter(kind: str, table: dict[str, Any], entry: Entry) -> None:
    """Add an entry; raises `GridError` if its name is taken, or can be no part of a path."""
    name = entry.name
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise GridError(f"{kind} {name!r}: a name is letters, digits and _, and begins with a letter")
    if name in RESERVED.get(kind, ()) or name.startswith(("seed_", "shadows")):
        raise GridError(f"{kind} {name!r}: results have a folder or file of that name; choose another name")
    if table.get(name, entry) != entry:
        raise GridError(f"{kind} {name!r} exists already; choose another name")
    table[name] = entry


_RGB = (3, 32, 32)
_CIFAR: Mapping[str, Any] = {
    "scale": 255,
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2023, 0.1994, 0.2010),
    "records": 60_000,
    "shape": _RGB,
}
_SVHN: Mapping[str, Any] = {"scale": 255, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_CHMNIST: Mapping[str, Any] = {"scale": 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_DIGITS: Mapping[str, Any] = {"kind": IMAGE, "classes": 10, "records": 1_797, "scale": 16}
_READ = "miaprune.data.readers:read_"

dataset("cifar10", kind=IMAGE, classes=10, **_CIFAR)(f"{_READ}cifar")
dataset("cifar100", kind=IMAGE, classes=100, **_CIFAR)(f"{_READ}cifar")
dataset("svhn", kind=IMAGE, classes=10, records=99_289, shape=_RGB, **_SVHN)(f"{_READ}svhn")
dataset("chmnist", kind=IMAGE, classes=8, records=5_000, shape=_RGB, **_CHMNIST)(f"{_READ}images")
dataset("digits", shape=(1, 8, 8), mean=(0.0,), std=(1.0,), **_DIGITS)(f"{_READ}digits")
# The mean and the standard deviation are theirs.
dataset("noisy_digits", shape=(1, 12, 12), mean=(0.14,), std=(0.35,), **_DIGITS)(f"{_READ}noisy_digits")
dataset("location", kind=TABLE, classes=30, records=5_010, shape=(446,))(f"{_READ}csv")
dataset("purchase", kind=TABLE, classes=100, records=197_324, shape=(600,))(f"{_READ}csv")
dataset("texas", kind=TABLE, classes=100, records=67_330, shape=(6_169,))(f"{_READ}texas")

_NETWORKS = "miaprune.networks.models:"

# Their five halvings leave a single pixel of 32; digits are too small.
model("resnet18", takes=[IMAGE], least_side=32)(f"{_NETWORKS}resnet18")
model("densenet121", takes=[IMAGE], least_side=32)(f"{_NETWORKS}densenet121")
model("vgg16", takes=[IMAGE], least_side=32)(f"{_NETWORKS}vgg16")
# The digits are small enough to be both, images and rows of numbers.
model("fc", takes=[TABLE, "digits", "noisy_digits"], convolves=False)(f"{_NETWORKS}fc")
model("cnn", takes=[IMAGE], convolves=True)(f"{_NETWORKS}cnn")
