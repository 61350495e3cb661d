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


def settings_of_demo():
    demo = small_config()["demo"]
    return {victim for victim, _ in grid.attacked(grid.settings(*demo["grid"]), demo)}


def test_results_are_a_local_runs_byte_for_byte(run, locally):
    local, cluster = locally(small_config(), "demo"), results(run.folder)
    assert len(local) > 100
    assert local.keys() == cluster.keys()
    assert [name for name in local if local[name] != cluster[name]] == []


def test_one_submission_per_setting(run):
    jobs = run.jobs()
    submitted = collections.Counter(re.sub(r"_(attack|transfer)_.*", "", job["Comment"]) for job in jobs)
    settings = settings_of_demo()
    pairs = {(s.dataset, s.model) for s in settings}
    transfers = [comment for comment in submitted if "unaware" in comment or "/shadows_" in comment]
    assert {f"rule_{s.path}" for s in settings} <= submitted.keys()
    assert set(submitted.values()) == {1}
    assert len(submitted) == len(settings) + len(transfers) + len(pairs) + 1  # a training per pair, and the data


def test_a_setting_asks_for_one_gpu_and_the_rest_for_none(run):
    for job in run.jobs():
        gpu = "prepare" not in job["Comment"] and "_transfer_" not in job["Comment"]
        assert ("gres/gpu=1" in job["ReqTRES"]) == gpu, job
        assert "gres/gpu=2" not in job["ReqTRES"]
