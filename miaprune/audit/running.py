"""Every attack that the evidence allows, on every version of a model, and what compressing it changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from miaprune import grid, metrics
from miaprune.attacks import attack, thresholds
from miaprune.audit import crossfit
from miaprune.audit.evidence import References, Version, fault_of_members
from miaprune.margins import TEST, TRAIN, UNSEEN, Margins
from miaprune.report.results import SETTING_KEYS, measured, versions
from miaprune.signals import Signals

ONLINE_ATTACKS = ("lira_online", "rmia_online")
ATTACKS = (
    *(*grid.THRESHOLD_ATTACKS, "blindmi", "nn", "nn_top3", "nn_cls", "samia"),
    *(*grid.REFERENCE_ATTACKS, *ONLINE_ATTACKS),
)

RECIPE = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-2, "batch_size": 128, "least_steps": 320}
EPOCHS = {"samia": 1, "nn": 10, "nn_top3": 10, "nn_cls": 10}
BLINDMI = {"top": 3, "batch": 1000}
"""Options of attacks: the recipe `fast` of ``config.yaml``, and BlindMI's there."""

FITTED_ON = 10_000
"""A network is fitted on at most so many records of the other folds, half of them members; where a half of the records
has as many, two folds do."""

BLINDMI_RECORDS, SAMIA_NUMBERS = 100_000, 10_000_000
"""BlindMI is left out above so many records, SAMIA above so many sensitivities: they would take most of an hour."""

LACKING = 0.1
"""Attacks with references are left out where they lack, for more than this share of the records, the references that
they need: what stands in for those (`miaprune.attacks.online.told`) is to be an exception."""

