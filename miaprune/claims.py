"""The paper's claims as tests over the grid, with verdicts that the numbers can refute (method, section 11).

The rule is fixed before any number is seen and is the same for every claim. A claim says that a difference of
attack accuracies is above 0, and each pruned setting gives one difference (a mean over seeds where there are
several). The claim is *supported* if the 95 % bootstrap interval of the mean difference lies above 0 and a
one-sided paired sign test gives p < `ALPHA`: a few large differences do not carry it, nor do many tiny ones
that larger ones outweigh. Otherwise it is *not supported*, or, below `MIN_SETTINGS` settings, there are *too
few settings to tell*. Only undefended victims and matched adversaries count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from miaprune import metrics
from miaprune.results import PLACE, paper_table, to_markdown, undefended

ALPHA = 0.05
"""Level of the sign test."""

MIN_SETTINGS = 5
"""Fewest settings that get a verdict: even 4 of 4 gives p = 1/16, so 4 could never support a claim."""

MAX_EXCEPTIONS = 10
"""How many settings where a claim does not hold are named, the largest first; the rest are counted."""

SEED = 0
"""Seed of the bootstrap: the verdicts are a function of the attacks table alone."""

SUPPORTED, NOT_SUPPORTED, TOO_FEW = "supported", "not supported", "too few settings to tell"

STATEMENTS = {
    1: "pruning makes membership inference easier: SAMIA is more accurate than on the original",
    2: "SAMIA is the strongest attack on pruned models: more accurate than the best of the others",
}
DIFFERENCES = {
    1: "SAMIA's accuracy on the pruned model minus its accuracy on the original",
    2: "SAMIA's accuracy minus that of the most accurate other attack on the same pruned model",
}

HEAD = f"""# The paper's claims, tested

