"""The status command agrees with Snakemake: on which jobs there are, and on what became of them in real runs."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import runner
import status
import yaml
from runner import Workflow

from miaprune import grid
from miaprune.report.results import read_result

CELL = "digits/fc/l1_0.5"


def planned(workflow):
    """(output, log, benchmark) of each job of a setting that Snakemake would run, as it prints them."""
    done = workflow.run("--dry-run", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    block = r" output: (.*)\n +log: (\S+)\n(?: +jobid: .*\n)? +benchmark: (\S+)\n"
    found = re.findall(block, done.stdout + done.stderr)
    return [(outputs.split(", "), log, tsv) for outputs, log, tsv in found if not log.endswith("/prepare.log")]


def test_it_has_the_jobs_that_snakemake_plans(workflow):
    workflow.config |= {
        "sparsities": [0.5, 0.7],
        "attacks": ["samia", "nn", "conf", "lira"],
        "references": 14,
        "transfer": "all",
        "defenses": [{"defense": "ppb", "strengths": [4], "part": "all", "adversaries": ["adaptive", "unaware"]}],
    }
    attacked = grid.attacked(grid.settings(workflow.config), workflow.config)
    jobs = {
        f"{job.folder}/{job.step}": job
        for cell in status.cells(attacked, workflow.config["attacks"], 14)
        for job in cell.jobs
    }
    plan = planned(workflow)
    assert len(plan) == len(jobs) > 20
    for outputs, log, benchmark in plan:
        job = jobs[log.removeprefix("results/logs/").removesuffix(".log")]
        assert benchmark == f"results/benchmarks/{job.folder}/{job.step}.tsv"
        assert {f"results/{output}" for output in job.outputs} <= set(outputs)


def report(workflow):
    done = runner.status("--configfile", str(workflow.folder / "config.yaml"), folder=workflow.folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def undefended(text):
    """The numbers of undefended settings: done, running, failed and missing."""
    line = next(line for line in text.splitlines() if line.startswith("total"))
    return [int(number) for number in line[25:].split("|")[0].replace(".", "0").split()]


def test_a_finished_run(finished):
    finished.command()  # writes the configuration: another test may have left its own
    text = report(finished)
    assert undefended(text) == [2, 0, 0, 0]
    assert "All 10 jobs are done." in text


def test_the_time_left_is_from_snakemakes_benchmark_files(finished):
    finished.config["sparsities"].append(0.8)
    try:
        wider = Workflow(finished.folder, finished.config)
        wider.command()  # writes the configuration
        text = report(wider)
    finally:
        finished.config["sparsities"].pop()
        finished.command()
    assert undefended(text) == [2, 0, 0, 1]
    benchmarks = finished.folder / "results/benchmarks" / CELL
    seconds = [float(tsv.read_text().splitlines()[1].split("\t")[0]) for tsv in benchmarks.glob("prune.tsv")]
    for name in ("signals", "attack_samia", "attack_cheap", "scores"):
        of = [
            finished.folder / "results/benchmarks" / setting / f"{name}.tsv" for setting in (CELL, "digits/fc/original")
        ]
        seconds.append(sum(float(tsv.read_text().splitlines()[1].split("\t")[0]) for tsv in of) / 2)
    assert f"5 of 15 jobs left: {status.duration(sum(seconds))} one after another" in text
    assert "Without" not in text


@pytest.fixture
def pruning(trained):
    """A Snakemake in the middle of a fine-tuning that would take for ever."""
    trained.config["finetuning"] |= {"epochs": {"image": 5000, "table": 2}, "patience": 5000}
    process = subprocess.Popen(
        trained.command(f"results/{CELL}/conf.json"), cwd=trained.folder, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log = trained.folder / f"results/logs/{CELL}/prune.log"
    end = time.monotonic() + 120
    while not (log.exists() and "epoch 3/" in log.read_text()):
        assert time.monotonic() < end and process.poll() is None, "the run did not get there"
        time.sleep(0.1)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_running_job_and_what_is_left_of_it_when_all_is_killed(trained, pruning):
    assert undefended(report(trained)) == [1, 1, 0, 0]
    os.killpg(pruning.pid, signal.SIGKILL)
    pruning.wait()
    assert "snakemake --unlock" in report(trained), "its lock stands"
    assert trained.run("--unlock").returncode == 0
    text = report(trained)
    assert undefended(text) == [1, 0, 0, 1]
    assert "1 job was under way when Snakemake was stopped" in text


def test_a_job_that_was_killed_has_failed(trained, pruning):
    log = (trained.folder / f"results/logs/{CELL}/prune.log").read_text()
    os.kill(int(re.search(r"process (\d+)", log)[1]), signal.SIGKILL)
    assert pruning.wait(timeout=120) != 0
    text = report(trained)
    assert undefended(text) == [1, 0, 1, 0]
    assert text.startswith(f"failed: prune of {CELL}\n  cancelled or killed (by a signal")


def test_a_job_that_raised_an_error_has_failed(finished, tmp_path):
    """The victim's checkpoint is another kind of file: its signals fail, as no check before the run can see."""
    workflow = finished.copy(tmp_path)
    folder = workflow.folder / f"results/{CELL}"
    shutil.copy(folder / "signals.safetensors", folder / "victim.safetensors")
    assert workflow.run("all").returncode != 0
    text = report(workflow)
    assert undefended(text) == [1, 0, 1, 0]
    assert text.startswith(f"failed: signals of {CELL}\n  RuntimeError: Error(s) in loading state_dict")
    assert f"  results/logs/{CELL}/signals.log\n" in text


def test_a_network_that_learnt_nothing_is_named_also_where_another_adversary_scores_with_it(finished, tmp_path):
    workflow = finished.copy(tmp_path)
    recipe = workflow.config["attack_recipes"]["fast"] | {"lr": 1e30}  # comes to NaN
    workflow.config |= {"attacks": ["nn"], "attack_recipes": workflow.config["attack_recipes"] | {"fast": recipe}}
    defense = {"defense": "ppb", "strengths": [4], "part": "all", "adversaries": ["unaware"]}
    workflow.config |= {"defenses": [defense], "parts": {"all": {}}}
    matched, unaware = f"results/{CELL}/nn.json", f"results/{CELL}/ppb_4/unaware/nn.json"
    done = workflow.run(matched, unaware)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in (matched, unaware):
        result = read_result(workflow.folder / file)
        assert result["trained"] is False and result["failed"] == ["attack"]
        assert f"failed, because a network learnt nothing (attack): {file}\n" in report(workflow)
    log = (workflow.folder / f"results/logs/{CELL}/ppb_4/unaware/score.log").read_text()
    assert "nn: learnt nothing: attack" in log


def test_the_demos_grid(workflow):
    """make status OF=demo, before the demo was run."""
    (workflow.folder / "config.yaml").write_text(yaml.safe_dump(workflow.config))
    done = runner.status("demo", folder=workflow.folder)
    demo = workflow.config["demo"]
    assert undefended(done.stdout) == [0, 0, 0, len(grid.settings(*demo["grid"]))]
