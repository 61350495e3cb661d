"""What a run found, for a reader at a terminal who knows neither the paper nor this project."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas as pd

from miaprune.report.answer import findings
from miaprune.report.claims import STRONGEST, Claim
from miaprune.report.claims_text import NAMED, above_0, against, left_and_cost, left_out, warning
from miaprune.report.tables import SEVERAL, controls_table, defense_table, paper_table, precision, sound, source

WIDTH = 110
"""Of a line of text, in characters."""

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
    width, several = precision(sound(attacks)), attacks["seed"].nunique() > 1
    head = HEAD + (f" An accuracy's 95 % interval is\n{width}." if width and not several else "")
    blocks = [textwrap.fill(finding, WIDTH) for finding in findings(attacks)]
    blocks.append(f"{head}\n{SEVERAL} {source(attacks)}" if several else head)
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
