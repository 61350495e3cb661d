"""What an audit leaves: a folder, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miaprune.audit.running import Audit, Found
from miaprune.files import FileError, save_tensors, write_text
from miaprune.report.results import FPRS, flat, write_json

if TYPE_CHECKING:  # what is wrong with a folder is to be said at once
    import pandas as pd

    from miaprune.report import page

MARKER = "audit.json"
MADE_BY = "miaprune audit"

EXPOSED = 100
"""Most records of a version that are listed as exposed: 1 % of all otherwise."""

WHOSE = "Each version is a panel"
"""Whose curves the figure has."""


def check_name(name: str) -> None:
    """Raise `ValueError` unless a version may be called so: a folder has its name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name) or name in TOP:
        raise ValueError(f"{name!r}: a version's name has letters, digits, _, - and . only, such as pruned_0.7")


def check_folder(folder: str | Path) -> Path:
    """Where an audit may be written; raises `FileError` if the folder has what no audit wrote. Writes nothing."""
    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder}: a file; name a folder")
    parent = next((each for each in folder.parents if each.exists()), folder)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise FileError(f"{folder}: cannot be made in {parent}, where you may not write")
    if not folder.exists():
        return folder
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    try:
        about = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        ours = set(about["files"]) if about["made_by"] == MADE_BY else set()
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if foreign := sorted(there - ours):
        raise FileError(f"{folder}: has {foreign[0]}, which no audit wrote; name a new folder")
    return folder


