"""What Snakemake plans: the paper's grid exactly, and of a change only its consequences."""

import copy
import re
from collections import Counter

import pytest
import yaml
from workflow.conftest import ROOT, Workflow

CELL = "results/digits/fc/l1_0.5"
THRESHOLD = ("conf", "xent", "mentr", "top1_conf", "conf_global", "corr")


@pytest.fixture
def change(finished):
    """The finished run with a copy of its configuration, to be changed and planned."""
    return Workflow(finished.folder, copy.deepcopy(finished.config))


def results(plan):
    """Planned files other than tables, claims and figures."""
    return [file for file in plan if "/tables/" not in file and "/figures/" not in file and file.count("/") > 2]


def checkpoints(folder):
    return [f"{folder}/{role}.safetensors" for role in ("victim", *(f"shadow_{i}" for i in range(5)))]


def test_the_papers_grid_is_15_originals_and_255_settings_with_every_attack(tmp_path):
    paper = Workflow(tmp_path, yaml.safe_load((ROOT / "config.yaml").read_text()))
    files = results(paper.plan("all"))
    assert len([f for f in files if f.endswith("original/victim.safetensors")]) == 15
    assert len([f for f in files if re.search(r"/l\d|/slim", f) and f.endswith("victim.safetensors")]) == 255
    attacks = Counter(f.rsplit("/", 1)[1] for f in files if f.endswith(".json"))
    assert attacks == {f"{attack}.json": 270 for attack in paper.config["attacks"]}


def test_a_finished_run_plans_nothing(finished):
    assert finished.plan("all") == []


def test_one_cell_plans_just_what_it_needs(workflow):
    plan = workflow.plan(f"{CELL}/samia.json")
    assert results(plan) == sorted(
        [*checkpoints("results/digits/fc/original"), *checkpoints(CELL), f"{CELL}/signals.safetensors",
         f"{CELL}/samia.json"]
    )  # fmt: skip


def test_a_new_sparsity_plans_its_own_setting(change):
    change.config["sparsities"].append(0.8)
    cell = "results/digits/fc/l1_0.8"
    expected = [*checkpoints(cell), f"{cell}/signals.safetensors", f"{cell}/samia.json"]
    assert results(change.plan("all")) == sorted(expected + [f"{cell}/{a}.json" for a in THRESHOLD])


def test_a_new_pruner_plans_its_own_settings_and_model(change):
    change.config["models"].append("cnn")
    plan = results(change.plan("all"))
    assert plan and all(file.startswith("results/digits/cnn/") for file in plan)


def test_a_new_attack_plans_itself_on_every_setting(change):
    change.config["attacks"].append("nn_top3")
    expected = [f"results/digits/fc/{v}/nn_top3.json" for v in ("l1_0.5", "original")]
    assert results(change.plan("all")) == expected


def test_a_threshold_attack_is_there_already(change):
    """The family costs milliseconds and is computed together, so only the reports change."""
    change.config["attacks"].append("mentr")
    plan = change.plan("all")
    assert results(plan) == [] and "results/tables/attacks.csv" in plan


def test_a_changed_attack_epoch_count_plans_that_attack_again(change):
    change.config["attack_recipes"][change.config["attack_recipe"]]["epochs"] = 3
    assert results(change.plan("all")) == [f"results/digits/fc/{v}/samia.json" for v in ("l1_0.5", "original")]


def test_a_changed_pruning_epoch_count_plans_pruned_settings_only(change):
    change.config["finetuning"]["epochs"]["image"] = 3
    plan = results(change.plan("all"))
    expected = [*checkpoints(CELL), f"{CELL}/signals.safetensors", f"{CELL}/samia.json"]
    assert plan == sorted(expected + [f"{CELL}/{a}.json" for a in THRESHOLD])


def test_the_other_kinds_epoch_count_plans_nothing(change):
    change.config["finetuning"]["epochs"]["table"] = 3
    assert change.plan("all") == []


def test_another_seed_plans_everything_but_the_data(change):
    change.config["seed"] = 8
    plan = change.plan("all")
    assert {*checkpoints("results/digits/fc/original"), *checkpoints(CELL)} <= set(plan)
    assert "data/digits/digits.safetensors" not in plan
