"""What there is, by name: data sets, models, pruners, defences, attacks, and the facts about them that planning needs.

Built-in names and those of a user's extensions come in by the same five functions, which are decorators. A function may
also be given as text, "module:name", and is then imported when it is first called: planning imports nothing heavy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from miaprune.entries import (
    AttackEntry,
    DatasetEntry,
    DefenseEntry,
    Entry,
    Extension,
    GridError,
    ModelEntry,
    PrunerEntry,
    known,
    parameters_of,
)

T = TypeVar("T")

DATASETS: dict[str, DatasetEntry] = {}
MODELS: dict[str, ModelEntry] = {}
PRUNERS: dict[str, PrunerEntry] = {}
DEFENSES: dict[str, DefenseEntry] = {}
ATTACKS: dict[str, AttackEntry] = {}
_ALL: tuple[dict[str, Any], ...] = (DATASETS, MODELS, PRUNERS, DEFENSES, ATTACKS)

IMAGE, TABLE, CONV = "image", "table", "conv"
WEIGHTS, FILTERS, CHANNELS = "weights", "filters", "channels"
SIGNALS, MARGINS = "signals", "margins"


def takes(model: str, dataset: str) -> bool:
    """Whether a model takes a data set: by its name, by its kind unless its images are too small, or as its parent."""
    data, net = DATASETS[dataset], MODELS[model]
    if dataset in net.takes or (data.of and takes(model, data.of)):
        return True
    small = data.shape is not None and data.kind == IMAGE and min(data.shape[1:]) < net.least_side
    return data.kind in net.takes and data.of is None and not small


def prunes(pruner: str, model: str) -> bool:
    """Whether a pruner applies to a model."""
    those = PRUNERS[pruner].prunes
    return those is None or model in those or (CONV in those and convolves(MODELS[model]))


def convolves(model: ModelEntry) -> bool:
    """Whether a model has 2-d convolutions: as it says, or else if it takes anything but tables."""
    if model.convolves is not None:
        return model.convolves
    return {DATASETS[each].kind if each in DATASETS else each for each in model.takes} != {TABLE}


def unit(pruner: str) -> str:
    """What a pruner removes, and its sparsity is a share of; weights where there is no such pruner."""
    return PRUNERS[pruner].unit if pruner in PRUNERS else WEIGHTS


def families() -> dict[str, tuple[str, ...]]:
    """The attacks that share a job, by the name of their family.

    SAMIA takes longest, three more train networks; the rest take a second, on what a model says of a record (signals),
    or on what it says and models that never saw the record (margins). A user's attack is a family of its own.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, entry in ATTACKS.items():
        found[entry.family] = (*found.get(entry.family, ()), name)
    return found


def files_of(entries: Iterable[Entry]) -> list[str]:
    """The users' files that these come from, each once."""
    return list(dict.fromkeys(entry.extension.path for entry in entries if entry.extension))


def digests_of(entries: Iterable[Entry]) -> dict[str, dict[str, str]]:
    """By name, of those that come from a user's file, that file and its SHA-256."""
    return {entry.name: asdict(entry.extension) for entry in entries if entry.extension}


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
    """Register a data set under ``name``: a function that gives inputs [n, ...] and labels [n].

    It may have the parameter ``folder``, ``{data_dir}/{name}``.

    Parameters
    ----------
    kind : "table" or "image", which decides the epochs and what networks take it.
    classes : how many there are; labels are 0 to classes - 1. Not given, labels may be anything that can be sorted.
    shape, records : of one record's inputs, and how many records; checked where they are given. By its shape a grid
        leaves out networks that its images are too small for.
    scale, mean, std : inputs x are normalised to (x / scale - mean) / std, by one number or one a channel or feature.
        Without mean and std they are standardised; a table's features are taken as they are if all are 0 or 1.
    """
    if kind not in (IMAGE, TABLE):
        raise GridError(f"dataset {name!r}: its kind is {kind!r}; write kind='table' or kind='image'")
    if bool(mean) != bool(std):
        raise GridError(f"dataset {name!r}: of mean and std it has one; give both or neither")

    def register(function: T) -> T:
        sides = tuple(shape) if shape else None
        facts = kind, classes, sides, records, scale, tuple(mean), tuple(std)
        _enter("dataset", DATASETS, DatasetEntry(name, function, _running, *facts), ("name", "folder"))
        return function

    return register


