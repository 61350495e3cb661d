"""Runs that don't keep checkpoints: the same results, nothing trained twice, no space held behind their backs."""

import copy
import json

import pytest
from runner import Workflow

from miaprune import files, grid

ORIGINAL, CELL = "results/digits/fc/original", "results/digits/fc/l1_0.5"
CHECKPOINTS = [f"{role}.safetensors" for role in grid.ROLES]
# Every job saves states at every step, and so keeps second names of its outputs, as hours of training do.
LEAN = {"keep_checkpoints": False, "save_state_every": 0}
LIRA = f"{CELL}/lira.json"  # with more reference models than there are shadows


@pytest.fixture(scope="module")
def lean(finished, tmp_path_factory):
    """A finished run that pruned without checkpoints. Tests plan changes of it, and change nothing.

    Without hooks, it is as a run that goes on with other settings.
    """
    done = finished.copy(tmp_path_factory.mktemp("lean"), without=CELL)
    done.config |= LEAN | {"references": 6}
    process = done.run("attacks", LIRA, "--no-hooks")
    assert process.returncode == 0, process.stdout + process.stderr
    return done


@pytest.fixture
def change(lean):
    return Workflow(lean.folder, copy.deepcopy(lean.config))


def checkpoints(folder):
    found = (path for name in (*CHECKPOINTS, "models.safetensors") for path in folder.rglob(name))
    return sorted(str(path.relative_to(folder)) for path in found if "states" not in path.parts)


def steps(plan):
    """What a plan makes of settings: the last parts of the files' names, and of checkpoints the victim's alone."""
    others = ("/attackers/", "scores", "shadow_")
    plan = [file for file in plan if file.endswith(".safetensors") and not any(part in file for part in others)]
    return sorted(file.removeprefix("results/digits/fc/") for file in plan)


ORIGINALS = sorted(f"{ORIGINAL}/{name}" for name in CHECKPOINTS)  # all that is pruned starts from them: they stay


def test_the_results_are_the_same_bytes_and_no_pruned_checkpoint_is_left(lean, finished):
    assert checkpoints(lean.folder) == sorted([*ORIGINALS, f"{ORIGINAL}/references/5-12/models.safetensors"])
    held = [path.parent.relative_to(lean.folder) for path in lean.folder.glob("results/states/**/outputs.json")]
    assert held and all("references" in place.parts for place in held), "those of further references stay until the end"
    names = [
        str(path.relative_to(finished.folder))
        for path in finished.folder.glob("results/digits/**/*")
        if path.suffix == ".json" or path.parent.name == "attackers" or path.name == "signals.safetensors"
    ]
    assert len([name for name in names if name.endswith("samia.json")]) == 2
    for name in names:
        assert (lean.folder / name).read_bytes() == (finished.folder / name).read_bytes(), name


def test_a_finished_run_plans_nothing_and_counts_as_done(lean):
    assert lean.plan("attacks", LIRA) == []
    status = lean.status()
    assert "All 10 jobs are done." in status, status


def test_keeping_them_or_not_changes_no_plan(lean, finished):
    assert Workflow(lean.folder, lean.config | {"keep_checkpoints": True}).plan("attacks") == []
    assert Workflow(finished.folder, finished.config | LEAN).plan("all") == []


def test_checkpoints_that_were_kept_can_go_later(finished, tmp_path):
    later = finished.copy(tmp_path)
    assert len(checkpoints(later.folder)) == 12
    done = later.run("all", "--delete-temp-output", "--config", "keep_checkpoints=false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert checkpoints(later.folder) == ORIGINALS and (later.folder / CELL / "signals.safetensors").exists()
    assert later.plan("all") == []


def test_models_that_learnt_nothing_fail_the_attacks_on_their_setting(lean, tmp_path):
    """Of 6 reference models the job of the sixth trained seven more, which no attack uses; 9 is one of them."""
    marked = lean.copy(tmp_path)
    further = marked.folder / f"{CELL}/references/5-12/margins.safetensors"
    arrays, about = files.load_arrays(further)
    for role in ("reference_5", "reference_9"):
        about[role]["learnt"] = False
    files.save_tensors(further, arrays, about)
    signals = marked.folder / f"{CELL}/signals.safetensors"
    arrays, about = files.load_arrays(signals)
    about["shadow_2"]["learnt"] = False
    files.save_tensors(signals, arrays, about)
    done = marked.run(LIRA, f"{CELL}/corr.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((marked.folder / LIRA).read_text())["failed"] == ["shadow_2", "reference_5"]
    corr = json.loads((marked.folder / f"{CELL}/corr.json").read_text())
    assert corr["failed"] == ["shadow_2"], "it fits nothing, and would be the strongest of those that are left"


def test_a_new_attack_trains_no_model(change):
    change.config["attack_recipes"][change.config["attack_recipe"]]["epochs"]["samia"] = 3
    plan = change.plan("all")
    assert {f"{CELL}/samia.json", f"{ORIGINAL}/samia.json"} <= set(plan) and steps(plan) == []


def test_a_changed_hyper_parameter_is_not_missed_where_checkpoints_are_gone(change):
    pruned = [f"l1_0.5/{name}.safetensors" for name in ("margins", "signals", "victim")]
    change.config["finetuning"]["epochs"]["image"] = 3
    assert steps(change.plan("all")) == pruned
    change.config["finetuning"]["epochs"]["image"] = 2
    change.config["training"]["epochs"]["image"] = 3
    assert steps(change.plan("all")) == [
        *pruned,
        *(f"original/{name}.safetensors" for name in ("margins", "signals", "victim")),
    ]


def test_a_new_sparsity_plans_no_other(change):
    change.config["sparsities"].append(0.8)
    new = [f"l1_0.8/{name}.safetensors" for name in ("margins", "signals", "victim")]
    assert steps(change.plan("results/digits/fc/l1_0.8/conf.json")) == steps(change.plan("all")) == new


def test_more_references_plan_what_is_missing_and_their_attacks(change):
    change.config["references"] = 13  # as many as there are
    plan = change.plan("all", LIRA)
    assert LIRA in plan and not {file for file in plan if file.startswith(f"{ORIGINAL}/") or "references/" in file}
    change.config["references"] = 14
    made = ("l1_0.5/references/13-20/margins", "l1_0.5/references/13-20/models", "original/references/13-20/models")
    assert steps(change.plan("all", LIRA)) == [f"{name}.safetensors" for name in made]


def test_a_target_that_is_a_checkpoint_is_kept(workflow, finished):
    """A run from its very start."""
    workflow.config |= LEAN
    target = f"{CELL}/shadow_1.safetensors"
    done = workflow.run(target, f"{CELL}/conf.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert checkpoints(workflow.folder) == sorted([target, *ORIGINALS])
    assert not (workflow.folder / "results/states").exists()
    for name in (target, *ORIGINALS):
        assert (workflow.folder / name).read_bytes() == (finished.folder / name).read_bytes(), name
