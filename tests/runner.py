"""Run the real workflow in a folder of its own: as a user would, but for the imports, see `FORKS`."""

import copy
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jobs
import yaml

ROOT = Path(__file__).parents[1]
STATUS = ROOT / "workflow/status.py"
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
SMALL = {
    "datasets": ["digits"],
    "models": ["fc"],
    "pruners": ["l1"],
    "sparsities": [0.5],
    "attacks": ["samia", "conf"],
    "device": "cpu",
    "defenses": [],
    "transfer": "none",
    "controls": "none",
}


FORKS = multiprocessing.get_context("forkserver")
"""Imports are most of the time of a dry run and of a small job: `snakemake`, its jobs and `status` are forks of a
process that has them done. A run that a test stops or kills is started from `Workflow.command`, as a user's is."""
FORKS.set_forkserver_preload(
    [
        "snakemake.cli",
        "snakemake.report.html_reporter",
        "snakemake_logger_plugin_rich",
        "smart_open",
        "jsonschema",
        "pandas",
        "scipy.stats",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "torch._dynamo",
    ]
)


def _main(program, arguments, folder, environment, files):
    """What a script does that was started in ``folder``, in a process of its own."""
    for number, file in files.items():
        os.dup2(os.open(file, os.O_WRONLY), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    here = [str(ROOT / name) for name in ("tests", "workflow", "workflow/scripts", "benchmarks")]
    sys.path[:] = [path for path in sys.path if path not in here]  # pytest's own
    program(arguments, Path(files[1]).parent)


def _snakemake(arguments, own):
    sys.argv = [SNAKEMAKE, *arguments]
    os.environ[jobs.ADDRESS] = str(own / "jobs")
    jobs.serve(os.environ[jobs.ADDRESS])
    python = own / "python"  # what Snakemake is to start a job's script by
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S {jobs.__file__} "$@"\n')
    python.chmod(0o755)
    sys.executable = str(python)
    from snakemake.cli import main

    main()


def _status(arguments, _):
    sys.argv = [str(STATUS), *arguments]
    sys.path.insert(0, str(STATUS.parent))
    runpy.run_path(str(STATUS), run_name="__main__")


def _forked(program, arguments, folder):
    with tempfile.TemporaryDirectory() as said:
        files = {1: f"{said}/out", 2: f"{said}/err"}
        for file in files.values():
            Path(file).touch()
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = FORKS.Process(target=_main, args=(program, arguments, str(folder), environment, files))
        process.start()
        process.join()
        out, err = (Path(file).read_text() for file in files.values())
    return subprocess.CompletedProcess(arguments, process.exitcode, out, err)


def snakemake(arguments, folder):
    """Run Snakemake to its end; returns the finished process with its output as text."""
    return _forked(_snakemake, arguments, folder)


def status(*arguments, folder=ROOT):
    """Run workflow/status.py in this folder; returns the finished process with its output as text."""
    return _forked(_status, arguments, folder)


@dataclass
class Workflow:
    """A working folder with its own config.yaml, beside the repository's Snakefile."""

    folder: Path
    config: dict

    def command(self, *arguments):
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        profile = str(ROOT / "profiles/local")
        return [SNAKEMAKE, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder),
                "--profile", profile, "--cores", "2", "--nocolor", *arguments]  # fmt: skip

    def run(self, *arguments):
        """Run Snakemake to its end; returns the finished process with its output as text."""
        return snakemake(self.command(*arguments)[1:], self.folder)

    def plan(self, *arguments):
        """The files that a dry run would make, sorted."""
        done = self.run("--dry-run", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        outputs = re.findall(r"^ +output: (.*)$", done.stdout + done.stderr, flags=re.M)
        return sorted(file for line in outputs for file in line.split(", "))

    def copy(self, folder, without=None):
        """The same run in another folder, to be changed; ``without`` is a folder of it that is left out."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        if without:
            shutil.rmtree(folder / without)
        return Workflow(folder, copy.deepcopy(self.config))

    def status(self):
        """What `make status` says of the grid."""
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump(self.config))
        done = status("--directory", str(self.folder), "--configfile", str(config))
        assert done.returncode == 0, done.stderr
        return done.stdout


def small_config():
    """The repository's configuration cut down to one small setting and a few epochs of everything.

    The originals train long enough for SAMIA to find in an epoch what they leak: one that does not is fitted anew.
    """
    config = yaml.safe_load((ROOT / "config.yaml").read_text()) | SMALL
    for stage, epochs in (("training", 10), ("finetuning", 2)):
        config[stage] = config[stage] | {"epochs": {"image": epochs, "table": epochs}}
    for recipe in config["attack_recipes"].values():
        recipe["epochs"] = {"samia": 1, "nn": 2}
        if "least_steps" in recipe:  # left out, it is as in config.yaml
            recipe["least_steps"] = 1
    return config
