"""The paper's claims as tests over the grid, with verdicts that the numbers can refute (method, section 11).

The rule is fixed before any number is seen and is the same for every claim. A claim says that a difference of
attack accuracies is above 0, and each pruned setting gives one difference (a mean over seeds where there are
several). Results of networks that learnt nothing decide nothing: settings without another are left out, and counted.
The claim is *supported* if the 95 % bootstrap interval of the mean difference lies above 0 and a
one-sided paired sign test gives p < `ALPHA`: a few large differences do not carry it, nor do many tiny ones
that larger ones outweigh. Otherwise it is *not supported*, or, below `MIN_SETTINGS` settings, there are *too
few settings to tell*.

Claims 1, 2 and 5 count undefended victims and matched adversaries only. Claim 3 is decided twice, against the
adaptive and against the unaware adversary; each defended setting is compared with itself undefended. Claims 1 and 3 are
decided by SAMIA's accuracy, as in the paper, and once more by the largest AUC of any attack: a model leaks what the
strongest finds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from miaprune import metrics
from miaprune.grid import PPB_STRENGTH, REFERENCE_ATTACKS
from miaprune.report.tables import PLACE, failures, over_seeds, to_markdown, undefended

ALPHA = 0.05
"""Level of the sign test."""

MIN_SETTINGS = 5
"""Fewest settings that get a verdict: even 4 of 4 gives p = 1/16, so 4 could never support a claim."""

MAX_EXCEPTIONS = 10
"""How many settings where a claim does not hold are named, the largest first; the rest are counted."""

SEED = 0
"""Seed of the bootstrap: the verdicts are a function of the attacks table alone."""

SUPPORTED, NOT_SUPPORTED, TOO_FEW = "supported", "not supported", "too few settings to tell"

SAMIA, STRONGEST, AUC, TPR = "samia accuracy", "strongest auc", "auc", "tpr_at_fpr_0.01"
"""What claims are measured by."""

STATEMENTS = {
    (1, SAMIA): "pruning makes membership inference easier: SAMIA is more accurate than on the original",
    (1, STRONGEST): "pruning makes membership inference easier: the strongest attack has a larger AUC than on the "
    "original",
    (2, SAMIA): "SAMIA is the strongest attack without reference models on pruned models: more accurate than the best "
    "of the others",
    (3, SAMIA): f"PPB (strength {PPB_STRENGTH:g}) protects pruned models: SAMIA is less accurate with it than without",
    (3, STRONGEST): f"PPB (strength {PPB_STRENGTH:g}) protects pruned models: the strongest attack has a smaller AUC "
    "with it than without",
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
    (5, AUC): "the largest AUC of an attack with reference models minus SAMIA's",
    (5, TPR): "the largest true positive rate of an attack with reference models at 1 % false positives minus SAMIA's",
}

HEAD = f"""# The paper's claims, tested, and what goes beyond them

Differences are in percentage points of attack accuracy (members and non-members weigh the same), of AUC (guessing: 50)
or of a true positive rate, one per pruned setting. The rule, fixed beforehand: a claim is **{SUPPORTED}** if the 95 %
bootstrap interval of the mean difference lies above 0 and a one-sided paired sign test gives p < {ALPHA:g}; otherwise
it is **{NOT_SUPPORTED}**, or, below {MIN_SETTINGS} settings, there are **{TOO_FEW}**. Settings that share an original
model are not independent, so the p-values are on the small side; the rows of single datasets are not corrected
for there being several.

Claims 1, 2 and 5 count undefended models and matched adversaries only. Claim 3 counts settings pruned with and
without PPB, against an adversary who knows of it and defends the shadow models alike (adaptive), and against one
who doesn't (unaware). The rule asks whether PPB lowers the attack at all; what is still reached, and the
test accuracy that PPB costs, are stated beside it. Claims 1 and 3 are decided by SAMIA, as in the paper, and by the
strongest of all attacks that were run: a model leaks what the strongest finds. Claim 5 is not the paper's.
"""


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
    measure : what was compared, one of `SAMIA`, `STRONGEST`, `AUC` and `TPR`.
    scope : "all", or the dataset whose settings alone were counted.
    settings, holds : pruned settings with a difference, and those where it is above 0.
    left_out : pruned settings without one because a network learnt nothing.
    effect, interval : mean difference and its 95 % bootstrap interval, in percentage points; NaN if there are
        no settings, the interval already if there is only one.
    p_value : of the one-sided sign test; settings with a difference of exactly 0 do not enter it.
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
    left_out: int
    effect: float
    interval: tuple[float, float]
    p_value: float
    left: float
    cost: float
    cost_interval: tuple[float, float]
    verdict: str
    detail: str


def evaluate(attacks: pd.DataFrame) -> list[Claim]:
    """Every claim over all settings, then dataset by dataset, from an attacks table."""
    sound, all_there = _differences(attacks), _differences(attacks.assign(failed=None))
    claims = []
    for (kind, (differences, beside)), (complete, _) in zip(sound.items(), all_there.values(), strict=True):
        claims += _by_scope(kind, differences, complete, beside)
    return claims


Kind = tuple[int, str, str, str]
"""A claim's number, its adversary, its measure, and what its detail ends with."""


