"""Tables made of many results, for programs (attacks, models) and for people (the paper's, controls, defences).

In the tables for programs accuracies are fractions; sparsity and strength are float64, NaN where they don't
apply; pruner and defense are text, None where they don't apply. Those read back with `read_table` are equal to
those written. Tables for people are text, accuracies in percent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from miaprune import grid
from miaprune.files import whole
from miaprune.report.results import FPRS, MAY_LACK, RATES, SETTING_KEYS, TEXTS, ResultError, flat

MODEL_COLUMNS = (
    *SETTING_KEYS[:-1],
    *("role", "epoch", "train_accuracy", "dev_accuracy", "test_accuracy"),
    *("majority_accuracy", "learnt", "achieved_sparsity", "seed"),
)
NUMBERS = [*MAY_LACK, "majority_accuracy"]
"""Columns of numbers that may be empty throughout."""

FAILED = "failed"
"""In place of an accuracy: the network learnt nothing, and its numbers say nothing (method, section 7)."""

PLACE = ["dataset", "model", "variant"]
"""What names an undefended setting: the three folders of its path."""


def attacks_table(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row per attack JSON in the order given, as `miaprune.report.results.flat` has it."""
    return _typed(pd.DataFrame([flat(result) for result in results]))


def models_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row per trained model in the order given.

    ``rows`` hold a setting's fields and a checkpoint's facts (`dataclasses.asdict(setting) | facts`); what is
    not a column is left out, and what a row does not have (defense and strength, say) stays empty.
    """
    return _typed(pd.DataFrame([{name: row.get(name) for name in MODEL_COLUMNS} for row in rows]))


def learnt_nothing(models: pd.DataFrame) -> list[str]:
    """The settings of a models table with models that learnt nothing, as "digits/cnn/slim_0.7 (2 of 6)"."""
    settings = _with_variant(models)
    defenses = [
        "" if pd.isna(defense) else f"/{defense}_{strength:g}"
        for defense, strength in zip(models["defense"], models["strength"], strict=True)
    ]
    places = settings["dataset"] + "/" + settings["model"] + "/" + settings["variant"] + defenses
    guesses = models["learnt"].isin([False])
    counts = guesses.groupby(places, sort=False).agg(["sum", "size"])
    return [f"{place} ({guessing} of {of})" for place, guessing, of in counts.itertuples() if guessing]


MEASURED = ("accuracy", "accuracy_ci_lo", "accuracy_ci_hi", "auc", "auc_ci_lo", "auc_ci_hi", *RATES)
"""What an attack reaches: its columns in an attacks table."""

SPREAD = ("accuracy", "auc", *(f"tpr_at_fpr_{fpr}" for fpr in FPRS), "victim_train_accuracy", "victim_test_accuracy")
"""What varies over seeds and has its spread stated."""


def sound(attacks: pd.DataFrame) -> pd.DataFrame:
    """The attacks with what networks that learnt nothing reach as NaN: their results decide nothing.

    One more column: ``variant``, how the victim was pruned and tuned as in its path ("original", "l1_0.7",
    "l1_0.7/untuned").
    """
    measured = attacks.columns.intersection(list(MEASURED))
    attacks = attacks.assign(**{name: attacks[name].where(attacks["failed"].isna()) for name in measured})
    for fpr in FPRS:  # a rate that is missing stands on none of them
        rate, behind = f"tpr_at_fpr_{fpr}", f"tpr_at_fpr_{fpr}_false_positives"
        if behind in attacks:
            attacks[behind] = attacks[behind].where(attacks[rate].notna())
    return _typed(_with_variant(attacks))


def over_seeds(attacks: pd.DataFrame) -> pd.DataFrame:
    """`sound` attacks averaged over seeds.

    More columns: ``seeds``, how many there are, ``failures``, of how many the result decides nothing, and
    ``{column}_sd``, the sample standard deviation over seeds of each of `SPREAD`. An interval is that of the one result
    where there is one, and Student's 95 % interval of the mean over seeds from three on; two have none.
    Setting, adversary and attack are unique together, in order of appearance.
    """
    keys = ["pruner", "sparsity", "tuning", "defense", "strength", "adversary", "attack"]
    groups = sound(attacks).groupby([*PLACE, *keys], sort=False, dropna=False)
    means = groups.mean(numeric_only=True).drop(columns="seed")
    means["seeds"] = groups["seed"].nunique()
    means["failures"] = groups["failed"].count()
    for name in attacks.columns.intersection(list(SPREAD)):
        means[f"{name}_sd"] = groups[name].std()
        if f"{name}_ci_lo" in means:
            n = groups[name].count()
            half = half_width(means[f"{name}_sd"], n)
            for end, sign in (("lo", -1), ("hi", 1)):
                means[f"{name}_ci_{end}"] = means[f"{name}_ci_{end}"].where(n < 2, means[name] + sign * half)
    return _typed(means.reset_index())


def largest(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Of each victim and adversary in a table averaged over seeds: the row of the attack with the largest mean."""
    versions = [*PLACE, "defense", "strength", "adversary"]
    best = rows.sort_values(measure, ascending=False, kind="stable").drop_duplicates(versions)
    return best.sort_index()


