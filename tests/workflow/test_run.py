"""The pipeline end to end on the digits: every attack, the originals, defences, tables, figures and claims."""

import os
import re
import subprocess

import pandas as pd
import pytest
from browser import check, needs_chromium

from miaprune import grid, metrics
from miaprune.files import load_arrays
from miaprune.report.results import read_result


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """Of fc the original and the pruned setting are there, attacked by two families."""
    workflow = finished.copy(tmp_path_factory.mktemp("run"))
    config = workflow.config
    config |= {"models": ["fc", "cnn"], "pruners": ["slim", "l1"], "attacks": list(grid.ATTACKS)}
    config["parts"] = {"fc": {"models": ["fc"]}, "cnn": {"models": ["cnn"]}}
    config["defenses"] = [
        {"defense": defense, "strengths": [4], "part": "fc", "adversaries": adversaries}
        for defense, adversaries in (("ppb", ["adaptive", "unaware"]), ("adv", ["unaware"]), ("dp", ["unaware"]))
    ]
    config["transfer"] = "cnn"
    done = workflow.run("all")
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow


def test_every_result_is_there_and_sound(run):
    attacked = grid.attacked(grid.settings(run.config), run.config)
    assert len(attacked) == 5 + 4 + 2
    for victim, adversary in attacked:
        for attack in grid.ATTACKS:
            result = read_result(run.folder / "results" / grid.folder(victim, adversary) / f"{attack}.json")
            assert result["attack"] == attack and result["setting"]["adversary"] == adversary
            assert (result["members"], result["non_members"]) == (403, 405)
            assert result["accuracy_ci"][0] <= result["accuracy"] <= result["accuracy_ci"][1]
            assert ("privacy" in result["victim"]) == (victim.defense == "dp")


def test_every_records_score_is_what_a_result_was_counted_from(run):
    for victim, adversary in grid.attacked(grid.settings(run.config), run.config):
        folder = run.folder / "results" / grid.folder(victim, adversary)
        scores, _ = load_arrays(folder / "scores.safetensors")
        for attack in grid.ATTACKS:
            result = read_result(folder / f"{attack}.json")
            assert result["auc"] == metrics.auc(scores[attack], scores["members"])
            assert result["accuracy"] == metrics.accuracy(scores[attack], scores["members"])


def test_tables_hold_every_result_and_model(run):
    attacks = pd.read_csv(run.folder / "results/tables/attacks.csv")
    assert len(attacks) == 11 * len(grid.ATTACKS)
    models = pd.read_csv(run.folder / "results/tables/models.csv")
    assert len(models) == (5 + 3) * 6
    pruned = models[models["pruner"].notna()]
    assert (pruned["achieved_sparsity"] - pruned["sparsity"]).abs().max() < 0.02


def test_figures_and_claims_are_drawn(run):
    names = {path.stem for path in (run.folder / "results/figures").glob("*.pdf")}
    assert {"samia_vs_others", "gaps_vs_accuracy", "frontier_digits_fc", "transfer_digits_cnn"} <= names
    for suffix in ("png", "svg"):
        assert {path.stem for path in (run.folder / "results/figures").glob(f"*.{suffix}")} == names
    assert "Claim 3" in (run.folder / "results/claims.md").read_text()


def test_the_page_has_the_finding_every_figure_and_links_to_files_that_are_there(run):
    page = (run.folder / "results/report.html").read_text()
    finding = run.folder.joinpath("results/summary.txt").read_text().split(": ", 1)[1].split("(")[0]
    assert " ".join(finding.split()) in page
    figures = list((run.folder / "results/figures").glob("*.svg"))
    assert page.count("<img") == len(figures) > 15
    links = set(re.findall(r'href="([^"#:]+)"', page))
    assert {"tables/digits_defenses.csv", "claims.md"} <= links
    assert any(link.startswith("digits/fc/l1_0.5/ppb_4/unaware/") for link in links), "the strongest attack's JSON"
    assert [link for link in links if not (run.folder / "results" / link).is_file()] == []


@needs_chromium
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_in_order_in_a_browser(run, width):
    check(run.folder / "results/report.html", width)


def test_snakemakes_own_report_holds_the_page(run):
    done = run.run("all", "--report", "results/provenance.html")
    assert done.returncode == 0, done.stdout + done.stderr
    report = (run.folder / "results/provenance.html").read_text()
    assert '"results/report.html": {"name"' in report, "shown, not only named as a rule's output"


def test_jobs_run_whatever_folders_are_called_and_whatever_lies_in_the_working_folder(workflow, tmp_path):
    folder = 'it\'s "ü" ' + "ü" * 60
    workflow.config |= {"data_dir": f"{folder}/data", "results_dir": f"{folder}/results"}
    for name in ("miaprune", "statistics", "torch", "signals"):
        (workflow.folder / f"{name}.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / folder).mkdir()
    target = f"{folder}/data/digits/digits.safetensors"
    environment = os.environ | {"TMPDIR": str(tmp_path / folder)}
    done = subprocess.run(
        workflow.command(target), cwd=workflow.folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workflow.folder / target).exists()
