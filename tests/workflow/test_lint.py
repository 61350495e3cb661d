"""Snakemake's own lint."""

import inspect
import os
import pty
import re
import shlex
import subprocess

import pytest
import yaml
from runner import ROOT, SNAKEMAKE

# The environment is the .venv that requirements.lock pins for every rule alike.
ACCEPTED = {"Specify a conda environment or container for each rule."}


def test_snakemake_lint_finds_nothing_else():
    done = subprocess.run([SNAKEMAKE, "--lint"], cwd=ROOT, capture_output=True, text=True)
    assert "Lints for rule" in done.stderr + done.stdout, "the lint ran"
    assert set(re.findall(r"^    \* (.*?):$", done.stderr + done.stdout, flags=re.M)) <= ACCEPTED


def rules():
    done = subprocess.run([SNAKEMAKE, "--list-rules"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_slurm_profile_names_rules_that_exist():
    """Snakemake ignores a misspelt rule there, and its jobs would run without a GPU."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert set(profile["set-resources"]) <= rules()


@pytest.mark.parametrize("target", ["demo", "location", "report"])
def test_the_makefiles_snakemake_commands_parse(target):
    made = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    line = next(line for line in made.replace("\\\n", " ").splitlines() if "snakemake --profile" in line)
    command = re.search(r"\S*snakemake --profile.*", line).group(0).split("||")[0].replace("$seed", "7")
    arguments = [word for word in shlex.split(command)[1:] if word not in ("--report", "results/demo/report.html")]
    done = subprocess.run([SNAKEMAKE, *arguments, "--list-rules"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_on_a_terminal_make_shows_progress():
    """Nowhere else: a log, CI or a pipe gets Snakemake's own lines."""
    ours, terminal = pty.openpty()
    dry = ["make", "-n", "demo"]
    shown = subprocess.run(dry, cwd=ROOT, stdout=subprocess.PIPE, stderr=terminal, text=True, check=True).stdout
    piped = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--logger rich" in shown and "--logger" not in piped
    arguments = shlex.split(next(line for line in shown.splitlines() if "snakemake" in line))[1:]
    done = subprocess.run([SNAKEMAKE, *arguments, "--list-rules"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "attack_neural" in done.stdout, done.stderr
    os.close(ours)
    os.close(terminal)


def test_what_the_workflow_replaces_in_snakemake_is_there():
    """rules/run.smk; under another name it would stay as it is, unnoticed."""
    import snakemake.api  # noqa: F401 (first: its parts import each other)
    from snakemake.dag import DAG
    from snakemake.scheduling.job_scheduler import JobScheduler
    from snakemake.script import PythonScript

    assert list(inspect.signature(PythonScript.execute_script).parameters) == ["self", "fname", "edit"]
    assert callable(JobScheduler._schedule_reevalutation)
    assert list(inspect.signature(DAG.finish).parameters)[:2] == ["self", "job"]
    assert list(inspect.signature(DAG.is_needed_tempfile).parameters)[:3] == ["self", "job", "tempfile"]
