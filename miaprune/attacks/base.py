"""The one signature that every attack has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miaprune.entries import AttackEntry, GridError, called

Fitted = dict[str, np.ndarray]
"""A fitted attack: named arrays only, so that it can be stored as safetensors and scored on other victims."""

MARKS = {"attempt", "references", "trained"}
"""What is noted beside a fitted attack's own arrays."""

Options = Mapping[str, Any]
"""The attack's block of ``config.yaml``."""


@dataclass(frozen=True)
class Attack:
    """A membership inference attack.

    ``fit(seen, options, seed, device)`` trains or calibrates on the pooled shadow signals, or, of an attack with
    reference models, on their margins. ``score`` gets the same of the victim.
    ``score(fitted, victim, options, seed, device)`` returns float64 [n]: a record is called a member when its
    score is 0 or more, and a larger score means more confidence in membership.
    """

    fit: Callable[[Any, Options, int, str], Fitted]
    score: Callable[[Fitted, Any, Options, int, str], np.ndarray]


def of_user(entry: AttackEntry) -> Attack:
    """A user's attack, whose ``fit`` and ``score`` get the arguments that their parameters name.

    What it gives is checked, and raises `miaprune.entries.GridError` in one line: named arrays by ``fit``, a finite
    number for each record by ``score``.
    """
    own = entry.target() if isinstance(entry.target, type) else entry.target

    def fit(seen: Any, options: Options, seed: int, device: str) -> Fitted:
        available = {"shadows": seen, "seed": seed, "device": device}
        with entry.blamed():
            fitted = called(f"fit of {entry.name}", own.fit, available)
        if not isinstance(fitted, Mapping) or not all(isinstance(name, str) for name in fitted):
            raise GridError(f"attack {entry.name}: fit gave {type(fitted).__name__}; give arrays by name, such as {{}}")
        arrays = {name: np.asarray(array) for name, array in fitted.items()}
        if taken := MARKS & arrays.keys():
            raise GridError(f"attack {entry.name}: fit gave {min(taken)!r}, which has a meaning here; rename it")
        if wrong := [name for name, array in arrays.items() if array.dtype.kind not in "biuf"]:
            raise GridError(f"attack {entry.name}: fit gave {wrong[0]!r} that is no array of numbers")
        return arrays | ({"references": np.array(len(seen.references))} if entry.sees == "margins" else {})

    def score(fitted: Fitted, victim: Any, options: Options, seed: int, device: str) -> np.ndarray:
        if entry.sees == "margins":  # what references say of the records was fitted: an unaware adversary's are others
            victim = replace(victim, references=victim.references[:0], parts=victim.parts[:0])
        available = {"fitted": fitted, "victim": victim, "seed": seed, "device": device}
        with entry.blamed():
            scores = np.asarray(called(f"score of {entry.name}", own.score, available))
        n = len(victim.records) if entry.sees == "margins" else len(victim)
        if scores.shape != (n,) or scores.dtype.kind not in "biuf":
            found = f"{scores.dtype} {list(scores.shape)}"
            raise GridError(f"attack {entry.name}: score gave {found}; give a number for each of the {n} records")
        if wrong := n - np.count_nonzero(np.isfinite(scores)):
            raise GridError(f"attack {entry.name}: scores of {wrong} of {n} records are no finite numbers")
        return scores.astype(np.float64)

    return Attack(fit, score)
