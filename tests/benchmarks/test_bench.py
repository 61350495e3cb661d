"""The benchmarks' code on tiny data, so that it cannot rot. Nothing here asserts a time."""

import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import baseline
import bench
import hours
import memory
import numpy as np
import ours
import pytest
import recipes
import torch
import work
from synthetic import make_signals

from miaprune import grid, signals
from miaprune.attacks import attack, neural
from miaprune.attacks.thresholds import best_threshold
from miaprune.data import splits
from miaprune.files import save_tensors


def tiny():
    """Changes of config.yaml: two epochs of everything."""
    config = ours.configuration()
    stages = {stage: config[stage] | {"epochs": {"image": 2, "table": 2}} for stage in ("training", "finetuning")}
    recipes = {
        name: recipe | {"epochs": {"samia": 2, "nn": 2}, "least_steps": 1}
        for name, recipe in config["attack_recipes"].items()
    }
    return stages | {"attack_recipes": recipes, "datasets": ["location"], "device": "cpu"}


@pytest.fixture(scope="module")
def data():
    return ours.generated("digits", records=200)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(baseline, "WORKERS", 0)
    monkeypatch.setattr(neural, "REFITS", 0)
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    yield  # a benchmark sets its process up as a job's; the next tests are in it too
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = tf32


def test_baseline_and_ours_find_the_same_thresholds_and_scores():
    shadows, victim = make_signals(300, 4, 0, member_boost=1.0), make_signals(100, 4, 1, member_boost=1.0)
    for name in grid.THRESHOLD_ATTACKS:
        scores = attack(name).score(attack(name).fit(shadows, {}, 0, "cpu"), victim, {}, 0, "cpu")
        theirs = baseline.threshold_attack(name, shadows, victim)
        np.testing.assert_array_equal(theirs >= 0, scores >= 0, err_msg=name)
    values = np.round(shadows.confidence.astype(float), 1)
    ties = baseline.best_threshold(np.sort(values), shadows.members[np.argsort(values)])
    assert ties == best_threshold(values, shadows.members)


def test_baseline_signals_are_ours(data, tmp_path):
    """Posteriors alike to rounding, sensitivities to what other noise makes of them."""
    cell = baseline.Cell(data, "fc", 0.7, ours.configuration(tiny()), tmp_path, "cpu")
    baseline.train_originals(cell)
    found = baseline.query(cell, "original", "victim", with_sensitivity=True)
    part = splits.of_role("victim", len(data), 7)
    expected = signals.measure(baseline.load(cell, "original", "victim"), data, part, 10, 1e-3, 0)
    np.testing.assert_allclose(found.posteriors, expected.posteriors, atol=1e-6)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.members, expected.members)
    assert np.mean(found.sensitivities) == pytest.approx(np.mean(expected.sensitivities), rel=0.1)


def test_baseline_attacks_the_models_that_it_is_given(data, tmp_path):
    parts = [splits.of_role(role, len(data), 7) for role in grid.ROLES]
    recipe = {"epochs": 2, "learning_rate": 1e-3, "weight_decay": 0.0, "batch_size": 64, "patience": 5}
    originals, _ = ours.train_models(data, "fc", parts, recipe, 0)
    pruned, _ = ours.train_models(data, "fc", parts, recipe, 0, originals)
    for role, model in zip(grid.ROLES, pruned, strict=True):
        save_tensors(tmp_path / f"{role}.safetensors", model.state_dict(), {})
    given = baseline.Cell(data, "fc", 0.7, ours.configuration(), tmp_path / "own", "cpu", attacked=tmp_path)
    for role, model, part in zip(grid.ROLES, pruned, parts, strict=True):
        found = baseline.query(given, "l1_0.7", role, with_sensitivity=False)
        expected = signals.measure(model, data, part, 1, 1e-3, 0)
        np.testing.assert_allclose(found.posteriors, expected.posteriors, atol=1e-6)
        np.testing.assert_array_equal(found.members, expected.members)