Differences are in percentage points of attack accuracy (members and non-members weigh the same), one per
pruned setting. The rule, fixed beforehand: a claim is **{SUPPORTED}** if the 95 % bootstrap interval of the
mean difference lies above 0 and a one-sided paired sign test gives p < {ALPHA:g}; otherwise it is
**{NOT_SUPPORTED}**, or, below {MIN_SETTINGS} settings, there are **{TOO_FEW}**. Undefended models and matched
adversaries only. Settings that share an original model are not independent, so the p-values are on the small
side; the rows of single datasets are not corrected for there being several.
"""


SUMMARY_HEAD = """\
How often each attack tells members (records the model was trained on) from non-members, in percent: 50 is a
coin toss, 100 is certainty. "test" is the attacked model's own accuracy on unseen records, in percent; rows
named "original" are models before pruning."""


@dataclass(frozen=True)
class Claim:
    """What was seen of one claim within one scope.

    Attributes
    ----------
    scope : "all", or the dataset whose settings alone were counted.
    settings, holds : pruned settings with a difference, and those where it is above 0.
    effect, interval : mean difference and its 95 % bootstrap interval, in percentage points; NaN if there are
        no settings.
    p_value : of the one-sided sign test; settings with a difference of exactly 0 do not enter it.
    detail : which settings, and those where the claim does not hold, with their differences in points.
    """

    number: int
    scope: str
    statement: str
    settings: int
    holds: int
    effect: float
    interval: tuple[float, float]
    p_value: float
    verdict: str
    detail: str


def evaluate(attacks: pd.DataFrame) -> list[Claim]:
    """Every claim over all settings, then dataset by dataset, from an attacks table."""
    accuracies = undefended(attacks).pivot(index=PLACE, columns="attack", values="accuracy") * 100
    if "samia" not in accuracies:
        accuracies["samia"] = math.nan
    pruned = accuracies.index.get_level_values("variant") != "original"
    others = accuracies[pruned].drop(columns="samia")
    claims = []
    for number, differences, note in (
        (1, _over_original(accuracies["samia"], pruned), ""),
        (2, accuracies["samia"][pruned] - others.max(axis=1), f". Others: {', '.join(others.columns)}"),
    ):
        # Means over seeds leave rounding noise where two accuracies are equal; a tie must stay one.
        differences = differences.astype("float64").dropna().round(9)
        claims.append(_claim(number, "all", differences, note))
        datasets = differences.index.get_level_values("dataset")
        claims += [_claim(number, name, differences[datasets == name], note) for name in dict.fromkeys(datasets)]
    return claims


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """A row per claim and scope; the interval in two columns."""
    rows = []
    for claim in claims:
        row = asdict(claim)
        low, high = row.pop("interval")
        verdict, detail = row.pop("verdict"), row.pop("detail")
        rows.append(row | {"interval_lo": low, "interval_hi": high, "verdict": verdict, "detail": detail})
    return pd.DataFrame(rows)


def claims_markdown(claims: Sequence[Claim]) -> str:
    """The claims in plain language: what was claimed, what was seen, the verdict and how it was reached."""
    sections = [_section(n, [c for c in claims if c.number == n]) for n in STATEMENTS]
    return HEAD + "".join(sections)


def summary(attacks: pd.DataFrame, claims: Sequence[Claim]) -> str:
    """What a run found, for a reader at a terminal who knows neither the paper nor this project."""
    blocks = [SUMMARY_HEAD]
    for dataset in dict.fromkeys(attacks["dataset"]):
        table = paper_table(attacks, dataset).rename(columns={"test_accuracy": "test"})
        blocks.append(f"{dataset}\n{table.to_string(index=False)}")
    for claim in claims:
        if claim.scope == "all":
            seen = (
                f"the difference is above 0 in {claim.holds} of {claim.settings} settings, on average "
                f"{claim.effect:+.2f} points (95 % interval {_interval(claim)})"
                if claim.settings
                else claim.detail
            )
            blocks.append(f"Claim {claim.number}, {claim.statement}\n  {claim.verdict.upper()}: {seen}.")
    return "\n\n".join(blocks) + "\n"


def _over_original(accuracies: pd.Series, pruned: np.ndarray) -> pd.Series:
    before, after = accuracies[~pruned].droplevel("variant"), accuracies[pruned]
    return after - before.reindex(after.droplevel("variant").index).to_numpy()


def _claim(number: int, scope: str, differences: pd.Series, note: str) -> Claim:
    values = differences.to_numpy()
    interval = metrics.bootstrap_mean_interval(values, SEED) if len(values) else (math.nan, math.nan)
    p_value = metrics.sign_test(values)
    if len(values) < MIN_SETTINGS:
        verdict = TOO_FEW
    else:
        verdict = SUPPORTED if interval[0] > 0 and p_value < ALPHA else NOT_SUPPORTED
    return Claim(
        number,
        scope,
        STATEMENTS[number],
        settings=len(values),
        holds=int((values > 0).sum()),
        effect=float(values.mean()) if len(values) else math.nan,
        interval=interval,
        p_value=p_value,
        verdict=verdict,
        detail=_detail(differences) + (note if len(values) else ""),
    )


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


def _section(number: int, claims: Sequence[Claim]) -> str:
    overall = claims[0]
    lines = [f"\n## Claim {number}: {overall.verdict}\n", f"Claimed: {overall.statement}.\n"]
    if overall.settings:
        lines.append(
            f"Seen: {DIFFERENCES[number]} is above 0 in {overall.holds} of {overall.settings} settings; "
            f"on average {overall.effect:+.2f} points (95 % interval {_interval(overall)}); "
            f"sign test p = {overall.p_value:.2g}.\n"
        )
        lines.append(f"Settings: {overall.detail}.\n")
    else:
        lines.append(f"Seen: nothing yet; {overall.detail}.\n")
    table = pd.DataFrame(
        {
            "scope": claim.scope,
            "settings": str(claim.settings),
            "above 0": str(claim.holds),
            "mean (points)": f"{claim.effect:+.2f}" if claim.settings else "",
            "95 % interval": _interval(claim) if claim.settings else "",
            "sign test p": f"{claim.p_value:.2g}",
            "verdict": claim.verdict,
        }
        for claim in claims
    )
    return "\n".join([*lines, to_markdown(table)])


def _interval(claim: Claim) -> str:
    return f"{claim.interval[0]:+.2f} to {claim.interval[1]:+.2f}"
