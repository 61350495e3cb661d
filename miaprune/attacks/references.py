"""Offline attacks with reference models: how a record's margin differs from what models say that never saw it.

BASE, RMIA and LiRA (method, section 14), as closed forms on margins in float64. Each is fitted on the adversary's own
models: what the references say of every record, RMIA's parameter, and the threshold. The victim gives its margins only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import digamma, polygamma

from miaprune import metrics
from miaprune.attacks.base import Attack, Fitted, Options
from miaprune.attacks.thresholds import best_threshold
from miaprune.grid import SHADOWS
from miaprune.margins import TEST, TRAIN, Margins

A_GRID = tuple(k / 10 for k in range(11))
"""The values of RMIA's ``a`` that are tried."""

A_UNKNOWN = 0.3
"""RMIA's ``a`` where the references are too few to attack one with another."""


@dataclass(frozen=True)
class Told:
    """What K references say of n records, those that are heard: the OUT ones; online also the IN ones, apart.

    Attributes
    ----------
    margins : np.ndarray
        float64 [K, n].
    heard : np.ndarray
        bool [K, n], whether the reference is heard on the record; the others' margins are not looked at. Every record
        has one that is.
    """

    margins: np.ndarray
    heard: np.ndarray

    @property
    def count(self) -> np.ndarray:
        """How many references are heard, int64 [n]."""
        return np.count_nonzero(self.heard, axis=0)

    @property
    def mean(self) -> np.ndarray:
        """Mean margin, float64 [n]."""
        return np.where(self.heard, self.margins, 0.0).sum(axis=0) / self.count

    @property
    def log_mean_posterior(self) -> np.ndarray:
        """Logarithm of the mean posterior of the true class, float64 [n]; no margin is too large or too small."""
        logs = np.where(self.heard, log_posterior(self.margins), -np.inf)
        return np.logaddexp.reduce(logs, axis=0) - np.log(self.count)

    @property
    def variance(self) -> np.ndarray:
        """Sample variance of the margins, float64 [n]; NaN where fewer than two references are heard."""
        squares = np.where(self.heard, (self.margins - self.mean) ** 2, 0.0).sum(axis=0)
        freedom = self.count - 1.0
        return np.divide(squares, freedom, out=np.full(len(freedom), np.nan), where=freedom > 0)

    @property
    def pooled_variance(self) -> float:
        """The variance of all records, pooled within records; 1 where no record has two margins, or two that differ."""
        freedom = np.maximum(self.count - 1.0, 0.0)
        pooled = np.nansum(self.variance * freedom) / freedom.sum() if freedom.any() else 0.0
        return float(pooled) if pooled > 0 else 1.0


def log_posterior(margins: np.ndarray) -> np.ndarray:
    """Logarithm of the true class's posterior, which is the margin's logistic function."""
    return -np.logaddexp(0.0, -margins)


Prepare = Callable[[Told, dict[str, np.ndarray]], Fitted]
"""What the references say, and what is fixed for all records -> arrays [n] and numbers, all that `Score` needs."""

Score = Callable[[Fitted, np.ndarray], np.ndarray]
"""The former and a model's margins float64 [n] -> float64 [n], larger for members."""


def _posteriors(told: Told, fixed: Fitted) -> Fitted:
    return {"log_mean_posterior": told.log_mean_posterior} | fixed


def base_score(fitted: Fitted, margins: np.ndarray) -> np.ndarray:
    """log p - log mean_k p_k (BASE, NeurIPS 2025)."""
    return log_posterior(margins) - fitted["log_mean_posterior"]


def rmia_score(fitted: Fitted, margins: np.ndarray) -> np.ndarray:
    """log p - log p(x), where p(x) = ((1 + a) mean_k p_k + 1 - a) / 2 (Zarifzadeh et al., ICML 2024, offline).

    The published score is the share of population records z for which p/p(x) is at least gamma times that of z: an
    increasing function of this one, in steps. So this one ranks as it does, without its ties.
    """
    a = float(fitted["a"])
    with np.errstate(divide="ignore"):  # a = 1 adds nothing
        p_x = np.logaddexp(np.log((1 + a) / 2) + fitted["log_mean_posterior"], np.log((1 - a) / 2))
    return log_posterior(margins) - p_x


def _one_variance(told: Told, fixed: Fitted) -> Fitted:
    """LiRA's mean of each record and one variance of all."""
    return {"mean": told.mean, "sd": np.array(np.sqrt(told.pooled_variance))}


def lira_score(fitted: Fitted, margins: np.ndarray) -> np.ndarray:
    """(margin - mean) / sd (Carlini et al., S&P 2022, equation 4, offline, with one variance for all records).

    Their score is this one's normal distribution function, which ends in 1 for many records.
    """
    return (margins - fitted["mean"]) / fitted["sd"]


def prior(variances: np.ndarray, freedom: np.ndarray) -> tuple[float, float]:
    """Degrees of freedom and variance of the prior that fits sample variances (Smyth, SAGMB 2004, section 6.2).

    ``variances`` float64 [m] have ``freedom`` [m] degrees each. By the moments of their logarithms; infinite degrees
    where they vary no more than by sampling. Variances that are next to 0 count as 1e-5 of the median.
    """
    median = np.median(variances)
    if not median > 0:
        return np.inf, 1.0
    logs = np.log(np.maximum(variances, 1e-5 * median)) - digamma(freedom / 2) + np.log(freedom / 2)
    spread = logs.var(ddof=1) - polygamma(1, freedom / 2).mean() if len(logs) > 1 else 0.0
    if spread <= 0:
        return np.inf, float(np.exp(logs.mean()))
    degrees = 2 * _inverse_trigamma(float(spread))
    return degrees, float(np.exp(logs.mean() + digamma(degrees / 2) - np.log(degrees / 2)))