def _differences(attacks: pd.DataFrame) -> dict[Kind, tuple[pd.Series, pd.DataFrame]]:
    """By kind of claim the difference of each pruned setting in percentage points, and left and cost."""
    rows = undefended(attacks)
    accuracies = rows.pivot(index=PLACE, columns="attack", values="accuracy") * 100
    if "samia" not in accuracies:
        accuracies["samia"] = math.nan
    pruned = accuracies.index.get_level_values("variant") != "original"
    others = accuracies[pruned].drop(columns=["samia", *REFERENCE_ATTACKS], errors="ignore")
    nothing = pd.DataFrame(columns=["left", "cost"], dtype="float64")
    said = failures(rows[rows["pruner"].notna() & rows["attack"].isin(others.columns)])
    best_other, note = others.max(axis=1), f". Others: {', '.join(others.columns)}" + (f". {said}" if said else "")
    found = {
        (1, "matched", SAMIA, ""): (_over_original(accuracies["samia"], pruned), nothing),
        (1, "matched", STRONGEST, _but(failures(rows))): (_over_original(_strongest(rows), pruned), nothing),
        (2, "matched", SAMIA, note): (accuracies["samia"][pruned] - best_other, nothing),
    }
    without = _reached(attacks[attacks["defense"].isna()], "matched")
    ppb = attacks[(attacks["defense"] == "ppb") & (attacks["strength"] == PPB_STRENGTH)]
    for measure in (SAMIA, STRONGEST):
        for name, adversary in (("adaptive", "matched"), ("unaware", "unaware")):
            left = _reached(ppb, adversary)
            lost = without - left
            beside = pd.DataFrame({"left": left[measure], "cost": lost["test"]})
            compared = over_seeds(pd.concat([attacks[attacks["defense"].isna()], ppb]))
            found[3, name, measure, _but(failures(compared)) if measure == STRONGEST else ""] = lost[measure], beside
    for measure in (AUC, TPR):
        reached = rows.pivot(index=PLACE, columns="attack", values=measure) * 100
        best = reached.reindex(columns=list(REFERENCE_ATTACKS)).max(axis=1)
        more = best - reached["samia"] if "samia" in reached else best * math.nan
        found[5, "matched", measure, BEST_OF_FOUR] = (more[pruned], nothing)
    return found


BEST_OF_FOUR = ". The best of four has an advantage over one by chance alone"
"""What the reader of claim 5 must know."""


def _but(failed: str) -> str:
    return f". {failed}" if failed else ""


def _strongest(rows: pd.DataFrame) -> pd.Series:
    """The largest AUC of any attack, in percent, by `PLACE`; ``rows`` are averaged over seeds."""
    return rows.groupby(PLACE, sort=True)["auc"].max() * 100


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """A row per claim, adversary and scope; an interval in two columns."""
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
    kinds = dict.fromkeys((c.number, c.adversary, c.measure) for c in claims)
    head = HEAD + (f"\n{source}\n" if source else "") + (f"\n{warning(guessing)}\n" if guessing else "")
    return head + "".join(_section([c for c in claims if (c.number, c.adversary, c.measure) == kind]) for kind in kinds)


def warning(guessing: Sequence[str]) -> str:
    named = ", ".join(guessing[:MAX_EXCEPTIONS])
    more = f" and {len(guessing) - MAX_EXCEPTIONS} more settings" if len(guessing) > MAX_EXCEPTIONS else ""
    return f"Models that learnt nothing, on test no better, beyond noise, than always saying one class: {named}{more}."


def _over_original(accuracies: pd.Series, pruned: np.ndarray) -> pd.Series:
    before, after = accuracies[~pruned].droplevel("variant"), accuracies[pruned]
    return after - before.reindex(after.droplevel("variant").index).to_numpy()


def _reached(attacks: pd.DataFrame, adversary: str) -> pd.DataFrame:
    """`SAMIA` and `STRONGEST` on pruned victims and their test accuracy (test), in percent, by `PLACE`."""
    rows = over_seeds(attacks[(attacks["adversary"] == adversary) & attacks["pruner"].notna()])
    samia = rows[rows["attack"] == "samia"].set_index(PLACE)["accuracy"] * 100
    test = rows.groupby(PLACE, sort=True)["victim_test_accuracy"].mean() * 100
    return pd.DataFrame({SAMIA: samia, STRONGEST: _strongest(rows), "test": test})


