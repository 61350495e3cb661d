"""Installation, and the profiles: where Snakemake finds them, and that each can be planned with."""

import os
import subprocess
import sys

import pytest
from runner import ROOT


def link(folder=None, **environment):
    """Run `make slurm-profile` for a user whose settings lie in ``folder``; returns what it says."""
    environment |= {"XDG_CONFIG_HOME": str(folder)} if folder else {}
    made = subprocess.run(
        ["make", "--no-print-directory", "slurm-profile"],
        cwd=ROOT, env={"PATH": os.environ["PATH"]} | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not made.stderr
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


@pytest.mark.parametrize("home", [{}, {"HOME": "/proc"}, {"HOME": "/dev/null"}])
def test_without_a_home_that_can_be_written_there_is_a_note(home):
    assert "/snakemake/slurm is not this repository's; use --profile profiles/slurm" in link(**home)


def test_a_home_of_any_name(tmp_path):
    home = tmp_path / 'it\'s "ü"'
    assert link(HOME=str(home)) == ""
    assert (home / ".config/snakemake/slurm/config.yaml").samefile(ROOT / "profiles/slurm/config.yaml")


def test_somebodys_own_profile_stays(tmp_path):
    own = tmp_path / "snakemake/slurm"
    own.parent.mkdir()
    own.mkdir()
    assert "is not this repository's; use --profile profiles/slurm" in link(tmp_path)
    assert not own.is_symlink() and not (own / "config.yaml").exists()


def test_a_moved_checkout_is_installed_anew(tmp_path):
    """The commands in .venv/bin begin with the path of their Python."""

    def planned(folder):
        made = subprocess.run(["make", "-n", "status"], cwd=folder, capture_output=True, text=True, check=True)
        return made.stdout

    checkout = tmp_path / "it's (mine)"
    (checkout / ".venv/bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    (checkout / ".venv/bin/snakemake").write_text(f"""#!/bin/sh\n'''exec' "{checkout}/.venv/bin/python" "$0" "$@"\n""")
    (checkout / ".venv/.installed").touch()
    assert "pip install" not in planned(checkout)
    moved = checkout.rename(tmp_path / "moved")
    assert "venv --clear" in planned(moved) and "pip install" in planned(moved)


def test_what_a_link_leads_to_is_not_emptied(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/kept").touch()
    (tmp_path / ".venv").symlink_to("shared")
    command = ["make", "install", f"PYTHON={sys.executable}"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode != 0 and made.stderr.startswith("error: .venv is a link")
    assert (tmp_path / "shared/kept").exists()


def test_a_run_is_planned_with_the_workstations_profile(workflow):
    plan = workflow.run("--profile", str(ROOT / "profiles/workstation"), "--dry-run", "all")
    assert plan.returncode == 0, plan.stdout + plan.stderr
