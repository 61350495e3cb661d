"""The paper's claims and two more as tests over the grid, with verdicts that numbers can refute (method, 11 and 16).

The rule is fixed before any number is seen and is the same for every claim. A claim says that a difference is above 0,
and each pruned setting of each seed gives one. Settings that share an original, a (dataset, model, seed), are not
independent, so originals count: the mean over originals of each original's mean difference is what a claim is decided
on. It is *supported* if the 95 % interval of that mean, by bootstrap of whole originals, lies above 0 and a
one-sided test by sign flips of the originals' means gives p < `ALPHA`; *refuted* if the interval lies below 0; else
*not shown*; and below `MIN_ORIGINALS` originals there are *too few to tell*. Results of networks that learnt nothing
decide nothing: settings without another are left out, and counted.

Claims 1, 2, 4 and 5 count undefended victims and matched adversaries only. Claim 3 is decided twice, against the
adaptive and against the unaware adversary; each defended setting is compared with itself undefended. Claims 1 and 3 are
decided by SAMIA's accuracy, as in the paper, and once more by the largest AUC of any attack: a model leaks what the
strongest finds. Claim 4 tells the pruning from the fine-tuning after it; it is decided by the strongest attack, and by
each of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from miaprune import statistics
from miaprune.grid import ATTACKS, FINETUNED, PPB_STRENGTH, REFERENCE_ATTACKS
from miaprune.report.effects import AT, ORIGINAL, of_the_same_original, reached, strongest, versions
from miaprune.report.tables import failures, matched, sound

ALPHA = 0.05
"""Level of the test by sign flips."""

MIN_ORIGINALS = 5
"""Fewest originals that get a verdict: even 4 of 4 give p = 1/16, so 4 could never support a claim."""

MAX_EXCEPTIONS = 10
"""How many settings where a claim does not hold are named, the largest first; the rest are counted."""

SEED = 0
"""Seed of the bootstrap and of sampled sign flips: the verdicts are a function of the attacks table alone."""

SUPPORTED, REFUTED, NOT_SHOWN, TOO_FEW = "supported", "refuted", "not shown", "too few to tell"

SAMIA, STRONGEST, AUC, TPR = "samia accuracy", "strongest auc", "auc", "tpr_at_fpr_0.01"
"""What claims are measured by; claim 4 also by "{attack} auc" of each attack."""

STATEMENTS = {
    (1, SAMIA): "pruning makes membership inference easier: SAMIA is more accurate than on the original",
    (1, STRONGEST): "pruning makes membership inference easier: the strongest attack has a larger AUC than on the "
    "original",
    (2, SAMIA): "SAMIA is the strongest attack without reference models on pruned models: more accurate than the best "
    "of the others",
    (3, SAMIA): f"PPB (strength {PPB_STRENGTH:g}) protects pruned models: SAMIA is less accurate with it than without",
    (3, STRONGEST): f"PPB (strength {PPB_STRENGTH:g}) protects pruned models: the strongest attack has a smaller AUC "
    "with it than without",
    (4, STRONGEST): "pruning itself raises the leak: the strongest attack has a larger AUC on the pruned model than on "
    "the original fine-tuned alike",
    (4, SAMIA): "pruning itself raises the leak: SAMIA is more accurate on the pruned model than on the original "
    "fine-tuned alike",
    (5, AUC): f"reference models find more than SAMIA: the best of {', '.join(REFERENCE_ATTACKS)} has a larger AUC on "
    "pruned models",
    (5, TPR): f"reference models find more than SAMIA: the best of {', '.join(REFERENCE_ATTACKS)} finds more members "
    "of pruned models at 1 % false positives",
}


@dataclass(frozen=True)
class Claim:
    """What was seen of one claim within one scope.

    Attributes
    ----------
    adversary : "matched"; for claim 3 "adaptive" or "unaware".
    measure : what was compared, one of `SAMIA`, `STRONGEST`, `AUC` and `TPR`, or "{attack} auc".
    scope : "all", or the dataset whose settings alone were counted.
    settings, holds : pruned settings with a difference, those of each seed counting, and those where it is above 0.
    originals, seeds : originals that these settings have, and seeds.
    left_out : pruned settings without one because a network learnt nothing.
    effect, interval : mean over originals of their mean differences and its 95 % bootstrap interval, in percentage
        points; NaN if there are no settings, the interval already if there is only one original.
    sign_flip_p : one-sided, by sign flips of the originals' means.
    left : claim 3: SAMIA's mean accuracy, or the strongest attack's mean AUC, with PPB, in percent; NaN for the others.
    cost, cost_interval : claim 3: mean test accuracy that the victims lose to PPB and its 95 % bootstrap interval,
        in percentage points; NaN for the others.
    detail : which settings, and those where the claim does not hold, with their differences in points.
    """

    number: int
    adversary: str
    measure: str
    scope: str
    statement: str
    settings: int
    holds: int
    originals: int
    seeds: int
    left_out: int
    effect: float
    interval: tuple[float, float]
    sign_flip_p: float
    left: float
    cost: float
    cost_interval: tuple[float, float]
    verdict: str
    detail: str


NOTHING = pd.DataFrame({"left": [], "cost": []}, dtype="float64")


@dataclass(frozen=True)
class Comparison:
    """What a claim is decided on.

    Attributes
    ----------
    differences : of each pruned setting and seed, in percentage points, by `AT`; NaN where there is none.
    beside : columns left and cost, by `AT`, in percent; empty but for claim 3.
    note : what the claim's detail ends with.
    """

    number: int
    adversary: str
    measure: str
    differences: pd.Series
    beside: pd.DataFrame = field(default_factory=lambda: NOTHING)
    note: str = ""


def evaluate(attacks: pd.DataFrame) -> list[Claim]:
    """Every claim over all settings, then dataset by dataset, from an attacks table."""
    decided, all_there = _comparisons(attacks), _comparisons(attacks.assign(failed=None))
    return [
        claim
        for comparison, complete in zip(decided, all_there, strict=True)
        for claim in _by_scope(comparison, complete.differences)
    ]


def verdict(originals: int, interval: tuple[float, float], sign_flip_p: float) -> str:
    """The rule: what so many originals, the interval of their mean difference and its p-value say of a claim."""
    if originals < MIN_ORIGINALS:
        return TOO_FEW
    if interval[0] > 0 and sign_flip_p < ALPHA:
        return SUPPORTED
    return REFUTED if interval[1] < 0 else NOT_SHOWN


def _comparisons(attacks: pd.DataFrame) -> list[Comparison]:
    rows = sound(matched(attacks))
    kinds = versions(rows)
    original, finetuned, pruned = (rows[kinds == kind] for kind in ("original", FINETUNED, "pruned"))
    ppb = sound(attacks[(attacks["defense"] == "ppb") & (attacks["strength"] == PPB_STRENGTH)])
    return [*_claims_1_and_2(original, pruned), *_claim_3(pruned, ppb), *_claim_4(finetuned, pruned), *_claim_5(pruned)]


def _claims_1_and_2(original: pd.DataFrame, pruned: pd.DataFrame) -> list[Comparison]:
    accuracy = reached(pruned, "accuracy")
    added = [name for name, entry in ATTACKS.items() if entry.extension]  # a claim of the paper is not about those
    others = accuracy.drop(columns=["samia", *REFERENCE_ATTACKS, *added], errors="ignore")
    note = f". Others: {', '.join(others.columns)}" + _failures(pruned[pruned["attack"].isin(others.columns)])
    return [
        Comparison(1, "matched", SAMIA, _samia(_more(pruned, original, "accuracy"))),
        _of_strongest(1, pruned, original),
        Comparison(2, "matched", SAMIA, 100 * (_samia(accuracy) - others.max(axis=1)), note=note),
    ]


def _claim_3(without: pd.DataFrame, ppb: pd.DataFrame) -> list[Comparison]:
    """What SAMIA and the strongest attack lose to PPB, by both adversaries."""
    found = []
    for measure in (SAMIA, STRONGEST):
        for name, adversary in (("adaptive", "matched"), ("unaware", "unaware")):
            defended, note = ppb[ppb["adversary"] == adversary], ""
            if measure == SAMIA:
                with_it = _samia(reached(defended, "accuracy"))
                without_it, left = _samia(reached(without, "accuracy")).reindex(with_it.index), with_it
            else:
                auc = reached(defended, "auc")
                without_it, with_it = strongest(reached(without, "auc").reindex(auc.index), auc)
                left = auc.max(axis=1)  # also of an attack that failed without the defence
                same = without.set_index(AT).index.isin(auc.index)
                note = _failures(pd.concat([without[same], defended]))
            cost = (_test_accuracy(without) - _test_accuracy(defended)).reindex(with_it.index)
            beside = 100 * pd.DataFrame({"left": left, "cost": cost})
            found.append(Comparison(3, name, measure, 100 * (without_it - with_it), beside, note))
    return found


def _claim_4(finetuned: pd.DataFrame, pruned: pd.DataFrame) -> list[Comparison]:
    """Pruned models against originals fine-tuned like them, by the strongest attack and by each."""
    auc = _more(pruned, finetuned, "auc")
    return [
        _of_strongest(4, pruned, finetuned),
        Comparison(4, "matched", SAMIA, _samia(_more(pruned, finetuned, "accuracy"))),
        *(Comparison(4, "matched", f"{attack} auc", auc[attack]) for attack in dict.fromkeys(finetuned["attack"])),
    ]


def _claim_5(pruned: pd.DataFrame) -> list[Comparison]:
    found = []
    for measure in (AUC, TPR):
        table = reached(pruned, measure)
        best = table.reindex(columns=list(REFERENCE_ATTACKS)).max(axis=1)
        found.append(Comparison(5, "matched", measure, 100 * (best - _samia(table)), note=BEST_OF_FOUR))
    return found


BEST_OF_FOUR = ". The best of four has an advantage over one by chance alone"
"""What the reader of claim 5 must know."""


def _more(after: pd.DataFrame, before: pd.DataFrame, measure: str) -> pd.DataFrame:
    """By how many points each attack reaches more on pruned models than on what ``before`` has of the same original."""
    table = reached(after, measure)
    return 100 * (table - of_the_same_original(reached(before, measure), table))


def _of_strongest(number: int, after: pd.DataFrame, before: pd.DataFrame) -> Comparison:
    """The largest AUC on pruned models minus the largest on what ``before`` has of the same original."""
    auc = reached(after, "auc")
    more, less = strongest(auc, of_the_same_original(reached(before, "auc"), auc))
    return Comparison(number, "matched", STRONGEST, 100 * (more - less), note=_failures(pd.concat([before, after])))


def _samia(table: pd.DataFrame) -> pd.Series:
    return table.reindex(columns=["samia"])["samia"]


def _test_accuracy(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby(AT)["victim_test_accuracy"].first()


def _failures(rows: pd.DataFrame) -> str:
    said = failures(rows.assign(failures=rows["failed"].notna(), seeds=1))
    return f". {said}" if said else ""


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """A row per claim, adversary, measure and scope; an interval in two columns."""
    rows = []
    for claim in claims:
        row: dict[str, Any] = {}
        for name, value in asdict(claim).items():
            row |= {f"{name}_lo": value[0], f"{name}_hi": value[1]} if name.endswith("interval") else {name: value}
        rows.append(row)
    return pd.DataFrame(rows)


def _by_scope(comparison: Comparison, all_there: pd.Series) -> list[Claim]:
    """A claim over all settings, then dataset by dataset.

    ``all_there`` are the differences as they would be with the results of networks that learnt nothing.
    """
    # Percentages leave rounding noise where two accuracies are equal; a tie must stay one.
    differences = comparison.differences.astype("float64").dropna().round(9)
    left_out = all_there.dropna().index.difference(differences.index)
    places = differences.index.union(left_out, sort=False)
    names = dict.fromkeys(places.get_level_values("dataset"))

    claims = []
    for scope in ("all", *names):
        here, out = (
            index if scope == "all" else index[index.get_level_values("dataset") == scope]
            for index in (differences.index, left_out)
        )
        claims.append(_claim(comparison, scope, differences[here], len(out)))
    return claims


def _claim(comparison: Comparison, scope: str, differences: pd.Series, left_out: int) -> Claim:
    originals = _by_original(differences)
    interval, p_value = _mean_interval(originals), statistics.sign_flip_test(statistics.means(originals), SEED)
    beside = comparison.beside[comparison.beside.index.isin(differences.index)]
    costs = _by_original(beside["cost"])
    return Claim(
        comparison.number,
        comparison.adversary,
        comparison.measure,
        scope,
        statement(comparison.number, comparison.measure),
        settings=len(differences),
        holds=int((differences > 0).sum()),
        originals=len(originals),
        seeds=differences.index.get_level_values("seed").nunique(),
        left_out=left_out,
        effect=_mean(originals),
        interval=interval,
        sign_flip_p=p_value,
        left=_mean(_by_original(beside["left"])),
        cost=_mean(costs),
        cost_interval=_mean_interval(costs),
        verdict=verdict(len(originals), interval, p_value),
        detail=_detail(differences) + (comparison.note if len(differences) and scope == "all" else ""),
    )


def statement(number: int, measure: str) -> str:
    """What is claimed."""
    if (number, measure) in STATEMENTS:
        return STATEMENTS[number, measure]
    attack = measure.removesuffix(" auc")
    return f"pruning itself raises the leak: {attack} has a larger AUC than on the original fine-tuned alike"


def _by_original(values: pd.Series) -> list[np.ndarray]:
    return [of_one.to_numpy() for _, of_one in values.groupby(ORIGINAL, sort=False)] if len(values) else []


def _mean(originals: Sequence[np.ndarray]) -> float:
    return float(statistics.means(originals).mean()) if originals else math.nan


def _mean_interval(originals: Sequence[np.ndarray]) -> tuple[float, float]:
    return statistics.mean_interval(originals, SEED) if len(originals) > 1 else (math.nan, math.nan)


def _detail(differences: pd.Series) -> str:
    """Which settings, brief even for a whole grid: a model's pruners with the same sparsities go together."""
    if differences.empty:
        return "no setting has the results that this claim compares"
    sparsities: dict[tuple[str, str], dict[str, list[str]]] = {}
    for dataset, model, variant in dict.fromkeys(place[:3] for place in differences.index.to_list()):
        pruner, _, sparsity = variant.rpartition("_")
        sparsities.setdefault((dataset, model), {}).setdefault(pruner, []).append(sparsity)
    places = []
    for (dataset, model), of_pruner in sparsities.items():
        pruners: dict[str, list[str]] = {}
        for pruner, levels in of_pruner.items():
            pruners.setdefault(", ".join(levels), []).append(pruner)
        ways = "; ".join(f"{', '.join(names)} at {levels}" for levels, names in pruners.items())
        places.append(f"{dataset}/{model} ({ways})")
    failing = differences[differences <= 0].sort_values(kind="stable")
    several = differences.index.get_level_values("seed").nunique() > 1
    exceptions = [
        f"{'/'.join(place)}{f' with seed {seed}' if several else ''} ({value:+.2f})"
        for (*place, seed), value in zip(failing.index.to_list()[:MAX_EXCEPTIONS], failing.to_list(), strict=False)
    ]
    more = f" and {len(failing) - MAX_EXCEPTIONS} more" if len(failing) > MAX_EXCEPTIONS else ""
    return f"{', '.join(places)}. Not above 0: {', '.join(exceptions) or 'none'}{more}"
