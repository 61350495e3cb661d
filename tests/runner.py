"""Run the real workflow as a user would, in a folder of its own."""

import copy
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
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
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=environment, capture_output=True, text=True
        )

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
        command = [sys.executable, str(ROOT / "workflow/status.py"), "--directory", str(self.folder)]
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        command += ["--configfile", str(self.folder / "config.yaml")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


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
