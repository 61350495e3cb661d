"""Membership inference attacks: shadow signals in, victim scores out (method, section 7)."""

from miaprune import grid
from miaprune.attacks.base import Attack


def attack(name: str) -> Attack:
    """The attack of this name (one of `miaprune.grid.ATTACKS`); raises `miaprune.grid.GridError` on another."""
    if grid.known("attack", name, grid.ATTACKS) in grid.NEURAL_ATTACKS:
        from miaprune.attacks import neural  # imports torch, which the other attacks start without

        return neural.ATTACKS[name]
    from miaprune.attacks import blindmi, thresholds

    return blindmi.BLINDMI if name == "blindmi" else thresholds.THRESHOLD[name]
