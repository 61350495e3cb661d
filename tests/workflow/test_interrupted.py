"""Interrupted work is not lost: a killed run, started again, finishes and redoes only what was under way."""

import os
import signal
import subprocess
import time

import pytest
from runner import Workflow

ORIGINAL, CELL = "results/digits/fc/original", "results/digits/fc/l1_0.5"


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the run did not get there"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_finishes_when_started_again(workflow, finished, how):
    # Slow enough to be caught in the middle of fine-tuning.
    slow = workflow.config["finetuning"] | {"epochs": {"image": 5000, "table": 2}, "patience": 5000}
    killed = Workflow(workflow.folder, workflow.config | {"finetuning": slow})
    process = subprocess.Popen(
        killed.command(f"{CELL}/conf.json"), cwd=workflow.folder, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log = workflow.folder / "results/logs/digits/fc/l1_0.5/prune.log"
    wait_for(lambda: log.exists() and "epoch 3/" in log.read_text())
    os.killpg(process.pid, how)
    process.wait(timeout=60)
    assert not list((workflow.folder / CELL).glob("*")), "nothing half-written"
    before = {p: p.stat().st_mtime_ns for p in (workflow.folder / ORIGINAL).iterdir()}
    assert len(before) == 6

    again = workflow.run(f"{CELL}/conf.json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert {p: p.stat().st_mtime_ns for p in (workflow.folder / ORIGINAL).iterdir() if p in before} == before
    assert not list(workflow.folder.rglob("results/**/*.tmp"))
    # the interruption leaves no trace in the result: same bytes as the undisturbed run's
    assert (workflow.folder / CELL / "conf.json").read_bytes() == (finished.folder / CELL / "conf.json").read_bytes()
    assert (workflow.folder / CELL / "signals.safetensors").read_bytes() == (
        finished.folder / CELL / "signals.safetensors"
    ).read_bytes()
