"""Snakemake's own lint."""

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
    arguments = [word for word in shlex.split(command)[1:] if word not in ("--report", "results/report.html")]
    done = subprocess.run([SNAKEMAKE, *arguments, "--list-rules"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
