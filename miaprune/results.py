"""Results in and out: an attack's JSON, and the tables made of many of them.

In every table accuracies are fractions unless a docstring says otherwise; sparsity and strength are float64,
NaN where they don't apply; pruner and defense are text, None where they don't apply. Tables read back with
`read_table` are equal to those written.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import miaprune
from miaprune import grid, metrics
from miaprune.files import FileError, whole
from miaprune.signals import Signals

FPRS = ("0.01", "0.001")
"""False positive rates at which a result states the true positive rate, as written in the JSON."""

SETTING_KEYS = ("dataset", "model", "pruner", "sparsity", "defense", "strength", "adversary")
VICTIM_KEYS = (
    "train_accuracy",
    "test_accuracy",
    "sparsity",
    "generalization_gap",
    "confidence_gap",
    "sensitivity_gap",
)
MODEL_COLUMNS = (
    *SETTING_KEYS[:-1],
    *("role", "epoch", "train_accuracy", "dev_accuracy", "test_accuracy", "achieved_sparsity", "seed"),
)
PLACE = ["dataset", "model", "variant"]
"""What names an undefended setting in `undefended`: the three folders of its path."""


class ResultError(FileError):
    """A result that cannot be used; the message is one line: what is wrong, where, what to do."""


def attack_result(
    setting: grid.Setting,
    attack: str,
    seed: int,
    scores: np.ndarray,
    victim: Signals,
    model: Mapping[str, Any],
    defense: str | None = None,
    strength: float | None = None,
    adversary: str = "matched",
) -> dict[str, Any]:
    """Everything that one attack on one model says (method, section 10), ready for `write_json`.

    Parameters
    ----------
    seed : the run's seed; the bootstrap's is derived from it.
    scores : float [n], a record of ``victim`` is called a member if its score is 0 or more.
    model : facts about the victim: train_accuracy, test_accuracy and achieved_sparsity, as fractions.
    """
    members = victim.members
    values = (
        setting.dataset,
        setting.model,
        setting.pruner,
        None if setting.sparsity is None else float(setting.sparsity),
        defense,
        strength,
        adversary,
    )
    bootstrap_seed = grid.derive_seed(seed, setting.path, str(defense), str(strength), adversary, attack)
    return {
        "setting": dict(zip(SETTING_KEYS, values, strict=True)),
        "attack": attack,
        "seed": seed,
        "accuracy": metrics.accuracy(scores, members),
        "accuracy_ci": list(metrics.bootstrap_interval(scores, members, bootstrap_seed)),
        "auc": metrics.auc(scores, members),
        "tpr_at_fpr": {fpr: metrics.tpr_at_fpr(scores, members, float(fpr)) for fpr in FPRS},
        "roc": metrics.roc_points(scores, members),
        "members": int(members.sum()),
        "non_members": int((~members).sum()),
        "victim": {
            "train_accuracy": model["train_accuracy"],
            "test_accuracy": model["test_accuracy"],
            "sparsity": model["achieved_sparsity"],
            **metrics.gaps(victim),
        },
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    packages = {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
    return {"miaprune": miaprune.__version__, "python": platform.python_version(), **packages}


def write_json(path: str | Path, result: Mapping[str, Any]) -> None:
    """Write a result whole or not at all; raises `ValueError` on NaN and infinity: JSON has none."""
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_result(path: str | Path) -> dict[str, Any]:
    """Read an attack's JSON; raises `ResultError` if it is missing, damaged or something else."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        _check_result(result)
    except FileNotFoundError:
        raise ResultError(f"{path}: no such result; make it with `snakemake {path}`") from None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ResultError(f"{path}: not an attack's result ({reason}); delete it and run again") from None
    return result


