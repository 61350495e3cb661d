"""Membership inference attacks on pruned neural networks (Yuan and Zhang, USENIX Security 2022).

What a user of the library needs can be imported from here: ``from miaprune import Dataset, build_model, measure``. Each
name is fetched from its module when it is first asked for, so that neither ``import miaprune`` nor
``from miaprune import grid`` waits for torch or scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names, for type checkers and the documentation
    from miaprune import audit, grid, metrics
    from miaprune.attacks import attack as get_attack
    from miaprune.attacks.base import Attack
    from miaprune.catalog import MODELS, PRUNERS, attack, dataset, defense, model, pruner
    from miaprune.data.datasets import Dataset
    from miaprune.data.datasets import load as load_dataset
    from miaprune.data.datasets import prepare as prepare_dataset
    from miaprune.data.splits import Split
    from miaprune.data.splits import of_role as split_of
    from miaprune.files import load_tensors, save_tensors
    from miaprune.grid import ROLES, GridError, Setting, derive_seed
    from miaprune.networks.models import build as build_model
    from miaprune.networks.models import load as load_model
    from miaprune.networks.pruning import achieved_sparsity, finalise, masks
    from miaprune.signals import Signals, measure, pool
    from miaprune.training.defenses import build as build_defense
    from miaprune.training.objectives import CrossEntropy
    from miaprune.training.together import train_roles

__version__ = "0.1.0"

__all__ = [
    "MODELS",
    "PRUNERS",
    "ROLES",
    "Attack",
    "CrossEntropy",
    "Dataset",
    "GridError",
    "Setting",
    "Signals",
    "Split",
    "achieved_sparsity",
    "attack",
    "audit",
    "build_defense",
    "build_model",
    "dataset",
    "defense",
    "derive_seed",
    "finalise",
    "get_attack",
    "grid",
    "load_dataset",
    "load_model",
    "load_tensors",
    "masks",
    "measure",
    "metrics",
    "model",
    "pool",
    "prepare_dataset",
    "pruner",
    "save_tensors",
    "split_of",
    "train_roles",
]

_MODULES = ("audit", "grid", "metrics")

_PLACES = {
    "attacks": {"get_attack": "attack"},
    "attacks.base": {"Attack": "Attack"},
    "catalog": {name: name for name in ("MODELS", "PRUNERS", "attack", "dataset", "defense", "model", "pruner")},
    "data.datasets": {"Dataset": "Dataset", "load_dataset": "load", "prepare_dataset": "prepare"},
    "data.splits": {"Split": "Split", "split_of": "of_role"},
    "files": {"load_tensors": "load_tensors", "save_tensors": "save_tensors"},
    "grid": {"GridError": "GridError", "ROLES": "ROLES", "Setting": "Setting", "derive_seed": "derive_seed"},
    "networks.models": {"build_model": "build", "load_model": "load"},
    "networks.pruning": {
        "achieved_sparsity": "achieved_sparsity",
        "finalise": "finalise",
        "masks": "masks",
    },
    "signals": {"Signals": "Signals", "measure": "measure", "pool": "pool"},
    "training.defenses": {"build_defense": "build"},
    "training.objectives": {"CrossEntropy": "CrossEntropy"},
    "training.together": {"train_roles": "train_roles"},
}
"""By module the public names and what they are called there."""


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for (PEP 562)."""
    if name in _MODULES:
        return import_module(f"miaprune.{name}")
    for module, names in _PLACES.items():
        if name in names:
            found = getattr(import_module(f"miaprune.{module}"), names[name])
            globals()[name] = found  # asked for once
            return found
    raise AttributeError(f"module 'miaprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
