"""The demo's grid through `--profile slurm`: what it submits, on what, and that the numbers are a local run's."""

import collections
import re

import pytest
from oncluster import results
from runner import small_config

from miaprune import grid


@pytest.fixture(scope="module")
def run(on_cluster):
    workflow = on_cluster(small_config())
    status, output = workflow.run("demo")
    assert status == 0, output
    return workflow


def test_results_are_a_local_runs_byte_for_byte(run, locally):
    local, cluster = locally(small_config(), "demo"), results(run.folder)
    assert len(local) > 100
    assert local.keys() == cluster.keys()
    assert [name for name in local if local[name] != cluster[name]] == []


def test_one_submission_per_setting_and_few_more(run):
    demo = small_config()["demo"]
    attacked = grid.attacked(grid.settings(*demo["grid"]), demo)
    expected = collections.Counter({victim.path for victim, _ in attacked})
    expected.update({f"{victim.dataset}/{victim.model}/mismatched" for victim, name in attacked if "shadows_" in name})
    expected.update({f"train_wildcards_{victim.dataset}_{victim.model}" for victim, _ in attacked})
    expected["prepare_wildcards_digits"] = 1
    # a comment is rule_, the group or the rule, and the group's rules or the wildcards
    submitted = collections.Counter(
        re.fullmatch(r"rule_(.*?)(_attack_.*|_mismatched)?", job["Comment"])[1] for job in run.jobs()
    )
    assert submitted == expected


def test_checkpoints_that_are_not_kept_go_there_too(on_cluster, locally):
    config = small_config()
    lean = on_cluster(config | {"keep_checkpoints": False})
    status, output = lean.run("all")
    assert status == 0, output
    found, expected = results(lean.folder), locally(config, "all")
    checkpoints = {name for name in expected if name.endswith(tuple(f"/{role}.safetensors" for role in grid.ROLES))}
    assert len(checkpoints) == 2 * len(grid.ROLES)
    assert found == {name: content for name, content in expected.items() if name not in checkpoints}


def test_a_setting_asks_for_one_gpu_and_the_rest_for_none(run):
    for job in run.jobs():
        gpu = "prepare" not in job["Comment"] and "mismatched" not in job["Comment"]
        assert ("gres/gpu=1" in job["ReqTRES"]) == gpu, job
        assert "gres/gpu=2" not in job["ReqTRES"]
