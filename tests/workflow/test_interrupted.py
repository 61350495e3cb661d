"""Interrupted work is not lost: a killed run, started again, goes on where it was and redoes nothing else."""

import os
import signal
import subprocess
import time

import pytest
from runner import Workflow, small_config

from miaprune import grid

ORIGINAL, CELL = "results/digits/fc/original", "results/digits/fc/l1_0.5"
CHECKPOINTS = [f"{role}.safetensors" for role in grid.ROLES]
EPOCHS = 40
LOG = "results/logs/digits/fc/l1_0.5/prune.log"


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the run did not get there"
        time.sleep(0.02)


def slow_config():
    """Fine-tuning slow enough to be caught in the middle of it, half a second or more for each model."""
    config = small_config()
    config["finetuning"] |= {"epochs": {"image": EPOCHS, "table": 2}, "patience": EPOCHS}
    return config


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory):
    done = finished.copy(tmp_path_factory.mktemp("undisturbed"), without=CELL)
    done.config = slow_config()
    process = done.run(f"{CELL}/conf.json")
    assert process.returncode == 0, process.stdout + process.stderr
    assert not (done.folder / "results/states").exists(), "nobody stopped it, and it was short"
    return done


def interrupted(workflow, how, ready, **environment):
    """Start a run, kill it with all its processes once it is ``ready``, and wait until all of them have ended."""
    process = subprocess.Popen(
        workflow.command(f"{CELL}/conf.json"), cwd=workflow.folder, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    wait_for(lambda: ready(workflow.folder) or process.poll() is not None)
    os.killpg(process.pid, how)
    _, error = process.communicate(timeout=300)
    assert process.returncode != 0
    if how == signal.SIGKILL:  # its lock stands
        assert "--unlock" in workflow.run(f"{CELL}/conf.json").stderr
        assert workflow.run("--unlock").returncode == 0
    return error


@pytest.fixture(scope="module")
def stopped(finished, tmp_path_factory):
    """A run that was told to end in its second model, and what it said. Tests go on with copies of it."""
    workflow = finished.copy(tmp_path_factory.mktemp("stopped"), without=CELL)
    workflow.config = slow_config()
    return workflow, interrupted(workflow, signal.SIGTERM, in_the_second_model)


def in_the_second_model(folder):
    return (folder / LOG).exists() and (folder / LOG).read_text().count("epoch 3/") >= 2


def a_state_of_the_third_model(folder):
    return (folder / "results/states/digits/fc/l1_0.5/shadow_1.state.safetensors").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_goes_on_where_it_was(request, tmp_path, undisturbed, how):
    if how == signal.SIGTERM:
        workflow, error = request.getfixturevalue("stopped")
        workflow = workflow.copy(tmp_path)
    elif how == signal.SIGINT:
        workflow = request.getfixturevalue("trained")
        workflow.config = slow_config()
        error = interrupted(workflow, how, in_the_second_model)
    else:  # one from its very start
        workflow = request.getfixturevalue("workflow")
        workflow.config = slow_config() | {"save_state_every": 0.1}
        interrupted(workflow, how, a_state_of_the_third_model)
    assert not list((workflow.folder / CELL).glob("*")), "nothing half-written"
    if how != signal.SIGKILL:
        assert f"error: stopped by {how.name}, state saved in results/states/digits/fc/l1_0.5" in error
    before = {p: p.stat().st_mtime_ns for p in (workflow.folder / ORIGINAL).iterdir()}
    assert len(before) == 6 or how != signal.SIGKILL

    again = workflow.run(f"{CELL}/conf.json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert {p: p.stat().st_mtime_ns for p in (workflow.folder / ORIGINAL).iterdir() if p in before} == before
    # what was done is not done again: the first model's training, and the epochs before the state
    log = (workflow.folder / LOG).read_text()
    assert "trained in an earlier attempt" in log and "resumes in epoch " in log
    if how != signal.SIGKILL:  # which comes a while after the last state
        assert log.count(f"epoch 1/{EPOCHS}") == 6
    # the interruption leaves no trace in the result: same bytes as the undisturbed run's
    for name in (*CHECKPOINTS, "signals.safetensors", "conf.json"):
        assert (workflow.folder / CELL / name).read_bytes() == (undisturbed.folder / CELL / name).read_bytes(), name
    assert not list(workflow.folder.rglob("results/**/*.tmp"))
    assert not (workflow.folder / "results/states").exists()


def test_under_slurm_a_job_that_is_told_to_stop_may_end_its_work(trained, undisturbed):
    """SLURM tells all processes of a submission, and so the job's script."""
    trained.config = slow_config()
    interrupted(trained, signal.SIGTERM, in_the_second_model, SLURM_JOB_ID="1")
    for name in CHECKPOINTS:
        assert (trained.folder / CELL / name).read_bytes() == (undisturbed.folder / CELL / name).read_bytes(), name
    assert not (trained.folder / CELL / "signals.safetensors").exists()


def test_the_state_of_another_configuration_is_set_aside(stopped, tmp_path, finished):
    other = stopped[0].copy(tmp_path)
    other.config = small_config()
    again = other.run(f"{CELL}/conf.json")
    assert again.returncode == 0, again.stdout + again.stderr
    log = (other.folder / LOG).read_text()
    assert "shadow_0.state.safetensors.unfit: it was saved with other recipe" in log
    assert "resumes in" not in log and "trained in an earlier" not in log
    for name in (*CHECKPOINTS, "signals.safetensors", "conf.json"):
        assert (other.folder / CELL / name).read_bytes() == (finished.folder / CELL / name).read_bytes(), name


def test_another_interval_reruns_nothing(finished):
    changed = Workflow(finished.folder, finished.config | {"save_state_every": 1})
    assert changed.plan("all") == []


@pytest.mark.parametrize("keep_checkpoints", [True, False])
def test_outputs_that_snakemake_removed_with_a_failed_group_are_put_back(trained, finished, keep_checkpoints):
    trained.config |= {"save_state_every": 0, "keep_checkpoints": keep_checkpoints}
    kept = "results/states/digits/fc/l1_0.5/outputs.json"
    interrupted(trained, signal.SIGKILL, lambda folder: (folder / kept).exists())
    for name in CHECKPOINTS:
        (trained.folder / CELL / name).unlink()
    again = trained.run(f"{CELL}/conf.json")
    assert again.returncode == 0, again.stdout + again.stderr
    log = (trained.folder / LOG).read_text()
    assert "finished by an earlier attempt" in log.rpartition("started on")[2]
    assert log.count("epoch 1/2") in (0, 6)  # 0: the killed attempt had finished its log
    assert not (trained.folder / "results/states").exists()
    assert (trained.folder / CELL / "victim.safetensors").exists() == keep_checkpoints
    for name in (*(CHECKPOINTS if keep_checkpoints else ()), "signals.safetensors", "conf.json"):
        assert (trained.folder / CELL / name).read_bytes() == (finished.folder / CELL / name).read_bytes(), name
