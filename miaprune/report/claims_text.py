"""The claims in words, for people: their rule, what was seen of each, and its verdict, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from miaprune.report.claims import (
    ALPHA,
    AUC,
    MAX_EXCEPTIONS,
    MIN_ORIGINALS,
    NOT_SHOWN,
    REFUTED,
    SAMIA,
    STRONGEST,
    SUPPORTED,
    TOO_FEW,
    TPR,
    Claim,
)
from miaprune.report.tables import to_markdown

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


def markdown(claims: Sequence[Claim], guessing: Sequence[str] = (), source: str = "") -> str:
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
    return f"Models that learnt nothing, no better, beyond noise, than always saying one class: {named}{more}."


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
        lines.append(f"Seen: nothing{left_out(overall) or f' yet; {overall.detail}'}.\n")
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
        "sign flips p": f"{claim.sign_flip_p:.2g}" if claim.settings else "",
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
    if not claim.settings:
        where = "the only setting" if claim.left_out == 1 else f"all {claim.left_out} settings"
        return f", as in {where} a network learnt nothing"
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
