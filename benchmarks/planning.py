"""Time and memory of planning: dry runs of the paper's grid over seeds, of a plain workflow, and of its parts.

    python benchmarks/planning.py 1 3 10     # seeds; ten are 50 000 jobs
    python benchmarks/planning.py parts      # of the paper's grid

The plain workflow has about as many jobs, with as many inputs and outputs each and the same directives, all from
patterns and constants: no functions, no constraints. What it takes is Snakemake's own. Prints rows of a Markdown table;
each dry run is a process of its own in an empty folder, so nothing is found finished. CPU time is what a busy machine
leaves comparable.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    ["all"],
    ["attacks"],
    ["controls"],
    ["defenses"],
    ["transfer"],
    ["all", "--config", "datasets=[cifar10]"],
    ["all", "--config", "datasets=[cifar10]", "models=[resnet18]"],
    ["attacks", "--batch", "attacks=1/10"],
    ["results/cifar10/resnet18/l1_0.7/samia.json"],
)

PLAIN = """
SETTINGS = [f"{o}/{p}" for o in range(ORIGINALS) for p in range(PRUNED)]
MODELS = [f"m{i}" for i in range(6)]
FAMILIES = {"a": 1, "b": 3, "c": 7, "d": 4}

rule all:
    input:
        [f"r/{s}/{f}{i}.json" for s in SETTINGS for f, count in FAMILIES.items() for i in range(count)],
        [f"r/{s}/scores" for s in SETTINGS],

rule train:
    output: expand("r/{{o}}/original/{m}", m=MODELS)
    log: "logs/{o}/original/train.log"
    benchmark: "benchmarks/{o}/original/train.tsv"
    threads: 1
    resources: runtime=30, mem_mb=4000, card=1
    params: seed=7, device="auto"
    script: "job.py"

rule prune:
    input: expand("r/{{o}}/original/{m}", m=MODELS)
    output: expand("r/{{o}}/{{p}}/{m}", m=MODELS)
    log: "logs/{o}/{p}/prune.log"
    benchmark: "benchmarks/{o}/{p}/prune.tsv"
    group: "{o}/{p}"
    threads: 1
    resources: runtime=30, mem_mb=4000, card=1
    params: seed=7, device="auto"
    script: "job.py"

rule signals:
    input: expand("r/{{o}}/{{p}}/{m}", m=MODELS)
    output: "r/{o}/{p}/signals", "r/{o}/{p}/margins"
    log: "logs/{o}/{p}/signals.log"
    benchmark: "benchmarks/{o}/{p}/signals.tsv"
    group: "{o}/{p}"
    threads: 1
    resources: runtime=30, mem_mb=4000, card=1
    params: seed=7, device="auto"
    script: "job.py"

for f, count in FAMILIES.items():
    rule:
        name: f"attack_{f}"
        input: "r/{o}/{p}/signals", "r/{o}/{p}/margins"
        output: 
            expand(f"r/{{{{o}}}}/{{{{p}}}}/{f}{{i}}.json", i=range(count)),
            expand(f"r/{{{{o}}}}/{{{{p}}}}/attackers/{f}{{i}}", i=range(count)),
            f"r/{{o}}/{{p}}/scores_{f}",
        log: f"logs/{{o}}/{{p}}/attack_{f}.log"
        benchmark: f"benchmarks/{{o}}/{{p}}/attack_{f}.tsv"
        group: "{o}/{p}"
        threads: 1
        resources: runtime=30, mem_mb=4000, card=1
        params: seed=7, device="auto"
        script: "job.py"

rule scores:
    input: expand("r/{{o}}/{{p}}/scores_{f}", f=FAMILIES)
    output: "r/{o}/{p}/scores"
    log: "logs/{o}/{p}/scores.log"
    benchmark: "benchmarks/{o}/{p}/scores.tsv"
    group: "{o}/{p}"
    threads: 1
    resources: runtime=30, mem_mb=4000, card=1
    params: seed=7, device="auto"
    script: "job.py"
"""


def dry_run(folder: str, snakefile: Path, *arguments: str) -> tuple[int, float, float, float]:
    """Jobs, seconds, CPU seconds and peak resident MB of planning."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--directory", folder]
    command += ["--profile", str(ROOT / "profiles/local"), "--quiet", "rules", "--dry-run", *arguments]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    total = re.search(r"^total +(\d+)$", output, flags=re.M)
    if status or not total:
        sys.exit(output)
    return int(total[1]), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def plan(*arguments: str) -> tuple[int, float, float, float]:
    """The paper's grid."""
    with tempfile.TemporaryDirectory() as folder:
        return dry_run(folder, ROOT / "Snakefile", *arguments)


def plan_plainly(jobs: int) -> tuple[int, float, float, float]:
    """The plain workflow, with about as many jobs: seven for each setting, and one for an original of 17 of them."""
    with tempfile.TemporaryDirectory() as folder:
        snakefile = Path(folder, "Snakefile")
        pruned = 17
        originals = max(1, round(jobs / (1 + 7 * pruned)))
        Path(folder, "job.py").touch()
        snakefile.write_text(f"ORIGINALS, PRUNED = {originals}, {pruned}\n{PLAIN}")
        return dry_run(folder, snakefile)


def cells(jobs: int, *numbers: float) -> str:
    return " | ".join([str(jobs), *(f"{number:.0f}" for number in numbers)])


if __name__ == "__main__":
    columns = "jobs | seconds | CPU seconds | peak MB |\n| ---: | ---: | ---: | ---: | ---: |"
    if sys.argv[1:] == ["parts"]:
        print(f"| part | {columns.replace('---:', '---', 1)}")
        for part in PARTS:
            print(f"| `{' '.join(part)}` | {cells(*plan(*part))} |", flush=True)
    else:
        print(f"| | {columns.replace('---:', '---', 1)}")
        for count in map(int, sys.argv[1:]):
            ours = plan("all", "--config", f"seeds={list(range(7, 7 + count))}")
            plain = plan_plainly(ours[0])
            for name, found in ((f"`all`, seeds: {count}", ours), ("as many, plainly", plain)):
                print(f"| {name} | {cells(*found)} |", flush=True)
            print(
                f"| {ours[2] / plain[2] * plain[0] / ours[0]:.2f} times the CPU time of a plain job | | | | |",
                flush=True,
            )
