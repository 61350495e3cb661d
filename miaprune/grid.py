"""What a setting is, where its files lie, and which settings exist.

The one source of truth for rules, scripts, tables and error messages. Imports nothing heavy, so that
planning thousands of jobs stays fast.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

IMAGE_DATASETS = ("cifar10", "cifar100", "svhn", "chmnist", "cifar10_jpeg", "digits")
TABLE_DATASETS = ("location", "purchase", "texas")
DATASETS = IMAGE_DATASETS + TABLE_DATASETS

# Which datasets a model takes. digits is small enough to be both: 8x8 images and 64 numbers.
MODEL_DATASETS: dict[str, tuple[str, ...]] = {
    "resnet18": ("cifar10", "cifar100", "svhn", "chmnist", "cifar10_jpeg"),
    "densenet121": ("cifar10", "cifar100", "svhn", "chmnist", "cifar10_jpeg"),
    "vgg16": ("cifar10", "cifar100", "svhn", "chmnist", "cifar10_jpeg"),
    "fc": (*TABLE_DATASETS, "digits"),
    "cnn": ("digits", "cifar10", "cifar100", "svhn", "chmnist", "cifar10_jpeg"),
}
MODELS = tuple(MODEL_DATASETS)

# Which models a pruner applies to: `fc` has neither convolutions nor batch norm.
CONV_MODELS = ("resnet18", "densenet121", "vgg16", "cnn")
PRUNER_MODELS: dict[str, tuple[str, ...]] = {
    "l1": MODELS,
    "l1_structured": CONV_MODELS,
    "l2_structured": CONV_MODELS,
    "slim": CONV_MODELS,
}
PRUNERS = tuple(PRUNER_MODELS)

THRESHOLD_ATTACKS = ("conf", "xent", "mentr", "top1_conf", "conf_global", "corr")
NEURAL_ATTACKS = ("samia", "nn", "nn_top3", "nn_cls")
ATTACKS = (*NEURAL_ATTACKS, *THRESHOLD_ATTACKS, "blindmi")

SHADOWS = 5
"""Shadow models per setting (method, section 4)."""

ROLES = ("victim", *(f"shadow_{i}" for i in range(SHADOWS)))


class GridError(ValueError):
    """A name, value or combination that does not exist; the message is one line that says what would be right."""


@dataclass(frozen=True)
class Setting:
    """One cell of the grid: an original model (``pruner`` is None) or a pruned one.

    ``sparsity`` is the text used in paths and in ``config.yaml``, such as "0.7".
    """

    dataset: str
    model: str
    pruner: str | None = None
    sparsity: str | None = None

    @property
    def variant(self) -> str:
        """The last folder of the path: ``original`` or ``{pruner}_{sparsity}``."""
        return "original" if self.pruner is None else f"{self.pruner}_{self.sparsity}"

    @property
    def path(self) -> str:
        """Folder below ``results_dir`` that holds everything about this setting."""
        return f"{self.dataset}/{self.model}/{self.variant}"

    @property
    def original(self) -> Setting:
        """The unpruned setting that this one starts from."""
        return Setting(self.dataset, self.model)

    @classmethod
    def parse(cls, path: str) -> Setting:
        """The setting whose `path` this is; raises `GridError` if there is none."""
        parts = path.strip("/").split("/")
        if len(parts) != 3:
            raise GridError(f"{path!r} is no setting: write dataset/model/original or dataset/model/pruner_sparsity")
        dataset, model, variant = parts
        if variant == "original":
            return cls(dataset, model).check()
        pruner, _, sparsity = variant.rpartition("_")
        if not pruner:
            raise GridError(f"{path!r}: {variant!r} is neither 'original' nor pruner_sparsity, such as l1_0.7")
        return cls(dataset, model, pruner, sparsity).check()

    def check(self) -> Setting:
        """Return self, or raise `GridError` if a name is unknown or the combination does not exist."""
        known("dataset", self.dataset, DATASETS)
        known("model", self.model, MODELS)
        if self.dataset not in MODEL_DATASETS[self.model]:
            fitting = [m for m in MODELS if self.dataset in MODEL_DATASETS[m]]
            raise GridError(
                f"{self.dataset}/{self.model}: model {self.model} does not take {self.dataset}; use {_either(fitting)}"
            )
        if self.pruner is not None and self.sparsity is not None:
            known("pruner", self.pruner, PRUNERS)
            if self.model not in PRUNER_MODELS[self.pruner]:
                fitting = [p for p in PRUNERS if self.model in PRUNER_MODELS[p]]
                raise GridError(
                    f"{self.path}: pruner {self.pruner} does not apply to model {self.model}; use {_either(fitting)}"
                )
            sparsity_value(self.sparsity)
        return self


def _either(names: Sequence[str]) -> str:
    return " or ".join(names) if len(names) < 3 else ", ".join(names[:-1]) + " or " + names[-1]


def known(kind: str, name: object, names: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``names``; raise `GridError` naming the nearest valid one otherwise."""
    names = list(names)
    if name in names:
        return str(name)
    nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise GridError(f"unknown {kind} {str(name)!r}: {hint}valid are {', '.join(names)}")


def sparsity_value(text: object) -> float:
    """The number behind a sparsity as written; raise `GridError` unless it lies strictly between 0 and 1."""
    try:
        value = float(str(text))
    except ValueError:
        value = float("nan")
    if isinstance(text, bool) or not 0.0 < value < 1.0:
        raise GridError(f"sparsity {text!r} must be a number above 0 and below 1, such as 0.7")
    return value


def originals(grid: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Every original (dataset, model) pair of a grid block that exists (method, section 5).

    A block is ``{"datasets": [...], "models": [...], "pruners": [...], "sparsities": [...]}``.
    """
    pairs = product(_unique(grid["datasets"]), _unique(grid["models"]))
    return [
        Setting(d, m) for d, m in pairs if known("dataset", d, DATASETS) in MODEL_DATASETS[known("model", m, MODELS)]
    ]


def pruned(grid: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Every pruned setting of a grid block that exists: 255 for the paper's grid."""
    ways = [
        (known("pruner", p, PRUNERS), str(s), sparsity_value(s))
        for p, s in product(_unique(grid["pruners"]), _unique(grid["sparsities"]))
    ]
    return [
        Setting(o.dataset, o.model, pruner, sparsity)
        for o in originals(grid)
        for pruner, sparsity, _ in ways
        if o.model in PRUNER_MODELS[pruner]
    ]


def settings(*grids: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Originals and pruned settings of one or more grid blocks, each once, originals first."""
    return _unique([s for g in grids for s in originals(g)] + [s for g in grids for s in pruned(g)])


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


def derive_seed(seed: int, *purpose: str) -> int:
    """A seed for one purpose of a job, from the one seed of the run: distinct purposes, unrelated draws."""
    return zlib.crc32("/".join([str(seed), *purpose]).encode())
