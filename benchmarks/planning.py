"""Time and memory of planning: dry runs of the paper's grid, of its parts, and of grids with many times its sparsities.

    python benchmarks/planning.py 1 2 5 10 13     # times the sparsities
    python benchmarks/planning.py parts           # of the paper's grid

A factor of 10 has 50 sparsities, so ten times the pruned and defended settings. The mismatched adversaries grow with
the square of the sparsities and are kept at the paper's. Prints one row of a Markdown table per dry run; each is a
process of its own in an empty folder, so nothing is found finished. CPU time is what a busy machine leaves comparable.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    ["all"],
    ["attacks"],
    ["defenses"],
    ["transfer"],
    ["all", "--config", "datasets=[cifar10]"],
    ["all", "--config", "datasets=[cifar10]", "models=[resnet18]"],
    ["all", "--config", "datasets=[location]", "seeds=[8]", "results_dir=results/second"],
    ["attacks", "--batch", "attacks=1/10"],
    ["results/cifar10/resnet18/l1_0.7/samia.json"],
)


def grid(factor: int) -> dict:
    """config.yaml with ``factor`` times its sparsities, evenly spread over the same range."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    paper = config["sparsities"]
    count = factor * len(paper)
    if factor > 1:
        step = (paper[-1] - paper[0]) / (count - 1)
        config["sparsities"] = [round(paper[0] + step * i, 4) for i in range(count)]
        config["parts"]["transfer"]["sparsities"] = config["sparsities"][::factor]  # five of them, whatever the factor
    return config


def plan(config: dict, *arguments: str) -> str:
    """A dry run's jobs, seconds, CPU seconds and peak resident MB, as cells of a table."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", folder]
        command += ["--profile", str(ROOT / "profiles/local"), "--quiet", "rules", "--dry-run", *arguments]
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
    total = re.search(r"^total +(\d+)$", output, flags=re.M)
    if status or not total:
        sys.exit(output)
    return f"{total[1]} | {seconds:.0f} | {used.ru_utime + used.ru_stime:.0f} | {used.ru_maxrss / 1024:.0f}"


if __name__ == "__main__":
    columns = "jobs | seconds | CPU seconds | peak MB |\n| ---: | ---: | ---: | ---: | ---: |"
    if sys.argv[1:] == ["parts"]:
        print(f"| part | {columns.replace('---:', '---', 1)}")
        for part in PARTS:
            print(f"| `{' '.join(part)}` | {plan(grid(1), *part)} |", flush=True)
    else:
        print(f"| sparsities | {columns}")
        for factor in map(int, sys.argv[1:]):
            config = grid(factor)
            print(f"| {len(config['sparsities'])} | {plan(config, 'all')} |", flush=True)
