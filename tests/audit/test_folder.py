"""What an audit leaves is whole, its own, and agrees with itself."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import Evidence

from miaprune.audit import folder as folders
from miaprune.audit import run, write
from miaprune.files import FileError, load_arrays
from miaprune.report import figures

SVG = '<svg xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>ROC</dc:title></svg>'


@pytest.fixture(scope="module")
def audit():
    with pytest.MonkeyPatch.context() as patch:
        from miaprune import metrics
        from miaprune.audit import running

        patch.setattr(metrics, "PAIRED_RESAMPLES", 50)
        patch.setattr(running, "ATTACKS", ("conf", "conf_global", "corr", "lira", "lira_online"))
        evidence = Evidence(n=600)
        versions = {"original": evidence.version(0.5), "pruned": evidence.version(2.0)}
        return run(versions, {"pruned": evidence.references(2.0)})


@pytest.fixture(autouse=True)
def quick_figures(monkeypatch):
    def save(figure, path):
        for suffix in ("pdf", "png", "svg"):
            path.with_suffix(f".{suffix}").write_text(SVG)

    monkeypatch.setattr(figures, "save", save)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_folder_has_what_its_marker_lists_and_nothing_else(audit, tmp_path):
    out = write(audit, tmp_path / "new" / "audit")
    about = json.loads((out / "audit.json").read_text())
    assert files(out) == sorted(about["files"])
    assert [path.name for path in out.parent.iterdir()] == ["audit"]  # nothing temporary is left


def test_jsons_scores_and_tables_agree(audit, tmp_path):
    out = write(audit, tmp_path / "audit")
    table = pd.read_csv(out / "attacks.csv").set_index(["version", "attack"])
    about = json.loads((out / "audit.json").read_text())
    for name, found in audit.versions.items():
        scores, facts = load_arrays(out / name / "scores.safetensors")
        assert facts == {"version": name, "seed": 7, "of": 600}
        np.testing.assert_array_equal(scores["records"], np.arange(600))
        np.testing.assert_array_equal(scores["members"], audit.members)
        for attack, result in found.results.items():
            assert json.loads((out / name / f"{attack}.json").read_text()) == result
            assert table.loc[(name, attack), "auc"] == result["auc"]
            np.testing.assert_array_equal(scores[attack], found.scores[attack])
        assert about["versions"][name]["strongest"] == found.strongest
        assert about["versions"][name]["not_run"] == found.not_run
    assert about["differences"] == audit.differences


def test_exposed_records_are_the_surest_first(audit):
    table = folders.exposed(audit)
    rows = table[table["version"] == "pruned"]
    scores = audit.versions["pruned"].scores[audit.versions["pruned"].strongest]
    assert len(rows) == 6  # 1 % of 600
    assert rows["score"].tolist() == sorted(scores.tolist(), reverse=True)[:6]
    for row in rows.itertuples():
        assert (row.member, row.label) == (audit.members[row.record], audit.labels[row.record])
    first = table[table["version"] == "original"]
    assert first["rank_in_original"].tolist() == first["rank"].tolist()


def test_the_answer_says_the_numbers_of_the_strongest_attacks(audit):
    leaks = folders.answer(audit)
    best = audit.versions["pruned"].results[audit.versions["pruned"].strongest]
    assert f"AUC of {best['auc']:.3f} [{best['auc_ci'][0]:.3f}, {best['auc_ci'][1]:.3f}]" in leaks[1]
    assert leaks[2].startswith("pruned leaks more than original: the difference in AUC is +")


@pytest.mark.parametrize(
    ("auc", "ends", "said"),
    [
        (0.6, [0.58, 0.62], ""),
        (0.6, [0.505, 0.695], "No leak is shown: by chance the best of 5 attacks is as good."),  # alone it would be one
        (0.6, [0.49, 0.71], "No leak is shown"),
        (0.4, [0.35, 0.45], "are members and non-members swapped?"),
    ],
)
def test_that_a_version_leaks_is_said_where_the_best_of_so_many_attacks_is_not_chance(audit, auc, ends, said):
    found = copy.deepcopy(audit.versions["pruned"])
    for result in found.results.values():
        result |= {"auc": auc, "auc_ci": ends}
    verdict = folders.answer(replace(audit, versions={"pruned": found}, differences={}))[0].partition("].")[2]
    assert said in verdict and ("leak" in verdict or "swapped" in verdict) == bool(said)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([0.01, 0.02], "pruned leaks more than original"),
        ([-0.02, -0.01], "pruned leaks less than original"),
        ([-0.01, 0.02], "That pruned leaks more or less than original is not shown"),
    ],
)
def test_a_difference_is_said_as_its_interval_allows(audit, ends, said):
    audit.differences["pruned"] |= {"auc_ci": ends}
    assert folders.answer(audit)[-1].startswith(said)


def test_the_report_names_what_was_not_run(audit):
    text = folders.report(audit, SVG)
    assert "original: not run: base, rmia, lira, lira_t, lira_online, rmia_online: no references." in text
    assert re.search(r"<title>Membership audit: original, pruned</title>", text)


def test_an_audit_is_replaced_and_nothing_else_is(audit, tmp_path):
    out = write(audit, tmp_path / "audit")
    write(audit, out)
    (out / "mine.txt").write_text("notes")
    with pytest.raises(FileError, match=r"has mine\.txt, which no audit wrote"):
        write(audit, out)
    assert "mine.txt" in files(out)


@pytest.mark.parametrize("marker", ["{}", '{"made_by": "somebody", "files": ["audit.json"]}', "no JSON", "[]"])
def test_a_marker_of_somebody_else_s_protects_their_folder(tmp_path, marker):
    (tmp_path / "audit.json").write_text(marker)
    with pytest.raises(FileError, match=r"has audit\.json, which no audit wrote"):
        folders.check_folder(tmp_path)


def test_a_folder_that_is_empty_or_not_there_is_taken_a_file_is_not(tmp_path):
    assert folders.check_folder(tmp_path) == tmp_path
    assert folders.check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="a file"):
        folders.check_folder(tmp_path / "file")
    with pytest.raises(FileError, match="cannot be made"):
        folders.check_folder(tmp_path / "file" / "below")


def test_where_writing_fails_the_folder_stays_as_it_was(audit, tmp_path, monkeypatch):
    out = write(audit, tmp_path / "audit")
    before = {name: (out / name).read_bytes() for name in files(out)}

    def full(audit, roc):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "report", full)
    with pytest.raises(FileError, match=r"cannot be written .No space left on device"):
        write(audit, out)
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert [path.name for path in tmp_path.iterdir()] == ["audit"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "audit.json", "report.html"])
def test_names_that_are_no_folders_are_refused(name):
    with pytest.raises(ValueError, match="a version's name"):
        folders.check_name(name)


def test_names_of_pruned_models_are_fine():
    for name in ("original", "pruned_0.7", "ppb-4"):
        folders.check_name(name)
