"""Snakemake's own lint."""

import re
import subprocess

from workflow.conftest import ROOT, SNAKEMAKE

# The environment is the .venv that requirements.lock pins for every rule alike.
ACCEPTED = {"Specify a conda environment or container for each rule."}


def test_snakemake_lint_finds_nothing_else():
    done = subprocess.run([SNAKEMAKE, "--lint"], cwd=ROOT, capture_output=True, text=True)
    assert "Lints for rule" in done.stderr + done.stdout, "the lint ran"
    assert set(re.findall(r"^    \* (.*?):$", done.stderr + done.stdout, flags=re.M)) <= ACCEPTED
