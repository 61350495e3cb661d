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
from miaprune.report.tables import failures, matched, sound, to_markdown

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
DIFFERENCES = {
    (1, SAMIA): "SAMIA's accuracy on the pruned model minus its accuracy on the original",
    (1, STRONGEST): "the largest AUC of any attack on the pruned model minus the largest on the original",
    (2, SAMIA): "SAMIA's accuracy minus that of the most accurate other attack on the same pruned model",
    (3, SAMIA): "SAMIA's accuracy without PPB, by the matched adversary, minus its accuracy with PPB",
    (3, STRONGEST): "the largest AUC of any attack without PPB, by the matched adversary, minus the largest with PPB",
    (4, STRONGEST): "the largest AUC of any attack on the pruned model minus the largest on the original that was "
    "fine-tuned as it was, with nothing pruned,",
    (5, AUC): "the largest AUC of an attack with reference models minus SAMIA's",
    (5, TPR): "the largest true positive rate of an attack with reference models at 1 % false positives minus SAMIA's",
}

RULE = f"""\
Differences are in percentage points of attack accuracy (members and non-members weigh the same), of AUC (guessing: 50)
or of a true positive rate, one per pruned setting and seed. Settings that share an original model, which is one of a
data set, a network and a seed, are not independent, so **originals count, not settings**: the mean is that over
originals of each original's mean difference. The rule, fixed beforehand: a claim is **{SUPPORTED}** if the 95 %
interval of that mean, by bootstrap of whole originals, lies above 0 and a one-sided test by sign flips of the
originals' means gives p < {ALPHA:g}; **{REFUTED}** if the interval lies below 0; otherwise **{NOT_SHOWN}**; and below
{MIN_ORIGINALS} originals there are **{TOO_FEW}**. Seeds repeat the same data sets and networks: a verdict is about
those that were run. No row is corrected for there being several.

Claims 1, 2, 4 and 5 count undefended models and matched adversaries only. Claim 3 counts settings pruned with and
without PPB, against an adversary who knows of it and defends the shadow models alike (adaptive), and against one
who doesn't (unaware). The rule asks whether PPB lowers the attack at all; what is still reached, and the
test accuracy that PPB costs, are stated beside it. Claims 1 and 3 are decided by SAMIA, as in the paper, and by the
strongest of all attacks that were run: a model leaks what the strongest finds. It is the strongest of the same attacks
on both sides of a difference. Claims 4 and 5 are not the paper's.
"""
"""How a verdict is reached, in Markdown."""

HEAD = f"# The paper's claims, tested, and what goes beyond them\n\n{RULE}"


NAMED = {
    SAMIA: "",
    STRONGEST: ", by the strongest attack",
    AUC: ", by AUC",
    TPR: ", by the rate at 1 % false positives",
}
"""How a heading names a measure."""


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
                without_it = _samia(reached(without, "accuracy")).reindex(with_it.index)
            else:
                auc = reached(defended, "auc")
                without_it, with_it = strongest(reached(without, "auc").reindex(auc.index), auc)
                note = _failures(pd.concat([without, defended]))
            cost = (_test_accuracy(without) - _test_accuracy(defended)).reindex(with_it.index)
            beside = 100 * pd.DataFrame({"left": with_it, "cost": cost})
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


def claims_markdown(claims: Sequence[Claim], guessing: Sequence[str] = (), source: str = "") -> str:
    """The claims in plain language: what was claimed, what was seen, the verdict and how it was reached.

    ``guessing`` and ``source`` are as `miaprune.report.tables.learnt_nothing` and `source` there give them.
    """
    kinds = dict.fromkeys((c.number, c.adversary, c.measure) for c in claims if c.number != 4 or c.measure == STRONGEST)
    single = [c for c in claims if c.number == 4 and c.measure != STRONGEST and c.scope == "all" and c.settings]
    text = HEAD + (f"\n{source}\n" if source else "") + (f"\n{warning(guessing)}\n" if guessing else "")
    for kind in kinds:
        text += _section([c for c in claims if (c.number, c.adversary, c.measure) == kind])
        if kind[0] == 4 and single:
            cells = [{"by": claim.measure} | _cells(claim) for claim in single]
            text += f"\nThe same by one attack at a time:\n\n{to_markdown(pd.DataFrame(cells).drop(columns='scope'))}"
    return text