def test_baseline_runs_a_cell_and_keeps_the_masks(data, tmp_path):
    cell = baseline.run(baseline.Cell(data, "fc", 0.7, ours.configuration(tiny()), tmp_path, "cpu"))
    assert set(cell.seconds) == set(bench.PHASES)
    assert set(cell.attacks) == set(grid.ATTACKS) - {"blindmi", *grid.REFERENCE_ATTACKS}
    assert cell.epochs == {"originals": 12, "pruned": 12} | dict.fromkeys(grid.NEURAL_ATTACKS, 2)
    pruned = baseline.load(cell, "l1_0.7", "victim")
    pruned(data.batch(torch.arange(2)))  # torch applies masks when a module is called
    for module in baseline.prunable(pruned):
        assert (module.weight == 0).sum() == int(module.weight.numel() * 0.7)


@pytest.mark.workflow
def test_the_whole_benchmark_runs(tmp_path, monkeypatch):
    """The real workflow beside the baseline; the grid's hours by costs made up, as another test measures some."""
    monkeypatch.setattr(hours, "start_up", lambda device: (1.0, 0.5))
    monkeypatch.setattr(hours, "model_costs", lambda *_: dict.fromkeys(hours.PHASES, hours.Cost(1.0)))
    monkeypatch.setattr(hours, "attack_costs", lambda *_: dict.fromkeys(grid.ATTACKS, (hours.Cost(1.0),) * 2))
    ours.write_generated("digits", tmp_path / "digits/digits.safetensors", records=300)
    options = ["--gpu", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out.md")]
    args = bench.parse([*options, "--records", "100", "--baseline-epochs", "2"])
    bench.main(args, tiny())
    text = (tmp_path / "out.md").read_text()
    titles = (
        "extrapolated",
        "share of peak",
        "location | fc",
        "The whole grid",
        "measured s",
        "All of it took",
    )
    for title in (*bench.PHASES.values(), *titles):
        assert title in text


def test_only_an_accuracy_below_both_intervals_is_worse():
    fine = {"victim": (0.60, (0.55, 0.65)), "samia": (0.70, (0.65, 0.75))}
    below = fine | {"samia": (0.60, (0.56, 0.64))}
    above = fine | {"samia": (0.90, (0.88, 0.92))}
    assert bench.accuracy_table(fine, {"ours": fine})[1] == bench.accuracy_table(fine, {"ours": above})[1] == []
    assert bench.accuracy_table(fine, {"ours": below})[1] == ["samia (ours)"]


def test_flops_of_a_linear_network(data):
    """fc is 64-256-128-10: a product with an n x m matrix is 2nm; a step has one more for each layer's weights and
    for its inputs, but for the first layer's inputs, which need no gradient."""
    products = [2 * 64 * 256, 2 * 256 * 128, 2 * 128 * 10]
    forward, step = work.of_model("fc", data.input_shape, data.classes)
    assert forward == sum(products)
    assert step == 3 * sum(products) - products[0]


def test_hours_of_chosen_pairs_are_estimated(tmp_path, monkeypatch, capsys):
    config = ours.configuration(tiny())
    monkeypatch.setattr(ours, "configuration", lambda changes: config | changes)
    hours.main(["--datasets", "location", "--records", "100", "--out", str(tmp_path / "hours.md")])
    text = (tmp_path / "hours.md").read_text()
    assert text.strip() in capsys.readouterr().out
    row, *defended = (line.split("|") for line in text.splitlines() if line.startswith("| location | fc |"))
    *seconds, count, total = map(float, row[3:-1])
    assert len(seconds) == len(hours.PHASES) == len(bench.PHASES) and count == 5
    assert f"One job at a time: {total:.2f} hours at the configured epochs" in text and "training stops" not in text
    assert [(cells[3].strip(), int(cells[5])) for cells in defended] == [("ppb", 25), ("adv", 15), ("dp", 15)]
    told = float(re.search(r"The defended settings: (\S+) hours", text)[1])
    assert told == pytest.approx(sum(float(cells[6]) for cells in defended), abs=0.02), "rows are rounded"


def test_a_pace_is_that_of_late_epochs_and_the_final_evaluation_is_told_apart():
    clock, now = hours.Clock(), 0.0
    for epoch in range(6):
        for _ in range(10):
            now += 5.0 if epoch < 2 else 0.25  # slow until its steps are captured
            clock.steps.append(now)
        now += 1.5  # the epoch's evaluation
    clock.end = now + 7.0
    assert clock.pace(6) == pytest.approx(10 * 0.25 + 1.5)
    assert clock.final(6) == pytest.approx(7.0 - 0.25), "but for a step, as the first is timed at its end"


def test_an_estimate_of_what_was_measured_is_what_it_took(monkeypatch):
    """Trainings on a clock of their own: 3 s once, 10 steps of 0.1 s an epoch, 0.5 to evaluate it, 2 at the end."""
    now = [0.0]
    monkeypatch.setattr(ours, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(hours, "time", ours.time)

    def training(data, model, parts, recipe, seed, originals, objective, slot):
        for clock in map(slot, grid.ROLES):
            now[0] += 3.0
            for _ in range(recipe["epochs"]):
                for _ in range(10):
                    now[0] += 0.1
                    clock.step(None)
                now[0] += 0.5
            now[0] += 2.0
            clock.finish(None)
        return [None] * len(grid.ROLES), []

    def measuring(trained, data, parts, config, seed):
        now[0] += 0.25

    monkeypatch.setattr(ours, "train_models", training)
    monkeypatch.setattr(ours, "measure", measuring)
    costs, epochs = hours.model_costs("location", "fc", ours.configuration(), "cpu", 200), hours.EPOCHS
    for phase in hours.STAGES:
        assert costs[phase].of(200, epochs) == pytest.approx(6 * (3 + 1.5 * epochs + 2))
        assert costs[phase].of(2000, 10) == pytest.approx(6 * (3 + 15 * 10 + 20), abs=10 * 6 * 0.1), "but for a step"
    assert costs["signals"].of(200) == pytest.approx(6 * 0.25)


def test_the_cost_of_trainings_side_by_side():
    """Six take steps in turn: 3 s once, 10 rounds of 0.1 s an epoch, 0.5 to evaluate them, 2 at the end."""
    clocks, now = [hours.Clock() for _ in range(6)], 3.0
    for _ in range(8):
        for _ in range(10):
            for clock in clocks:
                now += 0.1 / 6
                clock.steps.append(now)
        now += 0.5
    for clock in clocks:
        now += 2.0 / 6
        clock.end = now
    cost = hours.training_cost(now, clocks, epochs=8, records=200, side_by_side=True)
    assert cost.of(200, 8) == pytest.approx(now)
    assert cost.of(2000, 20) == pytest.approx(3 + 10 * 20 * 1.5 + 20, abs=10 * 0.1)


def test_every_stage_of_memory_runs(tmp_path, monkeypatch):
    dataset = "digits"
    monkeypatch.setitem(memory.CELLS, dataset, "fc")
    monkeypatch.setattr(memory, "FIT_SECONDS", 0.2)
    ours.write_generated(dataset, tmp_path / "prepared.safetensors", records=1200)
    for name, (stage, _) in memory.STAGES.items():
        if name != "prepare":
            stage(dataset, tmp_path)
    found = signals.load(tmp_path / "signals.safetensors", "victim")
    part = splits.of_role("victim", 1200, 7)
    assert len(found) == len(part.train) + len(part.test)


def test_generated_data_can_be_learnt():
    data = ours.generated("location", records=600, classes=5)
    assert data.input_shape == (446,) and data.classes == 5 and len(data) == 600
    assert set(data.batch(torch.arange(600)).unique().tolist()) == {0.0, 1.0}
    recipe = ours.configuration()["training"] | {"epochs": 10}
    _, facts = ours.train_models(data, "fc", [splits.of_role("victim", 600, 7)], recipe, 0)
    assert facts[0]["test_accuracy"] > 0.4, "twice guessing"


def test_recipes_are_compared_on_the_same_signals_and_computed_once(tmp_path, monkeypatch, capsys):
    for seed in (7, 8):
        signals_of_six = {role: make_signals(60, 4, seed + i, 1.0) for i, role in enumerate(grid.ROLES)}
        folder = tmp_path / f"run_{seed}/digits/fc/original"
        folder.mkdir(parents=True)
        signals.save(folder / "signals.safetensors", signals_of_six, {role: {"seed": seed} for role in grid.ROLES})
    config = ours.configuration(tiny())
    monkeypatch.setattr(ours, "configuration", lambda: config)
    arguments = [str(tmp_path / "run_7"), str(tmp_path / "run_8"), "--table", str(tmp_path / "table.md")]
    recipes.main(arguments)
    summary, rows = (part.splitlines()[2:] for part in (tmp_path / "table.md").read_text().split("\n\n"))
    assert [row.split(" | ")[0] for row in summary] == [f"| {name}" for name in grid.NEURAL_ATTACKS]
    assert [row.split(" | ")[1] for row in rows] == list(grid.NEURAL_ATTACKS)
    assert capsys.readouterr().out.count(" s\n") == 2 * 2 * 4
    recipes.main(arguments)
    assert " s\n" not in capsys.readouterr().out
    signals.save(folder / "signals.safetensors", signals_of_six, {role: {"seed": 9} for role in grid.ROLES})
    recipes.main(arguments)
    assert capsys.readouterr().out.count(" s\n") == 2 * 4, "run_8's signals changed"


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    for run, seed in (("run_7", 7), ("again", 7)):
        (tmp_path / run / "digits/fc/original").mkdir(parents=True)
        six = {role: make_signals(8, 4, i, 1.0) for i, role in enumerate(grid.ROLES)}
        facts = {role: {"seed": seed} for role in grid.ROLES}
        signals.save(tmp_path / run / "digits/fc/original/signals.safetensors", six, facts)
    for other, told in (
        ("again", "another than the others"),
        ("nonsuch", "nonsuch: lacks the signals of digits/fc/or"),
    ):
        with pytest.raises(SystemExit, match=told):
            recipes.main([str(tmp_path / "run_7"), str(tmp_path / other)])


def test_what_cannot_be_compared_is_refused_before_anything_is_run(tmp_path, capsys):
    for script, wrong, told in (
        (bench.parse, ["--recipes", "fast", "fast"], "fast is given twice"),
        (bench.parse, ["--recipes", "nonsuch"], "invalid choice: 'nonsuch'"),
        (bench.parse, ["--out", str(tmp_path / "none" / "page.md")], "cannot be written"),
        (hours.main, ["--out", str(tmp_path)], "cannot be written"),
        (recipes.main, ["run", "--attacks", "nn", "nn"], "--attacks: nn is given twice"),
        (recipes.main, ["run", "--recipes", "fast"], "two or more, to compare"),
        (recipes.main, ["run", "--recipes", "fast", "nonsuch"], "invalid choice: 'nonsuch'"),
        (recipes.main, ["run", "--table", str(tmp_path)], "cannot be written"),
    ):
        with pytest.raises(SystemExit):
            script(wrong)
        assert told in capsys.readouterr().err
    with pytest.raises(SystemExit, match="model cnn does not take location"):
        bench.parse(["--dataset", "location", "--model", "cnn"])
    with pytest.raises(SystemExit, match=r"cifar-10-python\.tar\.gz"):  # where to get it, and where to put it
        bench.main(bench.parse(["--dataset", "cifar10", "--data-dir", str(tmp_path), "--out", str(tmp_path / "o.md")]))
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="Not a directory"):
        bench.main(bench.parse(["--data-dir", str(tmp_path / "file"), "--out", str(tmp_path / "o.md")]))


def test_a_benchmark_that_is_stopped_stops_its_workflow(tmp_path, monkeypatch):
    snakemake, started, told = (tmp_path / name for name in ("python", "started", "told"))
    script = f"trap 'kill $!; touch {told}; exit' INT; sleep 60 & touch {started}; wait"
    snakemake.write_text(f"#!/bin/sh\n{script}\n")
    snakemake.chmod(0o755)
    monkeypatch.setattr(ours.sys, "executable", str(snakemake))

    def stop(*_):
        if started.exists():
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.exit("stopped")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        with pytest.raises(SystemExit, match="stopped"):
            ours.snakemake(tmp_path, {}, "nothing")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert told.exists()


def test_it_starts_as_a_script():
    """Where pytest's own search path is not in force."""
    done = subprocess.run([sys.executable, bench.__file__, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
