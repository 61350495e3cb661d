"""The command line: errors of one line that write nothing, and an audit from beginning to end."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from runner import ROOT
from synthetic import Evidence

from miaprune.__main__ import main
from miaprune.audit import running


@pytest.fixture
def files(tmp_path, monkeypatch):
    """original.npz, pruned.npz and references.npz in the working folder."""
    monkeypatch.chdir(tmp_path)
    evidence = Evidence(n=300)
    for name, gain in (("original", 0.5), ("pruned", 2.0)):
        logits = evidence.logits(evidence.members, gain)
        np.savez(f"{name}.npz", logits=logits, labels=evidence.labels, members=evidence.members)
    theirs = np.stack([evidence.logits(own, 2.0) for own in evidence.theirs])
    np.savez("references.npz", logits=theirs, members=evidence.theirs)
    return evidence


def test_the_command_is_installed_with_the_package():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"miaprune": "miaprune.__main__:main"}


def test_an_audit_from_files_to_a_report(files, monkeypatch, capsys):
    monkeypatch.setattr(running, "ATTACKS", ("conf_global", "corr", "lira", "lira_online", "samia"))
    arguments = [
        "audit",
        "original=original.npz",
        "pruned=pruned.npz",
        "--references",
        "references.npz",
        "--out",
        "out",
    ]
    assert main(arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    about = json.loads(Path("out/audit.json").read_text())
    for sentence in about["answer"]:
        assert sentence in said
    assert "pruned: not run: samia: no sensitivities" in said
    assert said.endswith("out/report.html")
    result = json.loads(Path("out/pruned/lira.json").read_text())
    assert result["provenance"]["file"] == "pruned.npz"
    assert result["provenance"]["references"]["file"] == "references.npz"
    assert len(result["provenance"]["references"]["sha256"]) == 64
    assert main(arguments) == 0  # over the first one


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["original=none.npz", "--out", "out"], "none.npz: no such file"),
        (["original.npz", "--out", "out"], "original.npz: a version is given as NAME=FILE"),
        (["original=original.npz", "original=pruned.npz", "--out", "out"], "a second file for original"),
        (["a/b=original.npz", "--out", "out"], "a version's name"),
        (["original=model.pt", "--out", "out"], "model.pt: a checkpoint or a pickle"),
        (["original=original.npz", "--references", "other=references.npz", "--out", "out"], "no version other"),
        (["original=original.npz", "--references", "none.npz", "--out", "out"], "none.npz: no such file"),
        (["original=original.npz", "--references", "pruned.npz", "--out", "out"], "they must be [K, 300, C]"),
        (["original=original.npz", "--out", "."], "has model.pt, which no audit wrote"),
        (["original=original.npz", "--out", "pruned.npz"], "a file"),
        (["original=original.npz", "pruned=other.npz", "--out", "out"], "its members differ from those of original"),
        (["--example", "."], "exists"),
    ],
)
def test_an_error_is_one_line_and_nothing_is_written(files, tmp_path, capsys, arguments, expected):
    logits = files.logits(files.members, 1.0)
    np.savez("other.npz", logits=logits, labels=files.labels, members=~files.members)
    (tmp_path / "model.pt").write_bytes(b"PK")
    before = sorted(tmp_path.rglob("*"))
    assert main(["audit", *arguments]) == 1
    said = capsys.readouterr()
    assert expected in said.err and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert said.out == "" and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments", [["audit"], ["audit", "original=original.npz"], ["audit", "--example", "a", "b=c"]]
)
def test_a_command_without_sense_says_what_would_have_some(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "miaprune audit " in capsys.readouterr().err


def test_help_and_errors_at_first_sight_import_nothing_heavy():
    for arguments in (["audit", "--help"], ["audit", "original=none.npz", "--out", "out"]):
        command = (
            "import sys; from miaprune.__main__ import main\n"
            f"try: main({arguments})\n"
            "except SystemExit: pass\n"
            "print([name for name in ('torch', 'pandas', 'scipy', 'matplotlib') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]", arguments


def test_the_example_can_be_audited_at_once(tmp_path, monkeypatch, capsys):
    from miaprune.audit import example

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(example, "EPOCHS", 2)
    monkeypatch.setattr(example, "REFERENCES", 4)
    monkeypatch.setattr(running, "ATTACKS", ("conf_global", "lira"))
    assert main(["audit", "--example", "example"]) == 0
    text = capsys.readouterr().out
    command = text[text.index("miaprune audit") :].replace("\\\n", "").split()
    assert main(command[1:]) == 0
    assert (tmp_path / "audit" / "report.html").exists()
