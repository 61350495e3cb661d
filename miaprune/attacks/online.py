"""Online attacks with reference models: some have trained on a record, others have not.

LiRA and RMIA as their papers have them where there are IN models; `miaprune.attacks.references` has the offline forms.
All closed forms, in float64. K references say of n records their margins, float64 [K, n], and which of the records are
among their members, bool [K, n].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from miaprune.attacks.references import Told, log_posterior
from miaprune.grid import SHADOWS

OWN_VARIANCES = 64
"""From so many references on LiRA estimates variances for each record (Carlini et al., section VI-B)."""

Online = Callable[[Told, Told, np.ndarray], np.ndarray]
"""What IN and OUT references say, and a model's margins float64 [n] -> float64 [n], larger for members."""


def told(margins: np.ndarray, members: np.ndarray) -> tuple[Told, Told]:
    """What references say of records that they have trained on (IN), and of those that they have not (OUT).

    Where all references are OUT for a record, their margins moved by the mean difference stand in for the IN ones;
    where all are IN, the same the other way. That difference, of the mean IN margin and the mean OUT margin, is
    averaged over the records that have both.

    Raises
    ------
    ValueError : if no record has both.
    """
    without_in, without_out = ~members.any(axis=0), members.all(axis=0)
    both = ~(without_in | without_out)
    if not both.any():
        raise ValueError("no record is among the members of one reference and not of another")
    if both.all():
        return Told(margins, members), Told(margins, ~members)
    of_both, heard = margins[:, both], members[:, both]
    shift = float((Told(of_both, heard).mean - Told(of_both, ~heard).mean).mean())
    return (
        Told(margins + shift * without_in, members | without_in),
        Told(margins - shift * without_out, ~members | without_out),
    )


def lira(inside: Told, outside: Told, margins: np.ndarray) -> np.ndarray:
    """Logarithm of N(margin; IN) / N(margin; OUT), two normal distributions (Carlini et al., S&P 2022, equation 3).

    Means are the record's own. Below `OWN_VARIANCES` references one IN and one OUT variance, pooled within records, are
    all records'; from there on each record has its own, where two references or more tell it.
    """
    own = len(inside.margins) >= OWN_VARIANCES
    of_in, of_out = _variances(inside, own), _variances(outside, own)
    log_in = -((margins - inside.mean) ** 2) / (2 * of_in) - np.log(of_in) / 2
    log_out = -((margins - outside.mean) ** 2) / (2 * of_out) - np.log(of_out) / 2
    return log_in - log_out


def _variances(heard: Told, own: bool) -> np.ndarray:
    """Variances of the margins, float64 [n]: all records' one, or ``own`` ones; 1 where nothing tells them."""
    variance, common = heard.variance, np.full(len(heard.count), heard.pooled_variance)
    return np.where(variance > 0, variance, common) if own else common


def rmia(inside: Told, outside: Told, margins: np.ndarray) -> np.ndarray:
    """log p - log p(x), p(x) being the mean of the mean IN and the mean OUT posterior (Zarifzadeh et al., ICML 2024).

    As in the offline form the published score, a share of population records, is an increasing function of this one.
    """
    p_x = np.logaddexp(inside.log_mean_posterior, outside.log_mean_posterior) - np.log(2.0)
    return log_posterior(margins) - p_x


ATTACKS: dict[str, Online] = {"lira_online": lira, "rmia_online": rmia}


def in_turn(margins: np.ndarray, members: np.ndarray) -> list[tuple[Told, Told, np.ndarray, np.ndarray]]:
    """Each of the first references in turn as a victim: what the others say IN and OUT, its margins, its members.

    As many as in the offline form, and those records only that have IN and OUT references among the others.
    """
    found = []
    for i in range(min(SHADOWS, len(margins))):
        others = np.arange(len(margins)) != i
        asked = members[others].any(axis=0) & ~members[others].all(axis=0)
        own = members[i, asked]
        if own.any() and not own.all():
            inside, outside = told(margins[others][:, asked], members[others][:, asked])
            found.append((inside, outside, margins[i, asked], own))
    return found
