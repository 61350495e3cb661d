"""The models of a training job: a setting's victim and shadows, a file each, or further references, all in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from miaprune import grid
from miaprune.files import check_facts, load_arrays, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]


def roles_of(wildcards: Any) -> tuple[str, ...]:
    """The roles that a job trains, by its wildcards."""
    return grid.in_chunk(wildcards.chunk) if "chunk" in dict(wildcards.items()) else grid.ROLES


def place_of(setting: grid.Setting, wildcards: Any) -> str:
    """The folder below ``results_dir`` of what a job trains."""
    return f"{setting.path}/references/{wildcards.chunk}" if "chunk" in dict(wildcards.items()) else setting.path


def load(paths: Sequence[str], roles: Sequence[str], digest: str) -> dict[str, tuple[State, dict[str, Any]]]:
    """Weights and facts by role; raises `miaprune.files.FileError` if they were trained on data of another digest."""
    import torch

    found = {}
    for role, path in zip(roles, paths if len(paths) == len(roles) else paths * len(roles), strict=True):
        shared = len(paths) < len(roles)
        arrays, facts = load_arrays(path, prefix=f"{role}/" if shared else "")
        facts = facts[role] if shared else facts
        check_facts(path, facts, {"data": digest})
        found[role] = {name: torch.from_numpy(array) for name, array in arrays.items()}, facts
    return found


def save(paths: Sequence[str], models: Mapping[str, tuple[State, Mapping[str, Any]]]) -> None:
    """Write weights and facts by role, in files that `load` reads."""
    if len(paths) == len(models):
        for path, (state, facts) in zip(paths, models.values(), strict=True):
            save_tensors(path, state, facts)
        return
    states = {f"{role}/{name}": tensor for role, (state, _) in models.items() for name, tensor in state.items()}
    save_tensors(paths[0], states, {role: facts for role, (_, facts) in models.items()})