FPR = "0.01"
"""At which the leak of two versions is compared, beside their AUC."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What attacks say of one version.

    Attributes
    ----------
    results : dict[str, dict[str, Any]]
        By attack, what its JSON says.
    scores : dict[str, np.ndarray]
        By attack float32 [n], larger for members.
    not_run : dict[str, str]
        By attack, why it could not be run.
    notes : list[str]
        Sentences on the evidence that a reader of the numbers must know.
    """

    results: dict[str, dict[str, Any]]
    scores: dict[str, np.ndarray]
    not_run: dict[str, str]
    notes: list[str]

    @property
    def sound(self) -> list[str]:
        """The attacks that were run and learnt something, if they learn."""
        return [name for name, result in self.results.items() if not result["failed"]]

    @property
    def strongest(self) -> str:
        """The attack with the largest AUC of the sound ones."""
        return self.strongest_of(self.sound)

    def strongest_of(self, attacks: Sequence[str]) -> str:
        """The one of these with the largest AUC."""
        return max(attacks, key=lambda name: float(self.results[name]["auc"]))


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes
    ----------
    versions : dict[str, Found]
        By the version's name, the first one what the others are compared with.
    differences : dict[str, dict[str, Any]]
        By the other versions' names, the strongest attack there against the strongest on the first version:
        `miaprune.metrics.paired_differences`, of the attacks that were sound ("of") on both.
    labels, members : np.ndarray
        int64 and bool [n].
    seed : int
    """

    versions: dict[str, Found]
    differences: dict[str, dict[str, Any]]
    labels: np.ndarray
    members: np.ndarray
    seed: int


def run(
    versions: Mapping[str, Version], references: References | Mapping[str, References] | None = None, seed: int = 7
) -> Audit:
    """Attack every version with every attack that the evidence allows.

    Parameters
    ----------
    versions : by name, of the same records in the same order; the others are compared with the first.
    references : of all versions, or by the version's name.
    seed : of folds, networks and bootstraps.

    Raises
    ------
    ValueError : if versions or references are not of the same records, or there are too few members or non-members.
    """
    if not versions:
        raise ValueError("no version; give one by a name, such as {'original': ...}")
    by_version = references if isinstance(references, Mapping) else dict.fromkeys(versions, references)
    for name in by_version:
        grid.known("version", name, versions)
    first = next(iter(versions.values())).signals
    if fault := fault_of_members(first.members):
        raise ValueError(fault)
    for name, version in versions.items():
        check_alike(next(iter(versions)), first, name, version.signals)
        told = by_version.get(name)
        if told is not None and told.margins.shape[1] != len(first):
            raise ValueError(f"references of {name}: {told.margins.shape[1]} records, not {len(first)}")
    found = {name: _attacked(name, version, by_version.get(name), seed) for name, version in versions.items()}
    base, *others = found
    differences = {name: _difference(found[base], found[name], first.members, seed) for name in others}
    return Audit(found, differences, first.labels, first.members, seed)


def check_alike(name: str, signals: Signals, other: str, others: Signals) -> None:
    """Raise `ValueError` unless two versions are of the same records, trained on the same ones."""
    if len(signals) != len(others):
        raise ValueError(f"{other}: {len(others)} records, but {name} has {len(signals)}; give both the same records")
    for what in ("labels", "members"):
        differ = getattr(signals, what) != getattr(others, what)
        if differ.any():
            raise ValueError(
                f"{other}: its {what} differ from those of {name} in {differ.sum()} of {len(signals)} records, the "
                f"first record {differ.argmax()}; versions are compared on the same records, trained on the same ones"
            )


def _attacked(name: str, version: Version, references: References | None, seed: int) -> Found:
    """All attacks on one version."""
    signals = version.signals
    fold = crossfit.folds(signals.labels, signals.members, grid.derive_seed(seed, "folds"))
    facts = _facts(signals)
    not_run = _not_run(signals, references)
    scores, results = {}, {}
    for each in ATTACKS:
        if each in not_run:
            continue
        of_attack = grid.derive_seed(seed, "audit", name, each)
        values, called, calibration, learnt = _scored(each, version, references, fold, of_attack)
        of_references = references if each in WITH_REFERENCES else None
        scores[each] = values.astype(np.float32)  # rounded before they are counted: the file gives the JSON's numbers
        results[each] = {
            "setting": dict.fromkeys(SETTING_KEYS) | {"adversary": "auditor"},
            "version": name,
            "attack": each,
            "seed": seed,
            **measured(scores[each], signals.members, of_attack, called),
            "references": len(of_references.margins) if of_references else None,
            "trained": learnt,
            "failed": ["attack"] if learnt is False else [],
            "calibration": calibration,
            "victim": facts,
            "provenance": version.source | {"references": of_references.source if of_references else None},
            "versions": versions(),
        }
        logger.info(f"{name}: {each}: AUC {results[each]['auc']:.4f}" + (", learnt nothing" if learnt is False else ""))
    return Found(results, scores, not_run, _notes(version, references, not_run))


WITH_REFERENCES = (*grid.REFERENCE_ATTACKS, *ONLINE_ATTACKS)

CROSS_FITTED = "cross-fitting on the audited records"
IN_TURN = "each of the first references in turn as the victim"


def _scored(
    name: str, version: Version, references: References | None, fold: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any], bool | None]:
    """Scores float64 [n], who is called a member (None: whose score is 0 or more), how calibrated, whether trained."""
    signals = version.signals
    crossed = {"by": CROSS_FITTED, "folds": int(fold.max()) + 1}
    if name in WITH_REFERENCES and references is not None:
        values, calibration = _with_references(name, version, references)
        if calibration["by"] == IN_TURN:
            return values, None, calibration, None
        values, called = crossfit.one_threshold(values, signals.members, fold)
        return values, called, calibration | crossed, None
    if name in thresholds.GLOBAL:
        values = crossfit.values_of(thresholds.GLOBAL[name], signals)
        return *crossfit.one_threshold(values, signals.members, fold), crossed, None
    if name in thresholds.PER_CLASS:
        values = crossfit.values_of(thresholds.PER_CLASS[name], signals)
        return crossfit.threshold_per_class(values, signals, fold), None, crossed, None
    if name in ("corr", "blindmi"):
        return attack(name).score({}, signals, BLINDMI, seed, "cpu"), None, {"by": None}, None
    inside = int(signals.members.sum())
    if min(inside, len(signals) - inside) >= FITTED_ON:
        fold = crossfit.folds(signals.labels, signals.members, seed, 2)
    with _one_thread():
        values, learnt = crossfit.network(
            attack(name), signals, fold, RECIPE | {"epochs": EPOCHS[name]}, seed, FITTED_ON
        )
    of_networks = {"folds": int(fold.max()) + 1, "fitted_on_at_most": FITTED_ON}
    return values, None, crossed | of_networks, learnt


@contextmanager
def _one_thread() -> Iterator[None]:
    """Until the block ends, torch computes with one thread.

    Batches of a small network are over before two have met: where others compute, too, two take several times as long.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _with_references(name: str, version: Version, told: References) -> tuple[np.ndarray, dict[str, Any]]:
    """Scores float64 [n], and how they are calibrated: "by" is None where the references can't do it."""
    from miaprune.attacks import online
    from miaprune.attacks.references import in_turn

    if name in ONLINE_ATTACKS:
        score, margins = online.ATTACKS[name], version.margins.astype(np.float64)
        inside, outside = online.told(told.margins.astype(np.float64), told.members)
        values = score(inside, outside, margins)
        turns = online.in_turn(told.margins.astype(np.float64), told.members)
        if not turns:
            return values, {"by": None}
        scored = [(score(i, o, own), members) for i, o, own, members in turns]
        threshold = thresholds.best_threshold(*map(np.concatenate, zip(*scored, strict=True)))
        return values - threshold, {"by": IN_TURN}
    seen = _seen(version, told)
    fitted = attack(name).fit(seen, {}, 0, "cpu")
    calibration: dict[str, Any] = {"a": float(fitted["a"])} if "a" in fitted else {}
    turns_there = bool(in_turn(seen))
    return attack(name).score(fitted, seen, {}, 0, "cpu"), calibration | {"by": IN_TURN if turns_there else None}


