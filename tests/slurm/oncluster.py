"""A folder in which `snakemake --profile slurm ...` runs on the tests' cluster, as the README has it."""

import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cluster import Cluster
from runner import ROOT

# Ask sooner how jobs fare than the profile has it.
POLL = ("--seconds-between-status-checks", "2")


@dataclass
class OnCluster:
    """A copy of the repository's files that a run needs, with a config.yaml of its own."""

    cluster: Cluster
    folder: Path
    config: dict
    started: list = field(default_factory=list)

    def prepare(self):
        for name in ("Snakefile", "Makefile", ".gitignore"):  # the last: compiled files are no change of the checkout
            shutil.copy(ROOT / name, self.folder)
        for name in ("rules", "workflow", "profiles", "miaprune", "snakemake_executor_plugin_miaprune"):
            shutil.copytree(ROOT / name, self.folder / name)
        if (ROOT / ".git").is_dir():  # results name the commit
            shutil.copytree(ROOT / ".git", self.folder / ".git")
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        subprocess.run(["make", "slurm-profile"], cwd=self.folder, env=self.environment, check=True)
        return self

    def add(self, module, text):
        """Add to the folder's copy of a module, unseen by git: its results are to name the commit that others name."""
        file = f"miaprune/{module}.py"
        if (self.folder / ".git").exists() and not self.git("status", "--porcelain", "--", file):
            self.git("update-index", "--assume-unchanged", file)
        with open(self.folder / file, "a") as copy:
            copy.write(text)

    def git(self, *arguments):
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    @property
    def environment(self):
        bin_folder = Path(sys.executable).parent  # as after `source .venv/bin/activate`
        return self.cluster.environment | {
            "PATH": f"{bin_folder}:{self.cluster.environment['PATH']}",
            "PYTHONPATH": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / "xdg"),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *targets, log="run.log"):
        """Start Snakemake; its output goes to ``log``."""
        with open(self.folder / log, "w") as out:
            process = subprocess.Popen(
                ["snakemake", "--profile", "slurm", *targets, *POLL], cwd=self.folder, env=self.environment, stdout=out,
                stderr=out, stdin=subprocess.DEVNULL,
                # Behind a shell's & it would be ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, *targets, log="run.log"):
        """Run Snakemake to its end; returns its exit status and output."""
        status = self.start(*targets, log=log).wait()
        return status, self.said(log)

    def said(self, log="run.log"):
        return (self.folder / log).read_text()

    def queue(self):
        """The numbers of this folder's jobs that SLURM has still to end."""
        lines = self.cluster.run("squeue", "-h", "-o", "%A %Z").splitlines()
        return [job for job, folder in map(str.split, lines) if folder == str(self.folder)]

    def jobs(self):
        """What SLURM has run for this folder: a dict per attempt, requeued ones apart, the first submitted first."""
        fields = ("JobIDRaw", "State", "Start", "End", "ReqMem", "ReqTRES", "TimelimitRaw", "Comment", "WorkDir")
        lines = self.cluster.run("sacct", "-XDnP", "-S", "now-1day", "-o", ",".join(fields)).splitlines()
        rows = [dict(zip(fields, line.split("|"), strict=True)) for line in lines]
        return [row for row in rows if row["WorkDir"] == str(self.folder)]

    def submitted_again(self, job):
        """Whether what SLURM's job of this number was to do has been submitted anew since."""
        # Accounting knows a job's comment only when it has ended.
        lines = self.cluster.run("squeue", "-h", "-t", "all", "-o", "%A %k").splitlines()
        comments = dict(line.split(maxsplit=1) for line in lines)
        return any(comment == comments[job] and int(other) > int(job) for other, comment in comments.items())


def results(folder):
    """The bytes of everything that the attacks and tables are made of, and of those."""
    root = Path(folder) / "results"
    files = [p for pattern in ("*.json", "*.safetensors", "*.csv", "*.md") for p in root.rglob(pattern)]
    kept = (root / "states", root / "logs", root / "benchmarks")
    return {str(p.relative_to(root)): p.read_bytes() for p in files if not any(k in p.parents for k in kept)}
