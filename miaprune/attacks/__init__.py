"""Membership inference attacks: shadow signals in, victim scores out (method, section 7)."""

from miaprune import grid
from miaprune.attacks import blindmi, neural, thresholds
from miaprune.attacks.base import Attack

_BY_FAMILY = neural.ATTACKS | thresholds.THRESHOLD | {"blindmi": blindmi.BLINDMI}

ATTACKS: dict[str, Attack] = {name: _BY_FAMILY[name] for name in grid.ATTACKS}
