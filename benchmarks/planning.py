"""Time and memory of planning: dry runs of the paper's grid and of grids with many times its sparsities.

    python benchmarks/planning.py 1 2 5 10

A factor of 10 has 50 sparsities, so ten times the pruned and defended settings. The mismatched adversaries grow with
the square of the sparsities and are kept at the paper's. Prints one row of a Markdown table per factor; each is a
process of its own in an empty folder, so nothing is found finished.
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


def grid(factor: int) -> dict:
    """config.yaml with ``factor`` times its sparsities, evenly spread over the same range."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    paper = config["sparsities"]
    count = factor * len(paper)
    if count > len(paper):
        step = (paper[-1] - paper[0]) / (count - 1)
        config["sparsities"] = [round(paper[0] + step * i, 4) for i in range(count)]
    # Five of them, whatever the factor.
    config["parts"]["transfer"]["sparsities"] = config["sparsities"][::factor]
    return config


def plan(config: dict, *arguments: str) -> tuple[int, float, float]:
    """Jobs of a dry run, its wall time in seconds, and its peak resident memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.yaml").write_text(yaml.safe_dump(config))
        command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", folder]
        command += ["--profile", str(ROOT / "profiles/local"), "--dry-run", "--quiet", "rules", *arguments]
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
    total = re.search(r"^total +(\d+)$", output, flags=re.M)
    if status or not total:
        sys.exit(output)
    return int(total[1]), seconds, used.ru_maxrss / 1024


if __name__ == "__main__":
    print("| sparsities | jobs | seconds | peak MB | ms per job |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for factor in map(int, sys.argv[1:]):
        config = grid(factor)
        jobs, seconds, memory = plan(config, "all")
        each = 1000 * seconds / jobs
        print(f"| {len(config['sparsities'])} | {jobs} | {seconds:.0f} | {memory:.0f} | {each:.1f} |", flush=True)
