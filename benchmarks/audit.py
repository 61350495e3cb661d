"""How long `miaprune audit` takes, and how much memory, by the number of records: python benchmarks/audit.py FOLDER.

Makes posteriors of two versions and logits of references, all drawn, in FOLDER (7 GB at the full size), audits them in
a process of its own, prints a row of a table, and removes what it made.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

CHUNK = 50_000


def make(folder: Path, n: int, classes: int, references: int) -> None:
    """Write two versions and references as `numpy.savez` does, the references in pieces."""
    rng = np.random.default_rng(0)
    labels, hard = rng.integers(0, classes, n), rng.normal(0, 2, n).astype("f4")
    members = rng.random((references + 1, n)) < 0.5

    def said(own: np.ndarray, first: int, gain: float) -> np.ndarray:
        here = slice(first, first + CHUNK)
        logits = rng.standard_normal((len(labels[here]), classes), dtype=np.float32)
        logits[np.arange(len(logits)), labels[here]] += 6 + hard[here] + gain * own[here]
        return logits

    for name, gain in (("original", 0.6), ("pruned", 1.0)):
        logits = np.concatenate([said(members[0], first, gain) for first in range(0, n, CHUNK)])
        p = np.exp(logits)
        np.savez(folder / f"{name}.npz", posteriors=p / p.sum(1, keepdims=True), labels=labels, members=members[0])
    header = {"descr": "<f4", "fortran_order": False, "shape": (references, n, classes)}
    with zipfile.ZipFile(folder / "references.npz", "w") as archive:
        with archive.open("logits.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for own in members[1:]:
                for first in range(0, n, CHUNK):
                    file.write(said(own, first, 1.0).tobytes())
        with archive.open("members.npy", "w") as file:
            np.lib.format.write_array(file, members[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--references", type=int, default=16)
    given = parser.parse_args()
    folder = given.folder / "audit_benchmark"
    folder.mkdir(parents=True)
    try:
        make(folder, given.records, given.classes, given.references)
        versions = [f"{name}={folder / name}.npz" for name in ("original", "pruned")]
        command = [sys.executable, "-m", "miaprune", "audit", *versions]
        command += ["--references", str(folder / "references.npz"), "--out", str(folder / "out")]
        start = time.time()
        subprocess.run(command, check=True)
        wall, used = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        print("| records | classes | references | wall, s | CPU, s | peak memory, GB | load |")
        print(
            f"| {given.records} | {given.classes} | {given.references} | {wall:.0f} | "
            f"{used.ru_utime + used.ru_stime:.0f} | {used.ru_maxrss / 1e6:.1f} | {os.getloadavg()[0]:.0f} |"
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
