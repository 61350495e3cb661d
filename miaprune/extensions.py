"""What a configuration adds to the catalogue: data sets of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from miaprune import catalog


def register(config: Mapping[str, Any]) -> None:
    """Register what ``config`` names under ``own_datasets``; raises `miaprune.catalog.GridError` where it cannot be."""
    for name, block in config["own_datasets"].items():
        catalog.subset(name, block["of"], block["records"])
