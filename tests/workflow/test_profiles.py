"""The profiles: where Snakemake finds them, and that each can be planned with."""

import os
import subprocess

from runner import ROOT


def link(folder):
    """Run `make slurm-profile` for a user whose settings lie in ``folder``; returns what it says."""
    made = subprocess.run(
        ["make", "--no-print-directory", "slurm-profile"],
        cwd=ROOT, env=os.environ | {"XDG_CONFIG_HOME": str(folder)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return made.stdout


def test_the_slurm_profile_is_linked_to_where_snakemake_looks(tmp_path):
    assert link(tmp_path) == link(tmp_path) == ""
    assert (tmp_path / "snakemake/slurm/config.yaml").samefile(ROOT / "profiles/slurm/config.yaml")


def test_a_link_that_leads_nowhere_is_replaced(tmp_path):
    own = tmp_path / "snakemake/slurm"
    own.parent.mkdir()
    own.symlink_to("nowhere")
    assert link(tmp_path) == ""
    assert (own / "config.yaml").samefile(ROOT / "profiles/slurm/config.yaml")


def test_somebodys_own_profile_stays(tmp_path):
    own = tmp_path / "snakemake/slurm"
    own.parent.mkdir()
    own.mkdir()
    assert "stays; use --profile profiles/slurm" in link(tmp_path)
    assert not own.is_symlink() and not (own / "config.yaml").exists()


def test_a_run_is_planned_with_the_workstations_profile(workflow):
    plan = workflow.run("--profile", str(ROOT / "profiles/workstation"), "--dry-run", "all")
    assert plan.returncode == 0, plan.stdout + plan.stderr