def subset(name: str, of: str, records: int) -> None:
    """Register ``records`` records of another data set as one of its own, which comes from where that comes from."""
    whole = DATASETS[known("dataset", of, DATASETS)]
    if whole.records is not None and records > whole.records:
        raise GridError(f"{name}: {records} records of {of}, which has {whole.records}")
    facts = whole.kind, whole.classes, whole.shape, records, whole.scale, whole.mean, whole.std
    _enter("dataset", DATASETS, DatasetEntry(name, None, whole.extension, *facts, of))


def dataset_of_file(
    name: str,
    file: str,
    kind: str,
    label: str = "label",
    classes: int | None = None,
    scale: float = 1,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> None:
    """Register what is read of a file (`miaprune.data.own.read_file`); the rest is as of `dataset`."""
    facts = kind, classes, None, None, scale, tuple(mean), tuple(std), None, file, label
    _enter("dataset", DATASETS, DatasetEntry(name, "miaprune.data.own:read_file", None, *facts))


def model(name: str, *, takes: Sequence[str], convolves: bool | None = None, least_side: int = 0) -> Callable[[T], T]:
    """Register a network under ``name``: a function that gives an `torch.nn.Module`, from inputs [n, ...] to logits.

    Its parameters are some of ``input_shape`` (of one record) and ``classes``.

    Parameters
    ----------
    takes : names of data sets, or kinds: "table", "image".
    convolves : whether it has 2-d convolutions, so that pruners of filters and channels apply; not given, whether it
        takes anything but tables.
    least_side : images of fewer pixels a side are not taken.
    """

    def register(function: T) -> T:
        entry = ModelEntry(name, function, _running, _names(takes), convolves, least_side)
        _enter("model", MODELS, entry, ("input_shape", "classes"))
        return function

    return register


def pruner(
    name: str, *, prunes: Sequence[str] | None = None, unit: str = WEIGHTS, sparsity: float | None = None
) -> Callable[[T], T]:
    """Register a pruner under ``name``: a function that registers masks on a model by `torch.nn.utils.prune`.

    Its parameters are some of ``model``, ``sparsity`` and ``records``: the first of its training, normalised, float32
    [`miaprune.networks.pruning.CALIBRATION`, ...]. torch's generator is seeded before each call.

    Parameters
    ----------
    prunes : names of models, or "conv" for all that have convolutions; not given, every model.
    unit : what its sparsity is a share of: "weights", "filters" (of a convolution) or "channels" (of a batch norm).
    sparsity : the only one that it has, if it has but one.
    """
    if unit not in (WEIGHTS, FILTERS, CHANNELS):
        raise GridError(f"pruner {name!r}: its unit is {unit!r}; write 'weights', 'filters' or 'channels'")

    def register(function: T) -> T:
        only = None if sparsity is None else f"{sparsity:.12g}"
        entry = PrunerEntry(name, function, _running, None if prunes is None else _names(prunes), unit, only)
        _enter("pruner", PRUNERS, entry, ("model", "sparsity", "records"))
        return function

    return register


def defense(name: str, *, least: float = 0) -> Callable[[T], T]:
    """Register a defence under ``name``: a function or class that gives a `miaprune.training.objectives.Objective`.

    Its parameters are some of ``strength``, ``data``, ``split`` and ``seed``, of a recipe such as ``batch_size``, and
    its own options, which ``defense_options`` gives. ``least`` is its smallest strength.
    """

    def register(function: T) -> T:
        _enter("defense", DEFENSES, DefenseEntry(name, function, _running, least))
        return function

    return register


def attack(name: str, *, sees: str = SIGNALS, network: bool = False, family: str | None = None) -> Callable[[T], T]:
    """Register an attack under ``name``: an object or a class with the methods of `miaprune.attacks.base.Attack`.

    Parameters
    ----------
    sees : "signals", or "margins" for what it is given: `miaprune.Signals`, or `miaprune.margins.Margins`. Of these
        `score` gets the victim's alone: what references say is for `fit`, since an unaware adversary has others.
    network : whether it trains a network: then it gets a GPU if there is one.
    family : of built-in ones, those that share a job.
    """
    if sees not in (SIGNALS, MARGINS):
        raise GridError(f"attack {name!r}: it sees {sees!r}; write sees='signals' or sees='margins'")

    def register(function: T) -> T:
        for method in () if isinstance(function, str) else ("fit", "score"):
            if not callable(getattr(function, method, None)):
                raise GridError(f"attack {name!r} has no {method}; write fit(shadows) and score(fitted, victim)")
        _enter("attack", ATTACKS, AttackEntry(name, function, _running, sees, network, family or name))
        return function

    return register


NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
RESERVED = {
    "dataset": (
        *("tables", "figures", "logs", "benchmarks", "states", "demo", "all"),
        *("attacks", "models", "exposed", "effects", "signals", "margins", "scores", "victim"),
    ),
    "pruner": ("original", "finetuned"),
    "defense": ("untuned", "unaware", "references", "attackers", "scores"),
    "attack": (
        *("cheap", "reference", "records", "members"),
        *("model", "pruner", "sparsity", "seeds", "test_accuracy", "strongest", "setting", "adversary", "commit"),
    ),
}
"""Names that mean something else in the same place of a path, of a file, of a rule or of a table."""

_running: Extension | None = None
"""The user's file that registers; None for what is built in, below."""


@contextmanager
def registering(extension: Extension) -> Iterator[None]:
    """Until the block ends, what is registered comes from this file; if it ends with an error, nothing does."""
    global _running
    before, _running = _running, extension
    try:
        yield
    except BaseException:
        forget(extension.path)
        raise
    finally:
        _running = before


def forget(path: str) -> None:
    """Take out what this file has registered."""
    for table in _ALL:
        for name, entry in list(table.items()):
            if entry.extension and entry.extension.path == path:
                del table[name]


def registered_by(extension: Extension) -> list[str]:
    """The names that come from this file, as it is now."""
    return [name for table in _ALL for name, entry in table.items() if entry.extension == extension]


def _names(those: Sequence[str]) -> tuple[str, ...]:
    return (those,) if isinstance(those, str) else tuple(those)


def _enter(kind: str, table: dict[str, Any], entry: Entry, parameters: Sequence[str] = ()) -> None:
    """Add an entry; raises `GridError` if its name is taken or can be no part of a path, or it needs other arguments.

    ``parameters`` are those that it may have, if they are known.
    """
    name = entry.name
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise GridError(f"{kind} {name!r}: a name is letters, digits and _, and begins with a letter")
    if name in table and table[name] != entry:
        where = f"in {table[name].extension.path}" if table[name].extension else "already"
        raise GridError(f"{kind} {name!r} exists {where}; choose another name")
    ends = ("_controls", "_defenses") if kind == "dataset" else ()  # of tables
    if name in RESERVED.get(kind, ()) or name.startswith(("seed_", "shadows_")) or name.endswith(ends):
        raise GridError(f"{kind} {name!r}: results have something else of that name; choose another one")
    if parameters and callable(entry.source):
        for each, needed in parameters_of(entry.source).items():
            if needed and each not in parameters:
                raise GridError(f"{kind} {name!r}: its parameter {each!r} is none of {', '.join(parameters)}")
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

_PRUNERS = "miaprune.networks.pruning:"

pruner("l1")(f"{_PRUNERS}l1")
pruner("l1_structured", prunes=[CONV], unit=FILTERS)(f"{_PRUNERS}l1_structured")
pruner("l2_structured", prunes=[CONV], unit=FILTERS)(f"{_PRUNERS}l2_structured")
pruner("slim", prunes=[CONV], unit=CHANNELS)(f"{_PRUNERS}slim")
# Beyond the paper's four.
pruner("random")(f"{_PRUNERS}random")
pruner("l1_global")(f"{_PRUNERS}l1_global")
pruner("wanda")(f"{_PRUNERS}wanda")
pruner("two_four", sparsity=0.5)(f"{_PRUNERS}two_four")

_DEFENSES = "miaprune.training.defenses:"

defense("ppb")(f"{_DEFENSES}PairBalancing")
defense("adv")(f"{_DEFENSES}AdversarialRegularisation")
# Without noise there is no privacy, and with next to none its accountant fails.
defense("dp", least=1e-6)(f"{_DEFENSES}DifferentialPrivacy")

for _name in ("samia", "nn", "nn_top3", "nn_cls"):
    attack(_name, network=True, family="samia" if _name == "samia" else "nn")("miaprune.attacks.neural:ATTACKS")
for _name in ("conf", "xent", "mentr", "top1_conf", "conf_global", "corr"):
    attack(_name, family="cheap")("miaprune.attacks.thresholds:ATTACKS")
attack("blindmi", family="cheap")("miaprune.attacks.blindmi:BLINDMI")
for _name in ("base", "rmia", "lira", "lira_t"):
    attack(_name, sees=MARGINS, family="reference")("miaprune.attacks.references:ATTACKS")

_running = Extension("a program that imports miaprune", "")  # what is registered from here on, and by no file