def _inverse_trigamma(y: float) -> float:
    """The x > 0 with trigamma(x) = y > 0, by Newton's method on 1/trigamma, which is nearly linear."""
    x = 0.5 + 1 / y
    for _ in range(50):
        trigamma = polygamma(1, x)
        step = trigamma * (1 - trigamma / y) / polygamma(2, x)
        x += step
        if abs(step) < 1e-10 * x:
            break
    return float(x)


def _own_variances(told: Told, fixed: Fitted) -> Fitted:
    """Of each record the mean, a variance shrunk towards the common one, and the degrees of freedom of both."""
    freedom = told.count - 1.0
    known = freedom > 0
    if not known.any():
        degrees, common = np.inf, 1.0
    else:
        degrees, common = prior(told.variance[known], freedom[known])
    own = np.where(known, np.nan_to_num(told.variance), 0.0)
    shrunk = np.full(len(own), common)
    if np.isfinite(degrees):
        shrunk = (degrees * common + np.maximum(freedom, 0) * own) / (degrees + np.maximum(freedom, 0))
    of_a_new_margin = np.sqrt(shrunk * (1 + 1 / told.count))
    return {"mean": told.mean, "sd": of_a_new_margin, "degrees": degrees + np.maximum(freedom, 0)}


def lira_t_score(fitted: Fitted, margins: np.ndarray) -> np.ndarray:
    """The quantile of the margin under Student's t of the record, as a standard normal number.

    By Wallace's approximation (1959; within 0.05 up to 4, as tested), which neither saturates nor changes the order of
    records with the same degrees of freedom.
    """
    t, degrees = (margins - fitted["mean"]) / fitted["sd"], fitted["degrees"]
    with np.errstate(invalid="ignore"):  # infinite degrees: the normal distribution itself
        z = np.sqrt(degrees * np.log1p(t**2 / degrees)) * (8 * degrees + 1) / (8 * degrees + 3)
    return np.where(np.isfinite(degrees), np.copysign(z, t), t)


def in_turn(seen: Margins) -> list[tuple[Told, np.ndarray, np.ndarray]]:
    """Each shadow in turn as a victim: what the other references say, its margins float64 [m], its members bool [m].

    Its members are its *train* records, its non-members its *test* records, as far as another reference is OUT for
    them: fewer are than for the victim's records, for which all are. Empty where there is but one reference.
    """
    found, out = [], seen.out
    for i in range(min(SHADOWS, len(seen.references))):
        others = np.arange(len(seen.references)) != i
        asked = np.isin(seen.parts[i], (TRAIN, TEST)) & out[others].any(axis=0)
        members = seen.parts[i, asked] == TRAIN
        if members.any() and not members.all():
            told = Told(seen.references[others][:, asked].astype(np.float64), out[others][:, asked])
            found.append((told, seen.references[i, asked].astype(np.float64), members))
    return found


def _fit(prepare: Prepare, score: Score, seen: Margins, options: Options, seed: int, device: str) -> Fitted:
    """What the references say of all records that are attacked, and the threshold (0 with one reference)."""
    turns = in_turn(seen)
    fixed: Fitted = {}
    if score is rmia_score:
        fixed["a"] = np.array(best_a(turns))
    scored = [(score(prepare(told, fixed), margins), members) for told, margins, members in turns]
    threshold = best_threshold(*map(np.concatenate, zip(*scored, strict=True))) if scored else 0.0
    told = Told(seen.references[:, seen.records].astype(np.float64), seen.out[:, seen.records])
    return prepare(told, fixed) | {"threshold": np.array(threshold), "references": np.array(len(seen.references))}


def best_a(turns: list[tuple[Told, np.ndarray, np.ndarray]]) -> float:
    """The ``a`` of `A_GRID` with the best mean AUC over the shadows in turn, the smallest of equals."""
    if not turns:
        return A_UNKNOWN
    prepared = [(_posteriors(told, {}), margins, members) for told, margins, members in turns]

    def reached(a: float) -> float:
        scores = [(rmia_score(told | {"a": np.array(a)}, margins), members) for told, margins, members in prepared]
        return float(np.mean([metrics.auc(each, members) for each, members in scores]))

    return max(A_GRID, key=reached)


def _score(score: Score, fitted: Fitted, victim: Margins, options: Options, seed: int, device: str) -> np.ndarray:
    margins = victim.victim[victim.records].astype(np.float64)
    return score(fitted, margins) - float(fitted["threshold"])


def _attack(prepare: Prepare, score: Score) -> Attack:
    return Attack(partial(_fit, prepare, score), partial(_score, score))


ATTACKS: dict[str, Attack] = {
    "base": _attack(_posteriors, base_score),
    "rmia": _attack(_posteriors, rmia_score),
    "lira": _attack(_one_variance, lira_score),
    "lira_t": _attack(_own_variances, lira_t_score),
}
"""The attacks with reference models; no options, nothing drawn."""