def half_width(deviations: pd.Series, seeds: pd.Series) -> pd.Series:
    """Half of Student's 95 % interval of a mean over ``seeds`` with these sample deviations; NaN below three seeds."""
    return (stdtrit(seeds - 1, 0.975) * deviations / np.sqrt(seeds)).where(seeds > 2)


def matched(attacks: pd.DataFrame) -> pd.DataFrame:
    """The rows of the matched adversary's attacks on undefended victims, controls among them."""
    return attacks[attacks["defense"].isna() & (attacks["adversary"] == "matched")]


def undefended(attacks: pd.DataFrame) -> pd.DataFrame:
    """`over_seeds` of the matched adversary's attacks on undefended victims, controls left out.

    (dataset, model, variant, attack) is unique.
    """
    return over_seeds(_undefended_rows(attacks))


def paper_table(attacks: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """One dataset as the paper prints it, as text: accuracies in percent.

    Rows are (model, pruner, sparsity), each model's original first; columns the victim's test accuracy, then
    each attack's accuracy, empty where there is none, and the attack with the largest AUC. Undefended victims and
    matched adversaries only. With several seeds there is a column ``seeds``, and a cell is the mean over them ± the
    sample standard deviation, and says so where fewer are behind it than the row has.
    """
    return _wide(_undefended_rows(attacks[attacks["dataset"] == dataset]), lambda first: pd.notna(first["pruner"]))


def controls_table(attacks: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The controls of one dataset beside the pruned models, with `paper_table`'s columns; empty without controls.

    Where controls have sparsities, the pruned models are those of the same ones.
    """
    rows = matched(attacks[attacks["dataset"] == dataset])
    if not controls(rows).any():
        rows = rows[:0]
    sparsities = set(rows.loc[controls(rows), "sparsity"].dropna()) or set(rows["sparsity"].dropna())

    def position(first: pd.Series) -> tuple[float, int, str]:
        pruned = pd.notna(first["pruner"])
        place = list(grid.PRUNERS).index(first["pruner"]) if pruned else -1
        return first["sparsity"] if pruned else 0.0, place, "" if pd.isna(first["tuning"]) else first["tuning"]

    return _wide(rows[rows["pruner"].isna() | rows["sparsity"].isin(sparsities)], position)


def defense_table(attacks: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """What each defence does to one dataset's victims and to the attacks on them, as text.

    Rows are (model, pruner, sparsity, defense, strength), for settings that have a defended version; the undefended
    one comes first. Columns: the victim's test accuracy, epsilon where the defence guarantees one, and for the
    adaptive and the unaware adversary the accuracy of SAMIA and the largest AUC, with its attack's name: all attacks
    would be too wide to read. An undefended victim has one adversary, the matched one, who stands in
    for both. Several seeds are as in `paper_table`.
    """
    rows = sound(attacks[(attacks["dataset"] == dataset) & ~controls(attacks)])
    place = rows["model"] + "/" + rows["variant"]
    rows = rows[place.isin(place[rows["defense"].notna()])]
    places, defenses = list(dict.fromkeys(place)), (None, *grid.DEFENSES)

    def position(version: pd.DataFrame) -> tuple[int, int, float]:
        first = version.iloc[0]
        return places.index(f"{first['model']}/{first['variant']}"), defenses.index(first["defense"]), first["strength"]

    versions = [version for _, version in rows.groupby(["model", "variant", "defense", "strength"], dropna=False)]
    columns = ["model", "pruner", "sparsity", "defense", "strength", "seeds", "test_accuracy", "epsilon"]
    columns += [f"{attack} {name}" for name in ("adaptive", "unaware") for attack in ("samia", "strongest")]
    return _seeds_if_several([_defense_row(version) for version in sorted(versions, key=position)], columns)


SEVERAL = "With several seeds: mean ± standard deviation over seeds."
"""How to read a cell of a table for people."""


def source(attacks: pd.DataFrame) -> str:
    """By which seed the results in an attacks table are, and by the code of which commit the attacks were scored."""
    seeds, commits = sorted(set(attacks["seed"])), sorted(set(attacks.get("versions_commit", pd.Series()).dropna()))
    code = f", attacks scored by commit {', '.join(commits)}" if commits else ""
    return f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}{code}."


def precision(attacks: pd.DataFrame) -> str:
    """The widest 95 % interval of one seed's accuracy, as "at most ±1.8 points"; empty if there is none.

    ``attacks`` is an attacks table or one averaged over seeds.
    """
    widest = 50 * (attacks["accuracy_ci_hi"] - attacks["accuracy_ci_lo"]).max()
    return "" if pd.isna(widest) else f"at most ±{widest:.1f} points"


def failures(rows: pd.DataFrame) -> str:
    """How many results are left out of a table averaged over seeds; empty if none is."""
    failed, of = int(rows["failures"].sum()), int(rows["seeds"].sum())
    return f"Left out as failed, because a network learnt nothing: {failed} of {of} results" if failed else ""


def write_csv(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table whole or not at all: floats in full, missing values as empty cells."""
    with whole(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read an attacks or models table; raises `ResultError` if it is missing or something else."""
    try:
        # Some commits look like numbers, 12345e678901; in parts, a long table would have columns of several types.
        # A name may be one that pandas takes for a missing value, such as null.
        types = {"versions_commit": str}
        frame = pd.read_csv(path, dtype=types, low_memory=False, keep_default_na=False, na_values=[""])
        frame = _typed(frame)
        of_attacks = (*SETTING_KEYS, "attack", "accuracy", "failed", "victim_test_accuracy", "seed")
        columns = of_attacks if "attack" in frame.columns else MODEL_COLUMNS
        if missing := [column for column in columns if column not in frame.columns]:
            raise ValueError(f"it has no column {missing[0]}")
        for column in frame.columns.intersection(["seed", "accuracy", "victim_test_accuracy"]):
            pd.to_numeric(frame[column])
    except FileNotFoundError:
        raise ResultError(f"{path}: no such table; make it with `snakemake {path}`") from None
    except ValueError as error:
        raise ResultError(f"{path}: not a table of results ({error}); delete it and run again") from None
    return frame


def to_markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown; missing values are empty cells, floats have four significant digits."""

    def cell(value: Any) -> str:
        if pd.isna(value):
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [list(map(str, frame.columns)), ["---"] * frame.shape[1]]
    lines += [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with the column types that the module's docstring promises."""
    # A column that is empty throughout has another type when built from None than when read from a file, and
    # the type of text differs between versions of pandas: fix both.
    for column in frame.columns.intersection(NUMBERS):
        frame[column] = frame[column].astype("float64")
    for column in frame.columns.intersection([*PLACE, *TEXTS, "role", "trained", "learnt"]):
        text = frame[column].astype(object)
        frame[column] = text.where(text.notna(), None)
    return frame


def _undefended_rows(attacks: pd.DataFrame) -> pd.DataFrame:
    rows = matched(attacks)
    return rows[~controls(rows)]


def controls(rows: pd.DataFrame) -> pd.Series:
    """Which rows of a table are of controls (method, section 15), bool."""
    return rows["tuning"].notna() | (rows["pruner"] == grid.RANDOM)


def _with_variant(attacks: pd.DataFrame) -> pd.DataFrame:
    columns = zip(attacks["pruner"], map(grid.written, attacks["sparsity"]), attacks["tuning"], strict=True)
    variants = [
        (tuning or "original") if pd.isna(pruner) else f"{pruner}_{level}" + (f"/{tuning}" if tuning else "")
        for pruner, level, tuning in columns
    ]
    return attacks.assign(variant=pd.Series(variants, index=attacks.index, dtype=object))


def _wide(attacks: pd.DataFrame, position: Callable[[pd.Series], Any]) -> pd.DataFrame:
    """A row per setting of one dataset, a column per attack.

    Settings of a model go by ``position``, which is given their first result.
    """
    rows = sound(attacks)
    models = list(dict.fromkeys(rows["model"]))
    versions = [version for _, version in rows.groupby(["model", "variant"], sort=False)]
    versions.sort(key=lambda version: (models.index(version["model"].iloc[0]), position(version.iloc[0])))
    columns = ["model", "pruner", "sparsity", "seeds", "test_accuracy", *dict.fromkeys(rows["attack"]), "strongest"]
    return _seeds_if_several([_wide_row(version) for version in versions], columns)


def _seeds_if_several(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """The table, with its column ``seeds`` where one row has several."""
    table = pd.DataFrame(rows, columns=columns).fillna("")
    return table if any(row["seeds"] > 1 for row in rows) else table.drop(columns="seeds")


def _wide_row(version: pd.DataFrame) -> dict[str, Any]:
    """A row of `paper_table`: ``version`` holds the sound attacks on one setting, of all seeds."""
    first, seeds = version.iloc[0], version["seed"].nunique()
    names = first[["pruner", "tuning"]].dropna()
    return {
        "model": first["model"],
        "pruner": "/".join(names) or "original",
        "sparsity": "" if pd.isna(first["pruner"]) else f"{first['sparsity']:g}",
        "seeds": seeds,
        "test_accuracy": _percent(version.drop_duplicates("seed")["victim_test_accuracy"], seeds),
        **{str(name): _percent(values, seeds) for name, values in version.groupby("attack", sort=False)["accuracy"]},
        "strongest": strongest(version),
    }


def _defense_row(version: pd.DataFrame) -> dict[str, Any]:
    """A row of `defense_table`: ``version`` holds the sound attacks on one setting, defended or not, of all seeds."""
    first, seeds = version.iloc[0], version["seed"].nunique()
    undefended, epsilon = pd.isna(first["defense"]), version["victim_epsilon"].mean()
    row = {
        "model": first["model"],
        "pruner": first["pruner"],
        "sparsity": f"{first['sparsity']:g}",
        "defense": "none" if undefended else first["defense"],
        "strength": "" if undefended else f"{first['strength']:g}",
        "seeds": seeds,
        "test_accuracy": _percent(version.drop_duplicates("seed")["victim_test_accuracy"], seeds),
        "epsilon": "" if pd.isna(epsilon) else f"{epsilon:.2f}",
    }
    for name, adversary in (("adaptive", "matched"), ("unaware", "matched" if undefended else "unaware")):
        by_it = version[version["adversary"] == adversary]
        samia = by_it.loc[by_it["attack"] == "samia", "accuracy"]
        row[f"samia {name}"] = "" if samia.empty else _percent(samia, seeds)
        row[f"strongest {name}"] = strongest(by_it)
    return row


def strongest(rows: pd.DataFrame) -> str:
    """The attack with the largest mean AUC over seeds, and that AUC, of one adversary's sound attacks on one victim."""
    areas, seeds = rows.groupby("attack", sort=False)["auc"], rows["seed"].nunique()
    best = areas.mean().dropna()
    if best.empty:
        return FAILED if len(areas) else ""
    of_best = areas.get_group(best.idxmax()).dropna()
    fewer = f"; {len(of_best)} of {seeds} seeds" if len(of_best) < seeds else ""
    without = f"; {len(areas) - len(best)} {FAILED}" if len(best) < len(areas) else ""
    return f"{_mean_and_deviation(of_best, 3)} ({best.idxmax()}{fewer}{without})"


def _percent(fractions: pd.Series, seeds: int) -> str:
    """A mean over seeds in percent; ``fractions`` are as many as there are, NaN where they decide nothing."""
    values = 100 * fractions.dropna()
    if values.empty:
        return FAILED
    fewer = f" ({len(values)} of {seeds} seeds)" if len(values) < seeds else ""
    return _mean_and_deviation(values, 2 if seeds == 1 else 1) + fewer


def _mean_and_deviation(values: pd.Series, digits: int) -> str:
    deviation = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"
