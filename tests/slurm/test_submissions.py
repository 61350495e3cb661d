"""A small grid through `--profile slurm`: what it submits, on what, and that the numbers are a local run's."""

import collections
import re
import signal

import pytest
from cluster import wait_for
from oncluster import results
from runner import ROOT, small_config

from miaprune import grid

CELL = "digits/fc/l1_0.7"  # the one that is attacked with references, too
TARGETS = ("attacks", "defenses", "transfer", "results/tables/attacks.csv", f"results/{CELL}/rmia.json")


def config():
    """Of each one: a defended setting and its two adversaries, mismatched ones, further references, a user's attack."""
    small = small_config() | {"keep_checkpoints": False, "sparsities": [0.5, 0.7], "transfer": "all", "references": 6}
    small |= {"extensions": [str(ROOT / "tests/slurm/my_lab.py")], "attacks": ["nn", "gap"]}
    small["parts"] = {"all": {}, "one": {"sparsities": [0.7]}}
    small["defenses"] = [{"defense": "ppb", "strengths": [4], "part": "one", "adversaries": ["adaptive", "unaware"]}]
    return small


@pytest.fixture(scope="module")
def local(locally):
    return locally(config() | {"keep_checkpoints": True}, *TARGETS)


@pytest.fixture(scope="module")
def run(on_cluster, local):
    workflow = on_cluster(config())
    stopped = workflow.start(*TARGETS, log="stopped.log")
    wait_for(workflow.queue, "nothing submitted", 600)
    stopped.send_signal(signal.SIGINT)
    workflow.stopped = stopped.wait(), workflow.queue()
    status, output = workflow.run(*TARGETS)
    assert status == 0, output
    return workflow


def test_results_are_a_local_runs_byte_for_byte_but_for_checkpoints_that_are_not_kept(run, local):
    found, expected = results(run.folder), local()
    pruned = [name for name in expected if "/original/" not in name]
    models = tuple(f"/{name}.safetensors" for name in (*grid.ROLES, "models"))  # the last: further references
    checkpoints = {name for name in pruned if name.endswith(models)}
    assert len(checkpoints) == 3 * len(grid.ROLES) + 1
    expected = {name: content for name, content in expected.items() if name not in checkpoints}
    assert len(expected) > 20
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    attacked = grid.attacked(grid.settings(config()), config())
    assert len([name for name in expected if name.endswith("/gap.json")]) == len(attacked)


def test_ctrl_c_leaves_nothing_in_the_queue(run):
    status, left = run.stopped
    assert status != 0 and left == []


def test_one_submission_per_setting_and_few_more(run):
    small = config()
    attacked = grid.attacked(grid.settings(small), small)
    expected = collections.Counter({victim.path for victim, _ in attacked})
    expected.update({f"{victim.dataset}/{victim.model}/mismatched" for victim, name in attacked if "shadows_" in name})
    # The first wildcard is the folder of the seed, and the first seed has none.
    expected.update({f"train_wildcards__{victim.dataset}_{victim.model}" for victim, _ in attacked})
    # Of references beyond the shadows: the originals' training, the one setting's pruning and margins, and its attack.
    expected.update(["train_references_wildcards__digits_fc_5-12", f"{CELL}/references/5-12", f"{CELL}/references"])
    # And every setting's scores, among which such an attack's would be.
    expected.update({f"{victim.path}/references" for victim, _ in attacked})
    expected["prepare_wildcards_digits"] = 1
    # a comment is rule_, the group or the rule, and the group's rules or the wildcards
    submitted = collections.Counter(
        re.fullmatch(r"rule_(.*?)(_attack_.*|_mismatched|_prune_references.*|_scores)?", job["Comment"])[1]
        for job in run.jobs()
        if not job["State"].startswith("CANCELLED")
    )
    assert submitted == expected


def test_a_setting_asks_for_one_gpu_and_the_rest_for_none(run):
    for job in run.jobs():
        gpu = "prepare" not in job["Comment"] and "mismatched" not in job["Comment"]
        assert ("gres/gpu=1" in job["ReqTRES"]) == gpu, job
        assert "gres/gpu=2" not in job["ReqTRES"]
