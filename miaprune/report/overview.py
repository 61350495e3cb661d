"""The page of a run, for a reader who knows neither the paper nor this project: the answer, then all behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import pandas as pd
from scipy.special import betaincinv

from miaprune import grid
from miaprune.report import claims as paper
from miaprune.report import claims_text as words
from miaprune.report.answer import answer, findings
from miaprune.report.claims import STRONGEST, Claim
from miaprune.report.page import Link, Part, Picture, Section, Table
from miaprune.report.results import SETTING_KEYS
from miaprune.report.tables import FAILED, half_width, over_seeds, source

TITLE = "Does pruning give away who was in the training data?"

INTRO = """\
A network was trained on some records (its *members*) and not on others. An *attack* asks the network about a record
and guesses which of the two it is: that is membership inference, and what it finds is a leak of private data.
Pruning removes weights to make the network cheaper to run."""

READING = """\
* **AUC** says how well an attack tells members from non-members: 0.5 is a coin toss, 1 is certainty. A network
  leaks what the strongest attack finds, so each row has the attack with the largest AUC.
* **TPR at 1 % FPR** is the share of members that this attack finds while it accuses 1 % of the non-members wrongly
  (a coin toss: 1 %). Below it is how many false positives it stands on, of one seed on average: few make it
  uncertain.
* *original* is the network before pruning. *finetuned* was not pruned and was trained on as the pruned ones are:
  what pruning itself does is a pruned row against that one. *pruned* ones were fine-tuned after pruning, *defended*
  ones with a defence; the attacker knows of it.