def _by_scope(kind: Kind, differences: pd.Series, all_there: pd.Series, beside: pd.DataFrame) -> list[Claim]:
    """A claim over all settings, then dataset by dataset; ``beside`` holds left and cost where there are any.

    ``all_there`` are the differences as they would be with the results of networks that learnt nothing.
    """
    # Means over seeds leave rounding noise where two accuracies are equal; a tie must stay one.
    differences = differences.astype("float64").dropna().round(9)
    left_out = all_there.dropna().index.difference(differences.index)
    places = differences.index.union(left_out, sort=False)
    names = dict.fromkeys(places.get_level_values("dataset"))

    claims = []
    for scope in ("all", *names):
        here, out = (
            index if scope == "all" else index[index.get_level_values("dataset") == scope]
            for index in (differences.index, left_out)
        )
        claims.append(_claim(kind, scope, differences[here], len(out), beside))
    return claims


def _claim(kind: Kind, scope: str, differences: pd.Series, left_out: int, beside: pd.DataFrame) -> Claim:
    number, adversary, measure, note = kind
    values = differences.to_numpy()
    interval = _mean_interval(values)
    p_value = metrics.sign_test(values)
    if len(values) < MIN_SETTINGS:
        verdict = TOO_FEW
    else:
        verdict = SUPPORTED if interval[0] > 0 and p_value < ALPHA else NOT_SUPPORTED
    here = beside[beside.index.isin(differences.index)]
    return Claim(
        number,
        adversary,
        measure,
        scope,
        STATEMENTS[number, measure],
        settings=len(values),
        holds=int((values > 0).sum()),
        left_out=left_out,
        effect=_mean(values),
        interval=interval,
        p_value=p_value,
        left=_mean(here["left"].to_numpy()),
        cost=_mean(here["cost"].to_numpy()),
        cost_interval=_mean_interval(here["cost"].to_numpy()),
        verdict=verdict,
        detail=_detail(differences) + (note if len(values) else ""),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _mean_interval(values: np.ndarray) -> tuple[float, float]:
    return metrics.bootstrap_mean_interval(values, SEED) if len(values) > 1 else (math.nan, math.nan)


def _detail(differences: pd.Series) -> str:
    """Which settings, brief even for a whole grid: a model's pruners with the same sparsities go together."""
    if differences.empty:
        return "no setting has the results that this claim compares"
    sparsities: dict[tuple[str, str], dict[str, list[str]]] = {}
    for dataset, model, variant in differences.index.to_list():
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
    named = zip(failing.index.to_list()[:MAX_EXCEPTIONS], failing.to_list(), strict=False)
    exceptions = ", ".join(f"{'/'.join(place)} ({value:+.2f})" for place, value in named) or "none"
    more = f" and {len(failing) - MAX_EXCEPTIONS} more" if len(failing) > MAX_EXCEPTIONS else ""
    return f"{', '.join(places)}. Not above 0: {exceptions}{more}"


def _section(claims: Sequence[Claim]) -> str:
    overall = claims[0]
    kind = f"Claim {overall.number}" + (f", {overall.adversary} adversary" if overall.number == 3 else "")
    kind += NAMED[overall.measure]
    lines = [f"\n## {kind}: {overall.verdict}\n", f"Claimed: {overall.statement}{against(overall)}.\n"]
    if overall.settings:
        lines.append(
            f"Seen: {DIFFERENCES[overall.number, overall.measure]} is above 0 in {overall.holds} of "
            f"{overall.settings} settings; on average {overall.effect:+.2f} points "
            f"(95 % interval {interval_text(overall.interval)}); "
            f"sign test p = {overall.p_value:.2g}{left_and_cost(overall)}{left_out(overall)}.\n"
        )
        lines.append(f"Settings: {overall.detail}.\n")
    else:
        lines.append(f"Seen: nothing yet; {overall.detail}{left_out(overall)}.\n")
    return "\n".join([*lines, to_markdown(pd.DataFrame(map(_cells, claims)))])


def _cells(claim: Claim) -> dict[str, str]:
    """A claim's row in its section's table."""
    cells = {
        "scope": claim.scope,
        "settings": str(claim.settings),
        "above 0": str(claim.holds),
        "left out": str(claim.left_out),
        "mean (points)": f"{claim.effect:+.2f}" if claim.settings else "",
        "95 % interval": interval_text(claim.interval) if claim.settings else "",
        "sign test p": f"{claim.p_value:.2g}",
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
    return "none from one setting" if math.isnan(interval[0]) else f"{interval[0]:+.2f} to {interval[1]:+.2f}"
