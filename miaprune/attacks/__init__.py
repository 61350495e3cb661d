"""Membership inference attacks: what the adversary has seen in, victim scores out (method, sections 7 and 14)."""

from miaprune import catalog
from miaprune.attacks.base import Attack, of_user
from miaprune.entries import known


def attack(name: str) -> Attack:
    """The attack of this name (one of `miaprune.grid.ATTACKS`); raises `miaprune.grid.GridError` on another.

    It is imported when it is first asked for: of built-in ones, only those that train networks import torch.
    """
    entry = catalog.ATTACKS[known("attack", name, catalog.ATTACKS)]
    if entry.extension:
        return of_user(entry)
    found: Attack = entry.target
    return found
