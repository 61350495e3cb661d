"""Results in and out: what one attack on one model says, as JSON (the tables made of many are in `tables`)."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import miaprune
from miaprune import catalog, grid, metrics
from miaprune.entries import Entry
from miaprune.files import FileError, check_facts, write_text
from miaprune.signals import Signals

FPRS = ("0.01", "0.001")
"""False positive rates at which a result states the true positive rate, as written in the JSON."""

SETTING_KEYS = ("dataset", "model", "pruner", "sparsity", "tuning", "defense", "strength", "adversary")
VICTIM_KEYS = (
    "train_accuracy",
    "test_accuracy",
    "sparsity",
    "generalization_gap",
    "confidence_gap",
    "sensitivity_gap",
)
PRIVACY_KEYS = ("epsilon", "delta")
"""Of a victim trained with differential privacy: what its row in a table says of its "privacy" block."""

TEXTS = ("dataset", "model", "pruner", "tuning", "defense", "adversary", "attack", "failed", "versions_commit")
"""Of a row's columns, those of text."""

RATES = tuple(f"tpr_at_fpr_{fpr}{part}" for fpr in FPRS for part in ("", "_ci_lo", "_ci_hi"))
"""The columns of true positive rates and their intervals: empty where a rate would stand on less than a record."""

MAY_LACK = ("sparsity", "strength", "references", *RATES, *(f"victim_{key}" for key in PRIVACY_KEYS))
"""Of a row's columns, those of numbers that may be missing."""


class ResultError(FileError):
    """A result that cannot be used; the message is one line: what is wrong, where, what to do."""


def attack_result(
    setting: grid.Setting,
    attack: str,
    seed: int,
    scores: np.ndarray,
    victim: Signals,
    model: Mapping[str, Any],
    attacker: Mapping[str, Any],
    adversary: str = "matched",
    failed: Sequence[str] = (),
    references: int | None = None,
) -> dict[str, Any]:
    """Everything that one attack on one model says (method, section 10), ready for `write_json`.

    Parameters
    ----------
    seed : the run's seed; the bootstrap's is derived from it.
    scores : float [n], a record of ``victim`` is called a member if its score is 0 or more.
    model : facts about the victim: train_accuracy, test_accuracy and achieved_sparsity, as fractions; where it was
        trained with differential privacy also "privacy" (epsilon, delta, steps, covers); and as far as they are known
        what it comes from: "data" (a digest), "original", "signals" and its own stage, each as `stage` has them, a
        training with the "epoch" whose weights were kept and "epochs_run".
    attacker : the stage in which the attack was fitted.
    adversary : "matched" (of a defended victim: the adaptive one), "unaware" or "shadows_{pruner}_{sparsity}".
    failed : what learnt nothing, of "attack" and `miaprune.grid.ROLES`: then the result decides nothing (section 7).
    references : of an attack with reference models, how many there were.
    """
    facts = {
        "train_accuracy": model["train_accuracy"],
        "test_accuracy": model["test_accuracy"],
        "sparsity": model["achieved_sparsity"],
        **metrics.gaps(victim),
    }
    if "privacy" in model:
        facts["privacy"] = model["privacy"]
    bootstrap_seed = grid.derive_seed(seed, setting.name, adversary, attack)
    return {
        "setting": _named(setting, adversary),
        "attack": attack,
        "seed": seed,
        **measured(scores, victim.members, bootstrap_seed),
        "references": references,
        "trained": False if failed else True if grid.ATTACKS[attack].network else None,
        "failed": list(failed),
        "victim": facts,
        # None where there was no such stage, or where files are from before they said so.
        "provenance": {
            "data": model.get("data"),
            "original": model.get("original"),
            "victim": {key: model.get(key) for key in (*TRAINED_KEYS, "defense_options")},
            "signals": model.get("signals"),
            "attack": {key: attacker.get(key) for key in (*STAGE_KEYS, "attempt")},
        },
        "versions": versions(),
    }


def measured(scores: np.ndarray, members: np.ndarray, seed: int, called: np.ndarray | None = None) -> dict[str, Any]:
    """What scores float [n] tell of membership: the part of a result that needs nothing else.

    ``called``, bool [n], is who is called a member, where that is not everybody with a score of 0 or more.
    """
    decided = scores if called is None else np.where(called, 0.0, -1.0)
    return {
        "accuracy": metrics.accuracy(decided, members),
        "accuracy_ci": list(metrics.bootstrap_interval(decided, members, seed)),
        "auc": metrics.auc(scores, members),
        "auc_ci": list(metrics.auc_interval(scores, members)),
        "tpr_at_fpr": {fpr: metrics.at_fpr(scores, members, float(fpr), seed) for fpr in FPRS},
        "roc": metrics.roc_points(scores, members),
        "members": int(members.sum()),
        "non_members": int((~members).sum()),
    }


STAGE_KEYS = ("recipe", "device", "commit", "torch", "extensions")
TRAINED_KEYS = (*STAGE_KEYS, "epoch", "epochs_run")
GPU_ONLY = ("precision",)
"""Settings of a recipe that a CPU does not heed."""


