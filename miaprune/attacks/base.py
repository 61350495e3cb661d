"""The one signature that every attack has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Fitted = dict[str, np.ndarray]
"""A fitted attack: named arrays only, so that it can be stored as safetensors and scored on other victims."""

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
