"""The Python on the README and on the pages in docs/ does what is said of it."""

import re

import numpy as np
import pytest
import torch
import yaml
from runner import ROOT, Workflow, small_config
from sklearn.datasets import load_digits

from miaprune.__main__ import main
from miaprune.audit import running
from miaprune.files import load_metadata

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCKS = [text for page in PAGES for text in re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.M | re.S)]
TESTED = (
    "train_roles",
    "load_tensors",
    "load_file",
    "to_csv",
    "def small_cnn",
    "def noisy_l1",
    "RandomForestClassifier",
    "weights_only",
)
"""A word of each block, by which its test below finds it; those of extending.md are in test_runs_with_extensions.py."""


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


@pytest.fixture
def thresholds_and_references(monkeypatch):
    """Audits without networks, which take most of the time."""
    monkeypatch.setattr(running, "ATTACKS", ("conf_global", "mentr", "lira", "rmia_online"))


def test_an_audit_from_files(tmp_path, monkeypatch, capsys, thresholds_and_references):
    monkeypatch.chdir(tmp_path)
    exec(block("RandomForestClassifier"), {})
    page = (ROOT / "docs/audit.md").read_text().replace("\\\n", "")
    commands = re.findall(r"^ +\.venv/bin/miaprune (audit original=.*)$", page, flags=re.M)
    assert len(commands) == 2
    aucs = []
    for command in commands:
        assert main(command.split()) == 0
        said = " ".join(capsys.readouterr().out.split())
        aucs.append(float(re.search(r"^original: .*? AUC of ([\d.]+) ", said)[1]))
    assert aucs == pytest.approx([0.589, 0.789], abs=0.03)  # the page's


def test_an_audit_of_a_network(tmp_path, monkeypatch, capsys, thresholds_and_references):
    monkeypatch.chdir(tmp_path)
    inputs, labels = load_digits(return_X_y=True)
    model, members = torch.nn.Linear(64, 10), np.arange(len(labels)) % 2 == 0
    torch.save(model.state_dict(), "model.pt")
    exec(block("weights_only"), {"model": model, "inputs": inputs / 16, "labels": labels, "members": members})
    first, strongest = capsys.readouterr().out.splitlines()
    assert 0.4 < float(first) < 0.6 and strongest.split()[0] in running.ATTACKS  # it was not trained
    assert (tmp_path / "audit" / "report.html").exists()


def test_a_victim_from_its_file(tmp_path, monkeypatch):
    workflow = Workflow(tmp_path, small_config() | {"sparsities": [0.5]})
    cell = "results/noisy_digits/fc/l1_0.5"
    done = workflow.run(f"{cell}/victim.safetensors", f"{cell}/scores.safetensors", "--config", "attacks=[rmia]")
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block("load_tensors"), names)
    data, members = names["data"], torch.from_numpy(names["members"])
    with torch.inference_mode():
        right = names["victim"](data.batch(members)).argmax(1) == data.labels[members]
    stored = load_metadata("results/noisy_digits/fc/l1_0.5/victim.safetensors")["train_accuracy"]
    assert right.double().mean().item() == pytest.approx(stored)
    exec(block("load_file"), names)
    scores = names["scores"]
    assert len(set(names["surest"].tolist())) == 10
    assert (scores["rmia"][np.isin(scores["records"], names["surest"])] >= np.sort(scores["rmia"])[-10]).all()
    assert names["mask"]["1.weight"].double().mean() == pytest.approx(0.5, abs=0.001)
