"""Snakemake's own lint."""

import os
import pty
import re
import shlex
import subprocess

import pytest
import yaml
from runner import ROOT, snakemake

# The environment is the .venv that requirements.lock pins for every rule alike.
ACCEPTED = {"Specify a conda environment or container for each rule."}


def test_snakemake_lint_finds_nothing_else():
    done = snakemake(["--lint"], ROOT)
    assert "Lints for rule" in done.stderr + done.stdout, "the lint ran"
    assert set(re.findall(r"^    \* (.*?):$", done.stderr + done.stdout, flags=re.M)) <= ACCEPTED


def rules():
    done = snakemake(["--list-rules"], ROOT)
    return set(done.stdout.split())


def test_the_slurm_profile_names_rules_that_exist():
    """Snakemake ignores a misspelt rule there, and its jobs would run without a GPU."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert set(profile["set-resources"]) <= rules()


@pytest.mark.parametrize("target", ["demo", "location", "provenance"])
def test_the_makefiles_snakemake_commands_parse(target):
    made = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    line = next(line for line in made.replace("\\\n", " ").splitlines() if "snakemake --profile" in line)
    command = re.search(r"\S*snakemake --profile.*", line).group(0).split("||")[0].replace("$seed", "7")
    arguments = [word for word in shlex.split(command)[1:] if word not in ("--report", "results/demo/provenance.html")]
    done = snakemake([*arguments, "--list-rules"], ROOT)
    assert done.returncode == 0, done.stderr


def test_on_a_terminal_make_shows_progress():
    """Nowhere else: a log, CI or a pipe gets Snakemake's own lines."""
    ours, terminal = pty.openpty()
    dry = ["make", "-n", "demo"]
    shown = subprocess.run(dry, cwd=ROOT, stdout=subprocess.PIPE, stderr=terminal, text=True, check=True).stdout
    piped = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--logger rich" in shown and "--logger" not in piped
    arguments = shlex.split(next(line for line in shown.splitlines() if "snakemake" in line))[1:]
    done = snakemake([*arguments, "--list-rules"], ROOT)
    assert done.returncode == 0 and "attack_samia" in done.stdout, done.stderr
    os.close(ours)
    os.close(terminal)


def patches(text):
    """What a file's code does to Snakemake or its plugins from outside, or to its own process: the lines that do."""
    of_engine = r"^\s*(?:from (snakemake\S*) import (.*)|import (snakemake\S*)(?: as (\w+))?)"
    imports = re.findall(of_engine, text, flags=re.M)
    names = {"workflow"}  # Snakemake's own, in every Snakefile
    for _, several, module, alias in imports:
        names |= {name.split()[-1] for name in several.strip("()").split(",") if name.strip()}
        names |= {alias or module.split(".")[0]} - {""}
    engine = "|".join(map(re.escape, sorted(names)))
    wrong = rf"^\s*({engine})\b(\.\w+)+\s*[-+|]?=(?!=)|\b(setattr|delattr)\(\s*({engine})\b"
    wrong += r"|\bgc\.get_(objects|referrers)|\bos\.(exec|posix_spawn)\w*\("
    return [line for line in text.splitlines() if re.search(wrong, line)]


def test_nothing_patches_the_engine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    code = [name for name in listed if name.endswith((".py", ".smk", "Snakefile")) and not name.startswith("tests/")]
    assert len(code) > 50
    assert {name: found for name in code if (found := patches((ROOT / name).read_text()))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from snakemake.dag import DAG\nDAG.finish = ours",
        "import snakemake.dag as d\nd.DAG.finish = ours",
        "import snakemake_executor_plugin_slurm\nsnakemake_executor_plugin_slurm.Executor.run_job = ours",
        "from snakemake_executor_plugin_slurm import (Executor)\nsetattr(Executor, 'run_job', ours)",
        "if on_cluster:\n    workflow.scheduler = ours",
        "found = [o for o in gc.get_objects() if isinstance(o, Scheduler)]",
        "os.execv(sys.executable, sys.argv)",
    ],
)
def test_a_patch_is_seen(text):
    assert len(patches(text)) == 1


def test_asking_the_engine_is_no_patch():
    assert (
        patches("from snakemake.dag import DAG\nx = DAG.finish\nif workflow.local_exec == DAG.x:\n    DAG.run(a=1)")
        == []
    )
