"""A small real example to audit: a network on digits with noise, its pruned version, and references of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from miaprune.data.readers import read_noisy_digits
from miaprune.files import FileError, write_text
from miaprune.networks.models import build
from miaprune.networks.pruning import finalise, l1

REFERENCES, SPARSITY, SEED = 8, 0.7, 7
EPOCHS, BATCH = 20, 128

README = """\
What a network on scikit-learn's digits with noise said of 1797 records, half of them its training data; what it said
after {sparsity:.0%} of its weights were pruned (l1) and it was trained on; and what {references} references of each
said, each trained on a random half of the records. Audit it:

miaprune audit original={folder}/original.npz pruned={folder}/pruned.npz \\
  --references original={folder}/references_original.npz \\
  --references pruned={folder}/references_pruned.npz --out audit
"""


def write(folder: str | Path) -> str:
    """Train the models and write what they said into a new or empty folder; returns how to audit it."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(f"{folder}: exists; name a new folder for the example")
    images, labels = read_noisy_digits()
    inputs = torch.from_numpy((images / 16).astype(np.float32))
    rng = np.random.default_rng(SEED)
    members = np.stack([_half(len(labels), rng) for _ in range(1 + REFERENCES)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # batches are small
    try:
        said = [_trained(inputs, torch.from_numpy(labels), torch.from_numpy(own), i) for i, own in enumerate(members)]
    finally:
        torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    for version, of_models in zip(("original", "pruned"), np.swapaxes(said, 0, 1), strict=True):
        np.savez(folder / f"{version}.npz", logits=of_models[0], labels=labels, members=members[0])
        np.savez(folder / f"references_{version}.npz", logits=of_models[1:], members=members[1:])
    text = README.format(folder=folder, sparsity=SPARSITY, references=REFERENCES)
    write_text(folder / "README.txt", text)
    return text


def _half(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random half of n records, bool [n]."""
    half = np.zeros(n, dtype=bool)
    half[rng.permutation(n)[: n // 2]] = True
    return half


def _trained(inputs: Tensor, labels: Tensor, members: Tensor, i: int) -> np.ndarray:
    """Logits of all records by a network trained on its members, and by its pruned version, float32 [2, n, C]."""
    model = build("fc", tuple(inputs.shape[1:]), 10, SEED + i)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED + i)
        _fit(model, inputs[members], labels[members], EPOCHS)
        original = _said(model, inputs)
        l1(model, SPARSITY)
        _fit(model, inputs[members], labels[members], EPOCHS // 2)
        finalise(model)
        return np.stack([original, _said(model, inputs)])


def _fit(model: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()


def _said(model: nn.Module, inputs: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(model.eval()(inputs).numpy())
