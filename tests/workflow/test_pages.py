"""The Python on the README and on the pages in docs/ does what is said of it."""

import re

import numpy as np
import pytest
import torch
import yaml
from runner import ROOT, Workflow, small_config
from sklearn.datasets import load_digits

from miaprune.files import load_metadata

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCKS = [text for page in PAGES for text in re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.M | re.S)]
TESTED = ("train_roles", "load_tensors", "load_file", "to_csv", "def small_cnn", "def noisy_l1")
"""A word of each block, by which its test below finds it; those of extending.md are in test_extensions.py."""


def block(word):
    (found,) = [text for text in BLOCKS if word in text]
    return found


def test_every_block_has_a_test():
    assert sorted(map(block, TESTED)) == sorted(BLOCKS)


def test_an_attack_from_python(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(small_config()))
    monkeypatch.chdir(tmp_path)
    inputs, labels = load_digits(return_X_y=True)
    exec(block("train_roles"), {"inputs": torch.tensor(inputs / 16), "labels": torch.tensor(labels)})
    assert 0.4 < float(capsys.readouterr().out) < 0.8


def test_a_victim_from_its_file(tmp_path, monkeypatch):
    workflow = Workflow(tmp_path, small_config() | {"sparsities": [0.7]})
    cell = "results/noisy_digits/fc/l1_0.7"
    done = workflow.run(f"{cell}/victim.safetensors", f"{cell}/scores.safetensors", "--config", "attacks=[rmia]")
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block("load_tensors"), names)
    data, members = names["data"], torch.from_numpy(names["members"])
    with torch.inference_mode():
        right = names["victim"](data.batch(members)).argmax(1) == data.labels[members]
    stored = load_metadata("results/noisy_digits/fc/l1_0.7/victim.safetensors")["train_accuracy"]
    assert right.double().mean().item() == pytest.approx(stored)
    exec(block("load_file"), names)
    scores = names["scores"]
    assert len(set(names["surest"].tolist())) == 10
    assert (scores["rmia"][np.isin(scores["records"], names["surest"])] >= np.sort(scores["rmia"])[-10]).all()
    assert names["mask"]["1.weight"].double().mean() == pytest.approx(0.3, abs=0.001)