def stage(recipe: Mapping[str, Any], device: str, own: Iterable[Entry] = ()) -> dict[str, Any]:
    """What one stage of a result was computed by and on: for the metadata of its file.

    ``device`` is as `miaprune.devices.name_of` has it, ``own`` is what of the catalogue it was computed by: of what
    comes from users' files, their digests are stated.
    """
    # Sorted: the order of the keys in somebody's config.yaml is to move no byte.
    heeded = {key: recipe[key] for key in sorted(recipe) if not device.startswith("cpu") or key not in GPU_ONLY}
    done = {"recipe": heeded, "device": device, "commit": commit(), "torch": version("torch")}
    return done | {"extensions": catalog.digests_of(own)}


def learnt_nothing(facts: Mapping[str, Any]) -> bool:
    """Whether a model is no better, beyond noise, than always naming one class: neither of its members nor on test."""
    return facts.get("learnt") is False


def versions() -> dict[str, str | None]:
    """What the scores were computed with."""
    packages = {name: version(name) for name in ("torch", "numpy", "scipy")}
    own = {"miaprune": miaprune.__version__, "commit": commit(), "python": platform.python_version()}
    return own | packages


CODE = ("miaprune", "workflow", "rules", "Snakefile")


@cache
def commit() -> str | None:
    """The commit that the code is at, with "-dirty" if it was changed since; None if it has no checkout of its own."""
    root = Path(__file__).resolve().parents[2]
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")) != root:  # a checkout that lies around the library
            return None
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return f"{head}-dirty" if _git(root, "status", "--porcelain", "--", *CODE) else head
    except (OSError, subprocess.CalledProcessError):  # no git, another user's checkout, nothing committed
        return None


def _git(root: Path, *arguments: str) -> str:
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # a git hook's checkout, say
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # no lock on the index: others may ask at the same time
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def write_json(path: str | Path, result: Mapping[str, Any]) -> None:
    """Write a result whole or not at all; raises `ValueError` on NaN and infinity: JSON has none."""
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    write_text(path, text)


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


def read_result_in_place(path: str | Path, results_dir: str, seed: int) -> dict[str, Any]:
    """`read_result` of a file below ``results_dir``; raises `FileError` if it is another cell's or another seed's.

    ``seed`` is the first of the run's seeds.
    """
    result = read_result(path)
    folder, name = os.path.split(os.path.relpath(path, results_dir))
    victim, adversary = grid.attacked_in(folder)
    seed = seed if victim.seed is None else victim.seed
    expected = _named(victim, adversary) | {"attack": name.removesuffix(".json"), "seed": seed}
    check_facts(path, result | result["setting"], expected)
    return result


def flat(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result's row of the attacks table: names flattened, ROC points, recipes and packages' versions left out."""
    low, high = result["accuracy_ci"]
    victim = result["victim"]
    privacy = victim.get("privacy") or dict.fromkeys(PRIVACY_KEYS)
    return {
        **{key: result["setting"][key] for key in SETTING_KEYS},
        "attack": result["attack"],
        "seed": result["seed"],
        "accuracy": result["accuracy"],
        "accuracy_ci_lo": low,
        "accuracy_ci_hi": high,
        "auc": result["auc"],
        "auc_ci_lo": result["auc_ci"][0],
        "auc_ci_hi": result["auc_ci"][1],
        **{key: value for fpr in FPRS for key, value in _flat_rate(fpr, result["tpr_at_fpr"][fpr]).items()},
        "members": result["members"],
        "non_members": result["non_members"],
        "references": result["references"],
        "trained": result["trained"],
        "failed": " ".join(result["failed"]) or None,
        **{f"victim_{key}": victim[key] for key in VICTIM_KEYS},
        **{f"victim_{key}": privacy[key] for key in PRIVACY_KEYS},
        "versions_commit": result["versions"].get("commit"),
    }


def _flat_rate(fpr: str, rate: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a true positive rate: it, its interval, and the false positives that it stands on."""
    name, (low, high) = f"tpr_at_fpr_{fpr}", rate["ci"] or (None, None)
    return {
        name: rate["tpr"],
        f"{name}_ci_lo": low,
        f"{name}_ci_hi": high,
        f"{name}_false_positives": rate["false_positives"],
    }


def _check_result(result: Any) -> None:
    """Raise `KeyError`, `TypeError` or `ValueError` unless ``result`` has the shape of an attack's JSON."""
    for key, value in flat(result).items():
        if key == "trained":
            if value is not None and not isinstance(value, bool):
                raise ValueError(f"trained {value!r} is neither true, false nor null")
        elif key in TEXTS:
            if not isinstance(value, str | None):
                raise ValueError(f"{key} {value!r} is no text")
        elif value is None and key in MAY_LACK:
            continue
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{key} {value!r} is no number")
    versions, roc = result["versions"], result["roc"]
    if not isinstance(versions, dict) or len(roc["fpr"]) != len(roc["tpr"]):
        raise ValueError("its versions or ROC points are incomplete")
    if not 0.0 <= result["accuracy"] <= 1.0:
        raise ValueError(f"accuracy {result['accuracy']} is no fraction")


def _named(setting: grid.Setting, adversary: str) -> dict[str, Any]:
    """A result's "setting" block."""
    numbers = {key: _number(getattr(setting, key)) for key in ("sparsity", "strength")}
    named = asdict(setting) | numbers | {"adversary": adversary}
    return {key: named[key] for key in SETTING_KEYS}


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)