def warning(guessing: Sequence[str]) -> str:
    named = ", ".join(guessing[:MAX_EXCEPTIONS])
    more = f" and {len(guessing) - MAX_EXCEPTIONS} more settings" if len(guessing) > MAX_EXCEPTIONS else ""
    return f"Models that learnt nothing, on test no better, beyond noise, than always saying one class: {named}{more}."


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
        detail=_detail(differences) + (comparison.note if len(differences) else ""),
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


def _section(claims: Sequence[Claim]) -> str:
    overall = claims[0]
    kind = f"Claim {overall.number}" + (f", {overall.adversary} adversary" if overall.number == 3 else "")
    kind += NAMED[overall.measure]
    lines = [f"\n## {kind}: {overall.verdict}\n", f"Claimed: {overall.statement}{against(overall)}.\n"]
    if overall.settings:
        lines.append(
            f"Seen: {DIFFERENCES[overall.number, overall.measure]} is {above_0(overall)}; "
            f"sign flips p = {overall.sign_flip_p:.2g}{left_and_cost(overall)}{left_out(overall)}.\n"
        )
        lines.append(f"Settings: {overall.detail}.\n")
    else:
        lines.append(f"Seen: nothing yet; {overall.detail}{left_out(overall)}.\n")
    return "\n".join([*lines, to_markdown(pd.DataFrame(map(_cells, claims)))])


def above_0(claim: Claim) -> str:
    """In how many settings a difference is above 0, and its mean, in words."""
    originals = f"{claim.originals} original{'s' if claim.originals > 1 else ''}"
    seeds = f" ({claim.seeds} seeds)" if claim.seeds > 1 else ""
    return (
        f"above 0 in {claim.holds} of {claim.settings} settings; the mean over {originals}{seeds} is "
        f"{claim.effect:+.2f} points (95 % interval {interval_text(claim.interval)})"
    )


def _cells(claim: Claim) -> dict[str, str]:
    """A claim's row in its section's table."""
    cells = {
        "scope": claim.scope,
        "originals": str(claim.originals),
        "settings": str(claim.settings),
        "above 0": str(claim.holds),
        "left out": str(claim.left_out),
        "mean (points)": f"{claim.effect:+.2f}" if claim.settings else "",
        "95 % interval": interval_text(claim.interval) if claim.settings else "",
        "sign flips p": f"{claim.sign_flip_p:.2g}",
    }
    if claim.number == 3:
        cells |= {
            f"{'SAMIA' if claim.measure == SAMIA else 'largest AUC'} with PPB (%)": f"{claim.left:.2f}"
            if claim.settings
            else "",
            "cost (points)": f"{claim.cost:+.2f}" if claim.settings else "",
            "cost, 95 % interval": interval_text(claim.cost_interval) if claim.settings else "",
        }
    return cells | {"verdict": claim.verdict}


def against(claim: Claim) -> str:
    return {
        "matched": "",
        "adaptive": ", against an adversary who knows of it",
        "unaware": ", against an adversary who doesn't know of it",
    }[claim.adversary]


def left_out(claim: Claim) -> str:
    if not claim.left_out:
        return ""
    return f"; {claim.left_out} more failed and left out, as a network of theirs learnt nothing"


def left_and_cost(claim: Claim) -> str:
    if claim.number != 3:
        return ""
    still = "SAMIA still reaches" if claim.measure == SAMIA else "the strongest attack still has an AUC of"
    return (
        f"; with PPB {still} {claim.left:.2f} % on average (guessing: 50 %), and PPB costs "
        f"{claim.cost:+.2f} points of test accuracy (95 % interval {interval_text(claim.cost_interval)})"
    )


def interval_text(interval: tuple[float, float]) -> str:
    return "none from one original" if math.isnan(interval[0]) else f"{interval[0]:+.2f} to {interval[1]:+.2f}"
