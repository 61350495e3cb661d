"""What a run found, for a reader at a terminal who knows neither the paper nor this project."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from miaprune.grid import FINETUNED
from miaprune.report.claims import NAMED, STRONGEST, Claim, above_0, against, left_and_cost, left_out, warning
from miaprune.report.tables import (
    SEVERAL,
    controls_table,
    defense_table,
    failures,
    matched,
    paper_table,
    precision,
    source,
    strongest,
    undefended,
)

HEAD = """\
How often each attack tells members (records the model was trained on) from non-members, in percent: 50 is a
coin toss, 100 is certainty. "test" is the attacked model's own accuracy on unseen records, in percent; rows
named "original" are models before pruning; "strongest" is the attack with the largest AUC (0.5 is a coin toss)."""

CONTROLS_HEAD = """\
controls: finetuned is the original trained on as the pruned models are, untuned was pruned and not trained on,
of random the pruned weights were drawn."""

DEFENSES_HEAD = """\
with defences: an adaptive adversary defends the shadow models like the victim, an unaware one does
not. epsilon is what dp guarantees for the fine-tuning alone."""


def summary(attacks: pd.DataFrame, claims: Sequence[Claim], guessing: Sequence[str] = ()) -> str:
    """The finding in a sentence for each network, then the tables, then the claims.

    ``attacks`` is an attacks table; ``guessing`` names settings as `miaprune.report.tables.learnt_nothing` does.
    """
    width, several = precision(attacks), attacks["seed"].nunique() > 1
    head = HEAD + (f" An accuracy's 95 % interval is\n{width}." if width and not several else "")
    blocks = [*findings(attacks), f"{head}\n{SEVERAL} {source(attacks)}" if several else head]
    for dataset in dict.fromkeys(attacks["dataset"]):
        table = paper_table(attacks, dataset).rename(columns={"test_accuracy": "test"})
        blocks.append(f"{dataset}\n{table.to_string(index=False)}")
        table = controls_table(attacks, dataset).rename(columns={"test_accuracy": "test"})
        if len(table):
            blocks.append(f"{dataset}, {CONTROLS_HEAD}\n{table.to_string(index=False)}")
        table = defense_table(attacks, dataset).rename(columns={"test_accuracy": "test"})
        if len(table):
            blocks.append(f"{dataset}, {DEFENSES_HEAD}\n{table.to_string(index=False)}")
    if guessing:
        blocks.append(warning(guessing))
    defended = attacks["defense"].notna().any()
    for claim in claims:
        shown = claim.number < 3 or (defended if claim.number == 3 else claim.settings + claim.left_out)
        if claim.scope == "all" and shown and (claim.number != 4 or claim.measure == STRONGEST):
            seen = f"the difference is {above_0(claim)}{left_and_cost(claim)}" if claim.settings else claim.detail
            statement = f"Claim {claim.number}{NAMED[claim.measure]}, {claim.statement}{against(claim)}"
            blocks.append(f"{statement}\n  {claim.verdict.upper()}: {seen}{left_out(claim)}.")
    return "\n\n".join(blocks) + "\n"


def findings(attacks: pd.DataFrame) -> list[str]:
    """For each (dataset, model) the strongest attack's AUC before pruning and after, and on the control `FINETUNED`."""
    sentences, finetuned = [], matched(attacks[attacks["tuning"] == FINETUNED])
    for (dataset, model), rows in undefended(attacks).groupby(["dataset", "model"], sort=False):
        of_model, failed = rows[rows["auc"].notna()], failures(rows)
        best = of_model.loc[of_model.groupby("variant", sort=False)["auc"].idxmax()]
        said = [
            _reached(best[best["pruner"].isna()], "before pruning"),
            _reached(best[best["pruner"].notna()], "after"),
        ]
        found = (
            f"the strongest attack tells members from non-members with an AUC of "
            f"{' and of '.join(filter(None, said))}. A coin toss has 0.50."
            if any(said)
            else "no attack says anything."
        )
        alike = finetuned[(finetuned["dataset"] == dataset) & (finetuned["model"] == model)]
        if len(alike):
            found += f" Fine-tuned alike, the original without pruning has {strongest(alike)}."
        sentences.append(f"{dataset}, {model}: {found}" + (f" {failed}." if failed else ""))
    return sentences


def _reached(best: pd.DataFrame, when: str) -> str:
    """The strongest attack of each setting, in words; empty where there is none."""
    if best.empty:
        return ""
    in_order = best.sort_values("auc").to_dict("records")
    low, high = in_order[0], in_order[-1]
    top = f"{high['auc']:.2f} ({high['attack']}"
    if len(best) == 1:
        return f"{top}) {when}" if pd.isna(high["pruner"]) else f"{top}) {when} ({high['variant']})"
    return f"{low['auc']:.2f} to {top} on {high['variant']}) {when}"
