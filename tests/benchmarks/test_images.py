"""What benchmarks/images.py asks for and tells, without running any of it."""

import json
import signal
import subprocess
import sys
import time

import images
import ours
import pytest

from miaprune import grid

CELL = "cifar10/resnet18"


def result(auc, trained=None, tpr=0.05):
    """Of a made-up attack, what the tables are made of."""
    rate = {"tpr": tpr, "ci": [0.04, 0.06] if tpr else None}
    by = {"commit": "0123abc", "torch": "2.12.1", "device": "a card", "epochs_run": 9}
    return {
        "auc": auc,
        "auc_ci": [auc - 0.01, auc + 0.01],
        "tpr_at_fpr": {"0.01": rate},
        "trained": trained,
        "victim": {"train_accuracy": 0.99, "test_accuracy": 0.661},
        "provenance": {"victim": by},
    }


def write(folder, **found):
    folder.mkdir(parents=True)
    for attack, about in found.items():
        (folder / f"{attack}.json").write_text(json.dumps(about))


def test_every_step_asks_for_what_exists_and_nothing_twice():
    planned = images.steps(CELL, "cifar100/resnet18")
    models = [model for step in planned.values() for model in step]
    assert list(planned) == [CELL, "cifar100/resnet18", f"{CELL}/l1_0.7/adv_1", f"{CELL}/l1_0.7/dp_1"]
    assert len(models) == len(set(models)) == 12
    strengths = {(each["defense"], s) for each in ours.configuration()["defenses"] for s in each["strengths"]}
    for model in models:
        victim, _ = grid.attacked_in(model)  # or a GridError
        assert victim.defense is None or (victim.defense, float(victim.strength)) in strengths


def test_a_model_s_row_has_the_strongest_of_the_attacks_that_trained():
    found = {"samia": result(0.7, trained=True), "nn": result(0.9, trained=False), "rmia": result(0.8, tpr=None)}
    assert images.model_row("m", found) == (
        "| m | 99.0 | 66.1 | 9 | 0.700 (0.690 to 0.710) | 5.0 (4.0 to 6.0) | rmia | 0.800 (0.790 to 0.810) | - |"
    )
    assert images.model_row("m", {"nn": result(0.9, trained=False)}) == "| m | 99.0 | 66.1 | 9 | - | - | - | - | - |"
    failed = images.model_row("m", {"samia": result(0.5, trained=False)})
    assert "0.500 (0.490 to 0.510) *failed* |" in failed


def test_the_page_has_what_is_there_and_names_what_is_not(tmp_path):
    write(tmp_path / "a/original", samia=result(0.6), rmia=result(0.7))
    write(tmp_path / "a/l1_0.7", rmia=result(0.7))
    jobs = tmp_path / "benchmarks/a/original"
    jobs.mkdir(parents=True)
    (jobs / "train.tsv").write_text("s\tmax_rss\tcpu_time\n21.9\t1525.88\t30\n")
    (jobs / "attack_cheap.tsv").write_text("s\tmax_rss\tcpu_time\n0.1\tNA\tNA\n")
    (tmp_path / "benchmarks/a/original/unaware").mkdir()
    text = "\n".join(images.tables(tmp_path, ["a/original", "a/l1_0.7", "a/finetuned"], ["samia", "rmia"]))
    assert "Not run: a/l1_0.7 (samia); a/finetuned." in text
    assert "Models trained by: commit 0123abc, torch 2.12.1, a card." in text
    assert "| a/original | train | 21.9 | 30.0 | 1.6 |" in text
    assert "| all | 2 jobs | 22.0 | 30.0 | 1.6 |" in text
    nothing = "\n".join(images.tables(tmp_path / "none", ["a/original"], ["samia"]))
    assert "Not run: a/original." in nothing and "| all | 0 jobs | 0.0 | 0.0 | 0.0 |" in nothing


def test_steps_end_with_the_time(capsys):
    def too_long(left):
        raise subprocess.TimeoutExpired("snakemake", left)

    def interrupted(left):
        raise KeyboardInterrupt

    began = time.monotonic()
    todo = {"first": lambda left: "done", "second": too_long, "third": interrupted, "fourth": lambda left: "done"}
    assert [line.split(" after")[0] for line in images.take(todo, 60, began)] == [
        "first: done", "second: stopped", "third: stopped", "fourth: not begun"
    ]  # fmt: skip
    assert capsys.readouterr().out == "0:00:00 first\n0:00:00 second\n0:00:00 third\n"
    assert list(images.take(todo, 0, began)) == [f"{name}: not begun" for name in todo]


def test_what_is_not_there_is_told_before_anything_is_run(tmp_path):
    here = ["--device", "cpu", "--data-dir", str(tmp_path)]
    for cells, told in (
        (["digits/nonsuch"], "nonsuch"),
        (["digits/fc"], "slim"),
        ([CELL], r"cifar-10-python\.tar\.gz"),
    ):
        with pytest.raises(SystemExit, match=told):
            images.main([*here, "--cells", *cells])


def test_at_its_limit_a_command_ends_with_all_that_it_started(tmp_path):
    """Also where this process ignores Ctrl-C, as a shell's background jobs do."""
    job, started, told = (tmp_path / name for name in ("job.py", "started", "told"))
    job.write_text(
        "import pathlib, time\n"
        f"try:\n    pathlib.Path({str(started)!r}).touch()\n    time.sleep(60)\n"
        f"except KeyboardInterrupt:\n    pathlib.Path({str(told)!r}).touch()\n"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for limit in (1, 5, 30):  # a loaded machine starts it late
            with pytest.raises(subprocess.TimeoutExpired):
                ours.run(["sh", "-c", f"{sys.executable} {job}; true"], limit)
            if started.exists():
                break
    finally:
        signal.signal(signal.SIGINT, before)
    assert told.exists()