def _seen(version: Version, told: References) -> Margins:
    """Margins as the offline attacks take them.

    Where no reference is OUT for a record, what stands in for one (`online.told`) counts as unseen by all.
    """
    from miaprune.attacks import online

    parts = np.where(told.members, TRAIN, TEST).astype(np.int8)
    margins, without_out = told.margins, told.members.all(axis=0)
    if without_out.any():
        parts[:, without_out] = UNSEEN
        margins = online.told(told.margins.astype(np.float64), told.members)[1].margins
    return Margins(version.margins, margins, parts, np.arange(margins.shape[1]))


def _not_run(signals: Signals, told: References | None) -> dict[str, str]:
    """Why attacks can't be run on this evidence, by attack."""
    n, found = len(signals), {}
    if n > BLINDMI_RECORDS:
        found["blindmi"] = f"{n} records; above {BLINDMI_RECORDS} it takes too long"
    if not signals.sensitivities.size:
        found["samia"] = "no sensitivities"
    elif n * signals.classes > SAMIA_NUMBERS:
        found["samia"] = f"{n} records of {signals.classes} classes; above {SAMIA_NUMBERS} numbers it takes too long"
    if told is None:
        return found | dict.fromkeys(WITH_REFERENCES, "no references")
    without_in, without_out = ~told.members.any(axis=0), told.members.all(axis=0)
    if without_in.all():
        return found | dict.fromkeys(ONLINE_ATTACKS, "no reference has a member among the records")
    if (without_in | without_out).all():
        said = "each record was trained on by all references or by none; more references, each on a random half"
        return found | dict.fromkeys(WITH_REFERENCES, said)
    for lacking, kind, attacks in (
        (without_in, "trained on", ONLINE_ATTACKS),
        (without_out, "left out by", WITH_REFERENCES),
    ):
        if lacking.mean() > LACKING:
            said = f"{lacking.sum()} of {n} records were {kind} no reference; more references, each on a random half"
            found |= dict.fromkeys(attacks, said)
    return found


def _notes(version: Version, told: References | None, not_run: Mapping[str, str]) -> list[str]:
    """What a reader of a version's numbers must know of the evidence."""
    signals, notes = version.signals, []
    if version.saturated:
        notes.append(
            f"{version.saturated} of {len(signals)} posteriors of the label are exactly 0 or 1: rounding has taken "
            "what attacks with references look at. Logits would say more."
        )
    unseen = np.flatnonzero(np.bincount(signals.labels, minlength=signals.classes) == 0)
    if len(unseen):
        named = ", ".join(map(str, unseen[:5])) + (", ..." if len(unseen) > 5 else "")
        notes.append(f"{len(unseen)} of {signals.classes} classes have no record: {named}.")
    if told is None:
        return notes
    if not told.members.any():
        notes.append(
            "No reference has trained on an audited record: offline attacks only, RMIA's a is 0.3, and thresholds are "
            "cross-fitted."
        )
        return notes
    if told.margins[told.members].mean() < told.margins[~told.members].mean():
        notes.append("References know their members less well than other records: are their members swapped?")
    if set(WITH_REFERENCES) <= set(not_run):
        return notes
    for lacking, kind in ((~told.members.any(axis=0), "trained on"), (told.members.all(axis=0), "left out by")):
        if lacking.any():
            notes.append(
                f"{lacking.sum()} of {len(signals)} records were {kind} no reference; the other references' margins, "
                "moved by the mean difference between IN and OUT, stand in for those."
            )
    return notes


def _facts(signals: Signals) -> dict[str, Any]:
    """A result's "victim" block: what is not known is None."""
    correct, members = signals.correct, signals.members
    return {
        "train_accuracy": float(correct[members].mean()),
        "test_accuracy": float(correct[~members].mean()),
        "sparsity": None,
        **metrics.gaps(signals),
    }


def _difference(first: Found, other: Found, members: np.ndarray, seed: int) -> dict[str, Any]:
    """Each by its strongest attack of those that were sound on both, or more evidence would pass for a larger leak."""
    both = [name for name in first.sound if name in other.sound]
    attacks = {"first": first.strongest_of(both), "other": other.strongest_of(both)}
    scores = first.scores[attacks["first"]], other.scores[attacks["other"]]
    found = metrics.paired_differences(*scores, members, float(FPR), grid.derive_seed(seed, "differences"))
    rates = (
        each.results[name]["tpr_at_fpr"][FPR]["tpr"]
        for each, name in zip((first, other), attacks.values(), strict=True)
    )
    if None in rates:  # many scores are equal, and no number stands on no record
        found |= {"tpr": None, "tpr_ci": None}
    return {"attacks": attacks, "of": both} | found