* Below a number is its 95 % interval: over seeds (Student's t) from three on, of the one result with one seed, none
  with two. "failed" stands where a network learnt nothing, so that no number means anything, "n/a" where a rate would
  stand on no false positive at all."""

SECTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Is it the pruning?": (
        "A pruned network was also trained further. The controls tell the two apart: *finetuned* was trained further "
        "and not pruned, *untuned* was pruned and not trained further, *random* lost as many weights as `l1` takes, "
        "drawn at random.",
        ("effects", "leak_vs_accuracy"),
    ),
    "How much is pruned": (
        "*Sparsity* is the share of weights, or of channels, that pruning removes.",
        ("accuracy_vs_sparsity", "samia_vs_others", "gaps_vs_accuracy"),
    ),
    "At few false alarms": (
        "An attacker who accuses hardly anybody wrongly is the dangerous one, however good or bad on average.",
        ("roc",),
    ),
    "What defences do": (
        "An *adaptive* adversary knows of the defence and defends the shadow models alike, an *unaware* one does not.",
        ("frontier_strongest", "frontier", "defense_effect"),
    ),
    "If the attacker guesses the pruning wrong": ("", ("transfer",)),
    "What the attacks see": (
        "Signals are all that an attack sees of a network. Those of members and of non-members are to look alike.",
        ("signal_distributions", "margin_distributions", "gaps_per_class"),
    ),
}
"""Heading, how to read what stands there, and which figures: functions of `miaprune.report.figures`."""

EFFECTS_TEXT = """\
Differences of the largest AUC of any attack (`auc`) and of the largest TPR at 1 % FPR, in points: above 0 is more leak.

* *finetuned - original*: what further training does
* *pruned - original*: what pruning and the further training do together
* *pruned - finetuned*: what pruning itself does
* *untuned - original*: what pruning does before fine-tuning
* *l1 - random*: what the choice of weights does

Below a difference is its 95 % interval over seeds, from three on."""

SETTINGS_TEXT = """\
A row is a network as it was attacked by one adversary. Test accuracy is the network's own on unseen records; the
columns named after attacks have each attack's accuracy, members and non-members weighing the same. Both in percent,
and 50 is a coin toss for an attack. A seed leads to the JSON of the strongest attack, beside which the others' lie.
The commit is that of the code that scored. Click a column's head to sort; write words to filter, such as `l1 ppb`."""

ATTACKS_TEXT = """\
`samia` is the paper's, a self-attention network over all that the attacker sees; `nn`, `nn_top3` and `nn_cls` are
other networks; `conf`, `xent`, `mentr`, `top1_conf`, `conf_global` and `corr` are thresholds on one number;
`blindmi` compares records with each other; `base`, `rmia`, `lira` and `lira_t` compare with models that never saw
the record."""

AT_1 = "tpr_at_fpr_0.01"

FEW = 3
"""Of so many networks each one's finding stands at the page's head."""

ASKED = {
    1: ("Do pruned networks leak more than the original?", "original"),
    4: ("Does pruning itself add to the leak, beyond the training after it?", "finetuned"),
}
"""The claims that are answered first, as questions, and what pruned networks are compared with."""

PLAIN = {paper.SUPPORTED: "**Yes** (supported)", paper.REFUTED: "**No** (refuted)"}

TEST, AUC, RATE, ATTACK = "test accuracy (%)", "AUC", "TPR at 1 % FPR (%)", "strongest attack"

Key = tuple[Any, ...]
"""A victim and its adversary: the values of `SETTING_KEYS`."""

Row = dict[str, Any]


def overview(
    attacks: pd.DataFrame,
    claims: Sequence[Claim],
    effects: pd.DataFrame,
    guessing: Sequence[str],
    pictures: Mapping[str, Sequence[Picture]],
    files: Sequence[str],
    first_seed: int,
    results: str = "",
) -> tuple[list[Part], list[Section]]:
    """The answer and the sections of a run's page, for `miaprune.report.page.write` with the title `TITLE`.

    Parameters
    ----------
    attacks, claims, effects : an attacks table; what `miaprune.report.claims.evaluate` and
        `miaprune.report.effects.effects` make of it.
    guessing : names settings as `miaprune.report.tables.learnt_nothing` does.
    pictures : by the figure's function.
    files : what else lies beside the page, relative to it.
    first_seed : whose results lie in no folder of its own.
    results : the folder of the results, relative to the page: empty, or it ends with a slash.
    """
    rows = _rows(attacks, first_seed, results)
    said = ["**{}**:{}".format(*finding.split(":", 1)) for finding in findings(attacks)]
    sections = []
    for heading, (text, kinds) in SECTIONS.items():
        drawn = [picture for kind in kinds for picture in pictures.get(kind, ())]
        tables = [_effects(effects)] if "effects" in kinds and len(effects) else []
        if drawn or tables:
            sections.append(Section(heading, [*filter(None, [text]), *drawn, *tables]))
    sections.insert(1 if len(effects) else 0, _claims(claims))
    if len(said) > FEW:
        sections.insert(0, Section("Network by network", [_listed(said)]))
    sections.append(Section("Every setting", [SETTINGS_TEXT, ATTACKS_TEXT, *_settings(rows)]))
    listed = _listed([f"[{file}](<{file}>)" for file in files])
    sections.append(Section("Files", [f"All numbers, for programs and for people:\n\n{listed}"]))
    return _answer(said, answer(attacks), claims, guessing, rows, source(attacks)), sections


def _listed(items: Sequence[str]) -> str:
    return "".join(f"* {item}\n" for item in items)


def _answer(
    said: Sequence[str],
    best: pd.DataFrame,
    claims: Sequence[Claim],
    guessing: Sequence[str],
    rows: Mapping[Key, Row],
    source: str,
) -> list[Part]:
    verdicts, finding = _verdicts(claims), said[0] if len(said) == 1 else _listed(said)
    first = [finding, INTRO, *verdicts] if len(said) <= FEW else [*verdicts, INTRO]
    shown = pd.DataFrame([rows[key] for key in _keys(best)])
    table = pd.DataFrame(
        {
            "network": [", ".join(filter(None, pair)) for pair in zip(best["version"], best["which"], strict=True)],
            "data set": best["dataset"],
            "model": best["model"],
            **{column: shown[column] for column in ("setting", AUC, RATE, ATTACK, TEST)},
            "settings": [
                f"{n}\n{failed} {FAILED}" if failed else str(n)
                for n, failed in zip(best["settings"], best["failed_settings"], strict=True)
            ],
            **{column: shown[column] for column in ("seeds", "commit")},
        }
    )
    table = table if len(said) > 1 else table.drop(columns=["data set", "model"])
    warned = [words.warning(guessing)] if guessing else []
    return [*first, *warned, Table(table, "In numbers"), READING, source]


def _verdicts(claims: Sequence[Claim]) -> list[str]:
    """Of the claims that pruning, and that pruning itself, makes the leak larger: the verdict, in a sentence each."""
    said = []
    for claim in claims:
        if claim.number in ASKED and claim.measure == STRONGEST and claim.scope == "all" and claim.settings:
            question, against = ASKED[claim.number]
            verdict = PLAIN.get(claim.verdict, f"**{claim.verdict.capitalize()}**")
            said.append(
                f"{question} {verdict}: the strongest attack's AUC, pruned minus {against}, is {words.above_0(claim)}."
            )
    if any(paper.TOO_FEW.capitalize() in sentence for sentence in said):
        said.append(f"A verdict needs {paper.MIN_ORIGINALS} originals, each a data set, a model and a seed.")
    return said


def _claims(claims: Sequence[Claim]) -> Section:
    one_data_set = len({claim.scope for claim in claims}) == 2  # whose rows are those of all
    statements, rows = [], []
    for claim in claims:
        if claim.scope == "all" and (claim.number != 4 or claim.measure == STRONGEST):
            seen = f"**{claim.verdict.capitalize()}**"
            seen = seen if claim.settings else f"**Nothing to compare**{words.left_out(claim)}"
            named = f"claim {claim.number}{words.NAMED[claim.measure]}"
            statements.append(f"* {seen}: {named}, {claim.statement}{words.against(claim)}.\n")
        if claim.settings + claim.left_out and (claim.scope == "all" or not one_data_set):
            rows.append(_claim(claim))
    table = [Table(pd.DataFrame(rows), "The differences that decide")] if rows else []
    return Section("The paper's claims", ["".join(statements), words.RULE, *table])


def _claim(claim: Claim) -> dict[str, Any]:
    by = words.NAMED.get(claim.measure, f", by {claim.measure}").removeprefix(", by ") or "SAMIA's accuracy"
    row = {
        "claim": f"{claim.number}, by {by}",
        "adversary": claim.adversary,
        "data set": claim.scope,
        "verdict": claim.verdict,
        "mean difference (points)": f"{claim.effect:+.2f}\n{words.interval_text(claim.interval)}",
        "sign flips p": f"{claim.sign_flip_p:.2g}",
        "above 0": claim.holds,
        "settings": claim.settings,
        "originals": claim.originals,
        "seeds": claim.seeds,
        "left out": claim.left_out,
        "still reached (%)": "" if math.isnan(claim.left) else f"{claim.left:.2f}",
        "cost in test accuracy (points)": "",
    }
    if not math.isnan(claim.cost):
        row["cost in test accuracy (points)"] = f"{claim.cost:+.2f}\n{words.interval_text(claim.cost_interval)}"
    return row if claim.settings else row | {"mean difference (points)": FAILED, "sign flips p": ""}


def _effects(effects: pd.DataFrame) -> Table:
    setting = [
        "finetuned" if pd.isna(pruner) else f"{pruner}_{grid.written(sparsity)}"
        for pruner, sparsity in zip(effects["pruner"], effects["sparsity"], strict=True)
    ]
    values = zip(effects["mean"], effects["lo"], effects["hi"], strict=True)
    difference = [_measured(100 * mean, 100 * lo, 100 * hi, "+.2f") for mean, lo, hi in values]
    table = pd.DataFrame({"setting": setting, "effect": effects["effect"], "measure": effects["measure"]})
    table["difference (points)"], table["seeds"] = difference, effects["seeds"]
    table["data set"], table["model"] = effects["dataset"], effects["model"]
    return Table(table, "What each step does to the leak", EFFECTS_TEXT)


def _settings(rows: Mapping[Key, Row]) -> list[Table]:
    """A table for each data set and model, of every version and adversary."""
    tables = []
    for dataset, model in dict.fromkeys(key[:2] for key in rows):
        mine = pd.DataFrame([row for key, row in rows.items() if key[:2] == (dataset, model)])
        tables.append(Table(mine, f"{dataset}, {model}: every setting"))
    return tables


def _keys(rows: pd.DataFrame) -> list[Key]:
    """What names each row's victim and its adversary, whatever the seed."""
    keys = rows[list(SETTING_KEYS)].astype(object)
    return list(keys.where(keys.notna(), None).itertuples(index=False, name=None))


def _rows(attacks: pd.DataFrame, first_seed: int, results: str) -> dict[Key, Row]:
    """What the page shows of each victim and adversary, as `Table` has cells."""
    means = over_seeds(attacks)
    means["test_lo"], means["test_hi"] = _test_interval(means)
    by_attack, of_seeds = _grouped(means), _grouped(attacks)
    return {key: _row(key, rows, of_seeds[key], first_seed, results) for key, rows in by_attack.items()}


def _grouped(rows: pd.DataFrame) -> dict[Key, list[dict[Any, Any]]]:
    """The rows of each victim and adversary."""
    groups: dict[Key, list[dict[Any, Any]]] = {}
    for key, row in zip(_keys(rows), rows.to_dict("records"), strict=True):
        groups.setdefault(key, []).append(row)
    return groups


def _row(
    key: Key,
    by_attack: Sequence[Mapping[Any, Any]],
    of_seeds: Sequence[Mapping[Any, Any]],
    first_seed: int,
    results: str,
) -> Row:
    """``by_attack`` are each attack's means over seeds, ``of_seeds`` the results behind them."""
    dataset, model, pruner, sparsity, tuning, defense, strength, adversary = key
    numbers = [None if number is None else grid.written(number) for number in (sparsity, strength)]
    setting = grid.Setting(dataset, model, pruner, numbers[0], defense, numbers[1], tuning)
    best = max(by_attack, key=lambda row: -1.0 if pd.isna(row["auc"]) else row["auc"])
    rate = _reached(best, AT_1, 1, 100) if pd.isna(best["auc"]) or pd.notna(best[AT_1]) else "n/a"
    if rate not in (FAILED, "n/a"):
        rate += f"\n{best[f'{AT_1}_false_positives']:.3g} false positives"
    whole, failed = max(by_attack, key=itemgetter("seeds")), sum(pd.isna(row["auc"]) for row in by_attack)
    seeds = [row["seed"] for row in of_seeds if row["attack"] == best["attack"]]
    folders = [grid.folder(replace(setting, seed=None if s == first_seed else s), adversary) for s in seeds]
    return {
        "setting": setting.version,
        "adversary": "adaptive" if defense and adversary == "matched" else adversary,
        TEST: _measured(100 * whole["victim_test_accuracy"], 100 * whole["test_lo"], 100 * whole["test_hi"], ".1f"),
        AUC: _reached(best, "auc", 3),
        RATE: rate,
        ATTACK: best["attack"] + (f"\n{failed} {FAILED}" if failed else "") if pd.notna(best["auc"]) else FAILED,
        **{row["attack"]: _reached(row, "accuracy", 1, 100) for row in by_attack},
        "seeds": [
            Link(str(seed), f"{results}{folder}/{best['attack']}.json")
            for seed, folder in zip(seeds, folders, strict=True)
        ],
        "commit": "\n".join(sorted({row["versions_commit"] for row in of_seeds} - {None})) or "unknown",
    }


def _reached(row: Mapping[Any, Any], measure: str, digits: int, scale: float = 1) -> str:
    """A mean over seeds, its interval below it, and how many seeds are behind it where some failed."""
    if pd.isna(row[measure]):
        return FAILED
    low, high = (row[f"{measure}_ci_{end}"] for end in ("lo", "hi"))
    cell = _measured(scale * row[measure], scale * low, scale * high, f".{digits}f")
    return cell + (f"\n{row['seeds'] - row['failures']} of {row['seeds']} seeds" if row["failures"] else "")


def _test_interval(means: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Of victims' test accuracies averaged over seeds: Student's from three on, Clopper and Pearson's of one."""
    accuracy, n, one = means["victim_test_accuracy"], means["non_members"], means["seeds"] == 1
    half, right = half_width(means["victim_test_accuracy_sd"], means["seeds"]), (accuracy * n).round()
    low = betaincinv(right, n - right + 1, 0.025).where(right > 0, 0.0)
    high = betaincinv(right + 1, n - right, 0.975).where(right < n, 1.0)
    return low.where(one, accuracy - half), high.where(one, accuracy + half)


def _measured(value: float, low: float, high: float, spec: str) -> str:
    interval = "no interval" if pd.isna(low) else f"{low:{spec}} to {high:{spec}}"
    return f"{value:{spec}}\n{interval}"
