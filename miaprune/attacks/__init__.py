"""Membership inference attacks: what the adversary has seen in, victim scores out (method, sections 7 and 14)."""

from miaprune import grid
from miaprune.attacks.base import Attack


def attack(name: str) -> Attack:
    """The attack of this name (one of `miaprune.grid.ATTACKS`); raises `miaprune.grid.GridError` on another."""
    if grid.known("attack", name, grid.ATTACKS) in grid.NEURAL_ATTACKS:
        from miaprune.attacks import neural  # imports torch, which the other attacks start without

        attacks = neural.ATTACKS
    elif name in grid.REFERENCE_ATTACKS:
        from miaprune.attacks import references

        attacks = references.ATTACKS
    else:
        from miaprune.attacks import blindmi, thresholds

        attacks = thresholds.THRESHOLD | {"blindmi": blindmi.BLINDMI}
    if name not in attacks:
        raise grid.GridError(f"attack {name}: miaprune/grid.py names it, but attack() in miaprune/attacks doesn't")
    return attacks[name]