def write(audit: Audit, folder: str | Path) -> Path:
    """Write an audit's results, scores, tables, figure and report into a folder of its own, and return that.

    An audit that lies there is replaced. Raises `FileError` if it is anything else; then, and if its files cannot be
    written, the folder stays as it was.
    """
    for name in audit.versions:
        check_name(name)
    folder = check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        _fill(temporary, audit)
        if folder.exists():
            old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)
    except OSError as error:
        raise FileError(f"{folder}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


TOP = (MARKER, "attacks.csv", "exposed.csv", "roc.pdf", "roc.png", "roc.svg", "report.html")


def _fill(folder: Path, audit: Audit) -> None:
    from miaprune.report.tables import write_csv

    files = list(TOP)
    for name, found in audit.versions.items():
        for attack, result in found.results.items():
            write_json(folder / name / f"{attack}.json", result)
            files.append(f"{name}/{attack}.json")
        records = {"records": np.arange(len(audit.members)), "members": audit.members}
        about = {"version": name, "seed": audit.seed, "of": len(audit.members)}
        save_tensors(folder / name / "scores.safetensors", found.scores | records, about)
        files.append(f"{name}/scores.safetensors")
    write_csv(folder / "attacks.csv", attacks_table(audit))
    write_csv(folder / "exposed.csv", exposed(audit))
    _figure(folder / "roc", audit)
    write_text(folder / "report.html", report(audit, (folder / "roc.svg").read_text()))
    write_json(folder / MARKER, summary(audit) | {"files": files})


def summary(audit: Audit) -> dict[str, Any]:
    """What `MARKER` says, but for the files."""
    of_versions = {}
    for name, found in audit.versions.items():
        told = [each["provenance"]["references"] for each in found.results.values() if each["provenance"]["references"]]
        best = found.results[found.strongest]
        of_versions[name] = {
            "strongest": found.strongest,
            **{key: best[key] for key in ("auc", "auc_ci", "tpr_at_fpr")},
            "not_run": found.not_run,
            "notes": found.notes,
            **best["provenance"],
            "references": told[0] if told else None,
        }
    members = int(audit.members.sum())
    return {
        "made_by": MADE_BY,
        "seed": audit.seed,
        "members": members,
        "non_members": len(audit.members) - members,
        "versions": of_versions,
        "differences": audit.differences,
        "answer": answer(audit),
    }


def answer(audit: Audit) -> list[str]:
    """What the audit found, in sentences."""
    said = [_leak(name, found) for name, found in audit.versions.items()]
    first = next(iter(audit.versions))
    for name, difference in audit.differences.items():
        said.append(_change(first, name, difference))
        if len(difference["of"]) < max(len(audit.versions[each].sound) for each in (first, name)):
            said[-1] += f" Compared are the {len(difference['of'])} attacks that were run on both."
    return said


def _leak(name: str, found: Found) -> str:
    best = found.results[found.strongest]
    rates = [
        f"{100 * rate['tpr']:.1f} % {_interval(rate['ci'], 100, 1)} of the members at {100 * float(fpr):g} % false "
        "positives"
        for fpr in FPRS
        if (rate := best["tpr_at_fpr"][fpr])["tpr"] is not None
    ]
    finds = f" It finds {' and '.join(rates)}." if rates else ""
    from scipy.special import ndtri

    low, high = best["auc_ci"]
    # The best of several is above 0.5 by chance more often than one is: Bonferroni's interval, wide enough for all.
    widened = best["auc"] - (best["auc"] - low) * ndtri(1 - 0.025 / len(found.sound)) / ndtri(0.975)
    verdict = ""
    if high < 0.5:
        verdict = " That is below 0.5: are members and non-members swapped?"
    elif widened <= 0.5:
        verdict = f" No leak is shown: by chance the best of {len(found.sound)} attacks is as good."
    return (
        f"{name}: the strongest of {len(found.results)} attacks, {found.strongest}, tells members from non-members "
        f"with an AUC of {best['auc']:.3f} {_interval(best['auc_ci'])}.{finds}{verdict}"
    )


def _change(first: str, name: str, difference: dict[str, Any]) -> str:
    low, high = difference["auc_ci"]
    verdict = (
        f"{name} leaks more than {first}"
        if low > 0
        else f"{name} leaks less than {first}"
        if high < 0
        else f"That {name} leaks more or less than {first} is not shown"
    )
    rate = ""
    if difference["tpr"] is not None:
        points = f"{100 * difference['tpr']:+.1f} points {_interval(difference['tpr_ci'], 100, 1)}"
        rate = f", in the share of members found at 1 % false positives {points}"
    return f"{verdict}: the difference in AUC is {difference['auc']:+.3f} {_interval(difference['auc_ci'])}{rate}."


def _interval(ends: list[float], times: float = 1, digits: int = 3) -> str:
    return f"[{times * ends[0]:.{digits}f}, {times * ends[1]:.{digits}f}]"


READING = (
    "Intervals in brackets are 95 %. An AUC of 0.5 is guessing. The strongest attack is the one with the largest AUC "
    "on these records, so its AUC is on the high side, the more so the fewer records there are. Thresholds and "
    "networks are cross-fitted on the audited records, which takes an auditor who knows the members; attacks with "
    "references are calibrated on each of the first five references in turn where references have members. Versions "
    "are compared by a paired bootstrap, each by the strongest of the attacks that were run on both. Intervals treat "
    "records as independent: with duplicates or several records of one person among them they are too narrow. They "
    "say nothing of what another training run would give."
)
"""How to read the numbers."""


def attacks_table(audit: Audit) -> pd.DataFrame:
    """A row for each version and attack, as `miaprune.report.results.flat` has it, after the version's name."""
    import pandas as pd

    rows = [
        {"version": name} | flat(result) for name, found in audit.versions.items() for result in found.results.values()
    ]
    return pd.DataFrame(rows)


def exposed(audit: Audit) -> pd.DataFrame:
    """The records that each version's strongest attack is surest about, a row each, and their rank in the first."""
    import pandas as pd

    n = len(audit.members)
    ranks = {}
    for name, found in audit.versions.items():
        order = np.argsort(-found.scores[found.strongest], kind="stable")
        ranks[name] = np.empty(n, np.int64)
        ranks[name][order] = np.arange(1, n + 1)
    first, rows = next(iter(ranks)), []
    for name, found in audit.versions.items():
        order = np.argsort(ranks[name])[: min(EXPOSED, max(1, n // 100))]
        rows += [
            {
                "version": name,
                "attack": found.strongest,
                "rank": rank,
                "record": int(record),
                "label": int(audit.labels[record]),
                "member": bool(audit.members[record]),
                "score": float(found.scores[found.strongest][record]),
                f"rank_in_{first}": int(ranks[first][record]),
            }
            for rank, record in enumerate(order, start=1)
        ]
    return pd.DataFrame(rows)


def _figure(path: Path, audit: Audit) -> None:
    """The ROC curves of each version's attacks."""
    from miaprune.report import figures
    from miaprune.report.scores import Scores

    records = np.arange(len(audit.members))
    victims = {
        name: Scores({attack: found.scores[attack] for attack in found.sound}, records, audit.members)
        for name, found in audit.versions.items()
    }
    failed = {name: [a for a in found.results if a not in found.sound] for name, found in audit.versions.items()}
    figures.save(figures.roc(victims, "What attackers find", failed, WHOSE), path)


def report(audit: Audit, roc: str) -> str:
    """The report as a web page; ``roc`` is the figure as SVG."""
    from miaprune.report import page

    said = page.picture(roc, "roc.svg")
    sections = [
        page.Section("At few false alarms", [said]),
        page.Section("Attacks", [_attacks(audit)]),
        page.Section("Most exposed records", [_exposed(audit)]),
        page.Section("What was not run, and what to know", [_list(caveats(audit))]),
    ]
    return page.html(f"Membership audit: {', '.join(audit.versions)}", [*answer(audit), READING], sections)


def _attacks(audit: Audit) -> page.Table:
    """A row for each version and attack, the strongest of each version first."""
    import pandas as pd

    from miaprune.report import page

    rows = []
    for name, found in audit.versions.items():
        for attack, result in sorted(found.results.items(), key=lambda each: -each[1]["auc"]):
            row: dict[str, Any] = {"version": name, "attack": page.Link(attack, f"{name}/{attack}.json")}
            if result["failed"]:
                row |= {"AUC": "failed", "accuracy (%)": "failed"} | {
                    f"TPR at {100 * float(fpr):g} % FPR (%)": "failed" for fpr in FPRS
                }
            else:
                row["AUC"] = f"{result['auc']:.3f}\n{_interval(result['auc_ci'])}"
                row["accuracy (%)"] = f"{100 * result['accuracy']:.1f}\n{_interval(result['accuracy_ci'], 100, 1)}"
                for fpr in FPRS:
                    row[f"TPR at {100 * float(fpr):g} % FPR (%)"] = _rate(result["tpr_at_fpr"][fpr])
            rows.append(row)
    text = (
        'The strongest of each version first. "n/a" is a rate that would stand on no false positive; "failed" is an '
        "attack that learnt nothing."
    )
    return page.Table(pd.DataFrame(rows), text=text)


def _rate(rate: dict[str, Any]) -> str:
    if rate["tpr"] is None:
        return "n/a"
    count = rate["false_positives"]
    positives = f"{count} false positive{'s' * (count != 1)}"
    return f"{100 * rate['tpr']:.1f}\n{_interval(rate['ci'], 100, 1)}\n{positives}"


def _exposed(audit: Audit) -> page.Table:
    from miaprune.report import page

    rows = exposed(audit).query("rank <= 10")
    text = (
        "Those that each version's strongest attack is surest about: 1 % of the records, ten at most here and "
        f"{EXPOSED} in `exposed.csv`. `scores.safetensors` has every record's score."
    )
    return page.Table(rows, text=text)


def caveats(audit: Audit) -> list[str]:
    """What was not run and why, what learnt nothing, and what to know of the evidence, in sentences."""
    said = []
    for name, found in audit.versions.items():
        for why in dict.fromkeys(found.not_run.values()):
            attacks = ", ".join(attack for attack, reason in found.not_run.items() if reason == why)
            said.append(f"{name}: not run: {attacks}: {why}.")
        if failed := [attack for attack, result in found.results.items() if result["failed"]]:
            said.append(f"{name}: learnt nothing, and do not count: {', '.join(failed)}.")
        said += [f"{name}: {note}" for note in found.notes]
    return said


def _list(sentences: list[str]) -> str:
    return "\n".join(f"* {sentence}" for sentence in sentences)
