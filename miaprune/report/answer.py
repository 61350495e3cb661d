"""What a run found, shortly: how well the strongest attack does, before pruning and after, and with a defence."""

from __future__ import annotations

import numpy as np
import pandas as pd

from miaprune.grid import FINETUNED, RANDOM, UNTUNED
from miaprune.report.effects import versions
from miaprune.report.tables import failures, largest, matched, over_seeds, sound, strongest, undefended

LEAST, MOST = "leaks least", "leaks most"
"""Of several settings: that where the strongest attack's AUC is smallest, and that where it is largest."""

OF = {"original": "the original", FINETUNED: "the original fine-tuned alike", "pruned": "the pruned models"}
"""The versions whose silence is said."""


def answer(attacks: pd.DataFrame) -> pd.DataFrame:
    """The strongest attack by AUC on each network's original, finetuned, pruned and defended versions.

    ``attacks`` is an attacks table. A row is one of `over_seeds`, of the matched adversary: for a defended version the
    adaptive one. More columns: ``version`` ("original", "finetuned", "pruned" or "defended"), ``which`` (`LEAST` and
    `MOST` where there are several settings of a version, else empty), ``settings``, how many there are, and
    ``failed_settings``, of how many no attack says anything; ``failed_attacks``, how many attacks on the row's own
    victims failed. If no attack says anything of a version, ``auc`` is NaN in its one row. The other controls are left
    out.
    """
    rows = over_seeds(attacks[attacks["adversary"] == "matched"])
    rows = rows[(rows["tuning"] != UNTUNED) & (rows["pruner"] != RANDOM)]
    rows = rows.assign(version=np.where(rows["defense"].notna(), "defended", versions(rows)))
    victim = rows.groupby(["dataset", "model", "variant", "defense", "strength"], dropna=False, sort=False)
    best = largest(rows.assign(failed_attacks=victim["auc"].transform(lambda auc: auc.isna().sum())), "auc")
    found = []
    for _, network in best.groupby(["dataset", "model"], sort=False):
        for version in ("original", FINETUNED, "pruned", "defended"):
            mine = network[network["version"] == version].sort_values("auc", kind="stable")  # those that failed last
            counted = mine.assign(settings=len(mine), failed_settings=int(mine["auc"].isna().sum()), which="")
            said = counted[counted["auc"].notna()]
            if len(said) > 1:
                found += [said.iloc[:1].assign(which=LEAST), said.iloc[-1:].assign(which=MOST)]
            else:
                found.append(said if len(said) else counted.iloc[:1])
    return pd.concat(found, ignore_index=True)


def findings(attacks: pd.DataFrame) -> list[str]:
    """For each (dataset, model) the strongest attack's AUC before pruning and after, and on the control `FINETUNED`."""
    sentences, best = [], answer(attacks)
    finetuned = sound(matched(attacks[attacks["tuning"] == FINETUNED]))
    for (dataset, model), rows in undefended(attacks).groupby(["dataset", "model"], sort=False):
        mine, failed = best[(best["dataset"] == dataset) & (best["model"] == model)], failures(rows)
        said = [
            _reached(mine[mine["version"] == "original"], "before pruning"),
            _reached(mine[mine["version"] == "pruned"], "after"),
        ]
        found = (
            f"the strongest attack tells members from non-members with an AUC of "
            f"{' and of '.join(filter(None, said))}. A coin toss has 0.50."
            if any(said)
            else "no attack says anything."
        )
        alike = finetuned[(finetuned["dataset"] == dataset) & (finetuned["model"] == model)]
        if alike["auc"].notna().any():
            found += f" Fine-tuned alike, the original without pruning has {strongest(alike)}."
        if any(said):
            silent = set(mine.loc[mine["auc"].isna(), "version"])
            found += "".join(f" Of {of} no attack says anything." for version, of in OF.items() if version in silent)
        sentences.append(f"{dataset}, {model}: {found}" + (f" {failed}." if failed else ""))
    return sentences


def _reached(rows: pd.DataFrame, when: str) -> str:
    """What the strongest attack reaches on a version, in words; empty where no attack says anything."""
    if rows.empty or rows["auc"].isna().all():
        return ""
    low, high = rows.iloc[0], rows.iloc[-1]
    top, failed = f"{high['auc']:.2f} ({high['attack']}", _failed(high)
    if len(rows) == 1:
        return f"{top}{failed}) {when}" + ("" if high["version"] == "original" else f" ({high['variant']})")
    least = f"{low['auc']:.2f}" + (f" ({low['attack']}{_failed(low)})" if _failed(low) else "")
    return f"{least} to {top} on {high['variant']}{failed}) {when}"


def _failed(row: pd.Series) -> str:
    """That the strongest attack is only that of those that worked, and in how many seeds it did."""
    seeds = f"; {row['seeds'] - row['failures']} of {row['seeds']} seeds" if row["failures"] else ""
    return (f"; {row['failed_attacks']} failed" if row["failed_attacks"] else "") + seeds
