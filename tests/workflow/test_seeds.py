"""Seeds and controls run: a further seed is a full repetition, and controls differ in what they are for alone."""

import copy
import shutil

import pytest
from runner import Workflow, small_config

from miaprune.files import load_arrays, load_metadata
from miaprune.report.results import read_result

CELL = "digits/fc/l1_0.5"
CONTROLS = ("finetuned", "l1_0.5/untuned", "random_0.5")


@pytest.fixture(scope="module")
def controlled(finished, tmp_path_factory):
    """A finished run with the controls of its one pruned setting, attacked by one attack, and that of another seed."""
    folder = tmp_path_factory.mktemp("controlled")
    shutil.copytree(finished.folder, folder, dirs_exist_ok=True)
    run = Workflow(folder, copy.deepcopy(finished.config) | {"controls": "all", "attacks": ["conf"]})
    done = run.run("controls", f"results/seed_8/{CELL}/conf.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return run


def weights(run, path):
    return load_arrays(run.folder / "results" / path / "victim.safetensors")


def test_a_cell_of_a_further_seed_is_that_of_a_run_with_that_seed_alone(controlled, tmp_path):
    alone = Workflow(tmp_path, small_config() | {"seeds": [8], "attacks": ["conf"]})
    done = alone.run(f"results/{CELL}/conf.json")
    assert done.returncode == 0, done.stdout + done.stderr
    mine, other = (tmp_path / "results" / CELL, controlled.folder / "results/seed_8" / CELL)
    for name in ("conf.json", "victim.safetensors", "signals.safetensors", "margins.safetensors"):
        assert (mine / name).read_bytes() == (other / name).read_bytes(), name
    result = read_result(other / "conf.json")
    assert result["seed"] == 8 and read_result(controlled.folder / f"results/{CELL}/conf.json")["seed"] == 7


def test_controls_are_what_they_are_called(controlled):
    for version in CONTROLS:
        result = read_result(controlled.folder / f"results/digits/fc/{version}/conf.json")
        tuning = None if version.startswith("random") else version.rpartition("/")[2]
        assert result["setting"]["tuning"] == tuning
        assert result["victim"]["sparsity"] == pytest.approx(0.0 if version == "finetuned" else 0.5, abs=0.02)
    original, _ = weights(controlled, "digits/fc/original")
    untuned, about = weights(controlled, "digits/fc/l1_0.5/untuned")
    tuned, _ = weights(controlled, CELL)
    drawn, _ = weights(controlled, "digits/fc/random_0.5")
    finetuned, further = weights(controlled, "digits/fc/finetuned")
    assert about["epochs_run"] == 0 and further["epochs_run"] > 0
    for name in original:
        kept = untuned[name] != 0
        assert (untuned[name][kept] == original[name][kept]).all(), "what stays is as it was"
        if name.endswith("weight"):
            assert ((tuned[name] == 0) >= ~kept).all() and (drawn[name] == 0).sum() == (~kept).sum()
            assert ((drawn[name] == 0) != ~kept).any() and (finetuned[name] != 0).mean() > 0.99
            assert (finetuned[name] != original[name]).any()


def test_controls_are_planned_no_second_time(controlled):
    assert controlled.plan("controls") == []
    facts = load_metadata(controlled.folder / "results/digits/fc/finetuned/signals.safetensors")
    assert {about["setting"] for about in facts.values()} == {"digits/fc/finetuned"}