def attacks_table(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row per attack JSON in the order given, names flattened; ROC points and versions are left out."""
    return _typed(pd.DataFrame([_flat(result) for result in results]))


def models_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row per trained model in the order given.

    ``rows`` hold a setting's fields and a checkpoint's facts (`dataclasses.asdict(setting) | facts`); what is
    not a column is left out, and what a row does not have (defense and strength, say) stays empty.
    """
    return _typed(pd.DataFrame([{name: row.get(name) for name in MODEL_COLUMNS} for row in rows]))


def undefended(attacks: pd.DataFrame) -> pd.DataFrame:
    """The attacks by the matched adversary on undefended victims, averaged over seeds.

    Two more columns: ``variant``, the last folder of the setting's path ("original", "l1_0.7"), and
    ``seeds``, how many were averaged. (dataset, model, variant, attack) is unique, in order of appearance.
    """
    groups = _undefended_rows(attacks).groupby([*PLACE, "attack"], sort=False)
    means = groups.mean(numeric_only=True).drop(columns="seed")
    means.insert(0, "pruner", groups["pruner"].first())
    means["seeds"] = groups["seed"].nunique()
    return _typed(means.reset_index())


def paper_table(attacks: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """One dataset as the paper prints it: accuracies in percent, as text with two decimals, means over seeds.

    Rows are (model, pruner, sparsity), each model's original first; columns the victim's test accuracy, then
    each attack's accuracy, empty where there is none. Undefended victims and matched adversaries only.
    """
    table = _wide(attacks[attacks["dataset"] == dataset], lambda values, _: f"{100 * values.mean():.2f}")
    return table.drop(columns=["dataset", "seeds"])


def spread_table(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean ± standard deviation (sample) over seeds of the test and each attack's accuracy, in percent.

    ``frames`` are the attacks tables of runs that differ in their seed alone. Rows are (dataset, model,
    pruner, sparsity) with their number of seeds; a cell with fewer seeds behind it says so. Undefended
    victims and matched adversaries only.

    Raises
    ------
    ResultError : if a seed occurs twice, which would understate the spread.
    """
    attacks = pd.concat(frames, ignore_index=True)
    twice = attacks[attacks.duplicated([*SETTING_KEYS, "attack", "seed"])]
    if len(twice):
        seeds = ", ".join(map(str, sorted(set(twice["seed"]))))
        raise ResultError(f"spread over seeds: seed {seeds} occurs twice; give one attacks table per seed")
    return _wide(attacks, _mean_and_deviation)


def write_csv(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table whole or not at all: floats in full, missing values as empty cells."""
    with whole(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read an attacks or models table; raises `ResultError` if it is missing or something else."""
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        raise ResultError(f"{path}: no such table; make it with `snakemake {path}`") from None
    except ValueError as error:
        raise ResultError(f"{path}: not a table of results ({error}); delete it and run again") from None
    if not {*SETTING_KEYS[:-1], "seed"} <= {*frame.columns}:
        raise ResultError(f"{path}: not a table of results (columns are missing); delete it and run again")
    return _typed(frame)


def to_markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown; missing values are empty cells, floats have four significant digits."""

    def cell(value: Any) -> str:
        if pd.isna(value):
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [list(map(str, frame.columns)), ["---"] * frame.shape[1]]
    lines += [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the spread over seeds of several attacks tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m miaprune.results", description=main.__doc__)
    parser.add_argument("output", help="the Markdown file to write")
    parser.add_argument("tables", nargs="+", help="results/tables/attacks.csv of one run per seed")
    options = parser.parse_args(arguments)
    try:
        text = to_markdown(spread_table([read_table(path) for path in options.tables]))
        with whole(options.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        sys.exit(f"error: {error}")


def _check_result(result: Any) -> None:
    """Raise `KeyError`, `TypeError` or `ValueError` unless ``result`` has the shape of an attack's JSON."""
    _flat(result)
    versions, roc = result["versions"], result["roc"]
    if not isinstance(versions, dict) or len(roc["fpr"]) != len(roc["tpr"]):
        raise ValueError("its versions or ROC points are incomplete")
    if not 0.0 <= result["accuracy"] <= 1.0:
        raise ValueError(f"accuracy {result['accuracy']} is no fraction")


def _flat(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result's row of the attacks table."""
    low, high = result["accuracy_ci"]
    return {
        **{key: result["setting"][key] for key in SETTING_KEYS},
        "attack": result["attack"],
        "seed": result["seed"],
        "accuracy": result["accuracy"],
        "accuracy_ci_lo": low,
        "accuracy_ci_hi": high,
        "auc": result["auc"],
        **{f"tpr_at_fpr_{fpr}": result["tpr_at_fpr"][fpr] for fpr in FPRS},
        "members": result["members"],
        "non_members": result["non_members"],
        **{f"victim_{key}": result["victim"][key] for key in VICTIM_KEYS},
    }


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with the column types that the module's docstring promises."""
    # A column that is empty throughout has another type when built from None than when read from a file, and
    # the type of text differs between versions of pandas: fix both.
    for column in frame.columns.intersection(["sparsity", "strength"]):
        frame[column] = frame[column].astype("float64")
    for column in frame.columns.intersection([*PLACE, "pruner", "defense", "adversary", "attack", "role"]):
        text = frame[column].astype(object)
        frame[column] = text.where(text.notna(), None)
    return frame


def _undefended_rows(attacks: pd.DataFrame) -> pd.DataFrame:
    rows = attacks[attacks["defense"].isna() & (attacks["adversary"] == "matched")].copy()
    rows["variant"] = [
        "original" if pd.isna(pruner) else f"{pruner}_{sparsity:g}"
        for pruner, sparsity in zip(rows["pruner"], rows["sparsity"], strict=True)
    ]
    return rows


def _wide(attacks: pd.DataFrame, cell: Callable[[np.ndarray, int], str]) -> pd.DataFrame:
    """A row per undefended setting, a column per attack; ``cell`` turns values over seeds [s] into text."""
    table = []
    for (dataset, model, variant), rows in _undefended_rows(attacks).groupby(PLACE, sort=False):
        seeds = rows["seed"].nunique()
        tests = rows.drop_duplicates("seed")["victim_test_accuracy"]
        table.append(
            {
                "dataset": dataset,
                "model": model,
                "pruner": rows["pruner"].iloc[0] or "original",
                "sparsity": "" if variant == "original" else f"{rows['sparsity'].iloc[0]:g}",
                "seeds": seeds,
                "test_accuracy": cell(tests.to_numpy(), seeds),
                **{
                    attack: cell(values.to_numpy(), seeds)
                    for attack, values in rows.groupby("attack", sort=False)["accuracy"]
                },
            }
        )
    pairs = list(dict.fromkeys((row["dataset"], row["model"]) for row in table))
    table.sort(key=lambda row: (pairs.index((row["dataset"], row["model"])), row["pruner"] != "original"))
    columns = ["dataset", "model", "pruner", "sparsity", "seeds", "test_accuracy"]
    return pd.DataFrame(table, columns=[*columns, *dict.fromkeys(attacks["attack"])]).fillna("")


def _mean_and_deviation(values: np.ndarray, seeds: int) -> str:
    mean = f"{100 * values.mean():.1f}"
    if len(values) > 1:
        mean += f" ± {100 * values.std(ddof=1):.1f}"
    return mean if len(values) == seeds else f"{mean} ({len(values)} of {seeds} seeds)"


if __name__ == "__main__":
    main()
