"""Results say what the design says, files are whole or absent, and tables come back as they were written."""

import dataclasses
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from conftest import make_signals

from miaprune import grid, metrics, results

MODEL = {"train_accuracy": 0.99, "dev_accuracy": 0.7, "test_accuracy": 0.6, "epoch": 12}
ORIGINAL = grid.Setting("location", "fc")
PRUNED = grid.Setting("location", "fc", "l1", "0.7")


def a_result(setting=PRUNED, attack="conf", seed=7, shift=0.0, **more):
    victim = make_signals(60, 4, 0, member_boost=1.0)
    facts = MODEL | {"achieved_sparsity": float(setting.sparsity or 0)}
    scores = victim.confidence.astype("f8") - 0.5 + shift
    return results.attack_result(setting, attack, seed, scores, victim, facts, **more)


def row(setting, attack, seed, accuracy, test_accuracy=0.6):
    result = a_result(setting, attack, seed)
    victim = result["victim"] | {"test_accuracy": test_accuracy}
    return result | {"accuracy": accuracy, "victim": victim}


def test_a_result_has_the_names_and_values_of_the_design():
    victim = make_signals(60, 4, 0, member_boost=1.0)
    scores = victim.confidence.astype("f8") - 0.5
    result = a_result()
    assert list(result) == [
        *("setting", "attack", "seed", "accuracy", "accuracy_ci", "auc", "tpr_at_fpr", "roc"),
        *("members", "non_members", "victim", "versions"),
    ]
    assert result["setting"] == {
        "dataset": "location",
        "model": "fc",
        "pruner": "l1",
        "sparsity": 0.7,
        "defense": None,
        "strength": None,
        "adversary": "matched",
    }
    assert (result["attack"], result["seed"]) == ("conf", 7)
    assert (result["members"], result["non_members"]) == (30, 30)
    assert result["accuracy"] == metrics.accuracy(scores, victim.members)
    assert result["auc"] == metrics.auc(scores, victim.members)
    assert result["tpr_at_fpr"] == {
        "0.01": metrics.tpr_at_fpr(scores, victim.members, 0.01),
        "0.001": metrics.tpr_at_fpr(scores, victim.members, 0.001),
    }
    assert result["roc"] == metrics.roc_points(scores, victim.members)
    assert result["accuracy_ci"][0] <= result["accuracy"] <= result["accuracy_ci"][1]
    assert result["victim"] == {
        "train_accuracy": 0.99,
        "test_accuracy": 0.6,
        "sparsity": 0.7,
        **metrics.gaps(victim),
    }
    assert set(result["versions"]) == {"miaprune", "torch", "numpy", "python", "scikit-learn"}


def test_an_original_has_nulls_and_a_defence_its_name():
    assert a_result(ORIGINAL)["setting"] == dict.fromkeys(results.SETTING_KEYS) | {
        "dataset": "location",
        "model": "fc",
        "adversary": "matched",
    }
    defended = a_result(defense="ppb", strength=4, adversary="unaware")["setting"]
    assert (defended["defense"], defended["strength"], defended["adversary"]) == ("ppb", 4, "unaware")


def test_the_same_job_gives_the_same_bytes(tmp_path):
    for name in "ab":
        results.write_json(tmp_path / name, a_result())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_job_draws_its_own_bootstrap(monkeypatch):
    monkeypatch.setattr(metrics, "bootstrap_interval", lambda scores, members, seed: (seed, seed))
    jobs = [{}, {"seed": 8}, {"attack": "samia"}, {"setting": ORIGINAL}, {"defense": "ppb", "strength": 4}]
    jobs += [jobs[-1] | {"adversary": "unaware"}]
    assert len({a_result(**job)["accuracy_ci"][0] for job in jobs}) == len(jobs)
    assert a_result()["accuracy_ci"] == a_result()["accuracy_ci"]


def test_json_comes_back_and_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "new" / "conf.json"
    results.write_json(path, a_result())
    assert results.read_result(path) == a_result()
    with pytest.raises(ValueError, match="JSON"):
        results.write_json(path, a_result() | {"auc": float("nan")})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        results.write_json(path, {"other": 1})
    with pytest.raises(OSError, match="disk"):
        results.write_csv(path, pd.DataFrame({"x": [1]}))
    assert results.read_result(path) == a_result()
    assert os.listdir(path.parent) == ["conf.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        (json.dumps(a_result())[:-200], "Expecting|Unterminated"),
        ("[]", "list indices|not"),
        ("{}", "lacks 'accuracy_ci'"),
        (json.dumps(a_result() | {"accuracy": 67.1}), "67.1 is no fraction"),
        (json.dumps({k: v for k, v in a_result().items() if k != "victim"}), "lacks 'victim'"),
        (json.dumps(a_result() | {"setting": {"dataset": "location"}}), "lacks 'model'"),
        (json.dumps(a_result() | {"roc": {"fpr": [0.1], "tpr": []}}), "ROC"),
    ],
)
def test_a_damaged_result_is_named_in_one_line(tmp_path, content, reason):
    path = tmp_path / "samia.json"
    path.write_text(content)
    with pytest.raises(results.ResultError, match=f"(?s)samia.json: .*({reason}).*delete it") as caught:
        results.read_result(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(results.ResultError, match=re.escape(f"snakemake {tmp_path}/x.json")):
        results.read_result(tmp_path / "x.json")
    with pytest.raises(results.ResultError, match=re.escape(f"snakemake {tmp_path}/x.csv")):
        results.read_table(tmp_path / "x.csv")


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", '"\n'])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(results.ResultError, match=r"x\.csv: not a"):
        results.read_table(tmp_path / "x.csv")


@pytest.mark.parametrize("settings", [[ORIGINAL], [PRUNED], [ORIGINAL, PRUNED]])
def test_an_attacks_table_is_the_same_after_a_file(tmp_path, settings):
    table = results.attacks_table(a_result(s, a, shift=0.01) for s in settings for a in ("conf", "samia"))
    results.write_csv(tmp_path / "attacks.csv", table)
    pd.testing.assert_frame_equal(results.read_table(tmp_path / "attacks.csv"), table, check_exact=True)


def test_an_attacks_table_has_the_names_of_the_json_flattened():
    table = results.attacks_table([a_result()])
    assert ",".join(table.columns) == (
        "dataset,model,pruner,sparsity,defense,strength,adversary,attack,seed,accuracy,accuracy_ci_lo,accuracy_ci_hi,"
        "auc,tpr_at_fpr_0.01,tpr_at_fpr_0.001,members,non_members,victim_train_accuracy,victim_test_accuracy,"
        "victim_sparsity,victim_generalization_gap,victim_confidence_gap,victim_sensitivity_gap"
    )
    result, only = a_result(), table.iloc[0]
    assert only["accuracy_ci_hi"] == result["accuracy_ci"][1]
    assert only["tpr_at_fpr_0.001"] == result["tpr_at_fpr"]["0.001"]
    assert only["victim_sensitivity_gap"] == result["victim"]["sensitivity_gap"]


def test_a_models_table_has_empty_cells_for_originals(tmp_path):
    facts = MODEL | {"role": "shadow_0", "seed": 7, "achieved_sparsity": 0.0, "layers": {}}
    table = results.models_table(dataclasses.asdict(s) | facts for s in (ORIGINAL, PRUNED))
    path = tmp_path / "models.csv"
    results.write_csv(path, table)
    assert path.read_text() == (
        "dataset,model,pruner,sparsity,defense,strength,role,epoch,train_accuracy,dev_accuracy,test_accuracy,"
        "achieved_sparsity,seed\n"
        "location,fc,,,,,shadow_0,12,0.99,0.7,0.6,0.0,7\n"
        "location,fc,l1,0.7,,,shadow_0,12,0.99,0.7,0.6,0.0,7\n"
    )
    pd.testing.assert_frame_equal(results.read_table(path), table)


def test_the_paper_table_starts_each_model_with_its_original():
    cnn = grid.Setting("digits", "cnn", "slim", "0.5")
    rows = [
        row(grid.Setting("digits", "fc", "l1", "0.5"), "samia", 7, 0.7),
        row(cnn, "samia", 7, 0.61234),
        row(grid.Setting("digits", "fc"), "samia", 7, 0.55),
        row(grid.Setting("digits", "fc"), "conf", 7, 0.5, 0.6),
        row(PRUNED, "samia", 7, 0.9),
        row(cnn, "samia", 7, 0.1) | {"setting": a_result(cnn, defense="ppb", strength=4.0)["setting"]},
    ]
    table = results.paper_table(results.attacks_table(rows), "digits")
    assert results.to_markdown(table) == (
        "| model | pruner | sparsity | test_accuracy | samia | conf |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| fc | original |  | 60.00 | 55.00 | 50.00 |\n"
        "| fc | l1 | 0.5 | 60.00 | 70.00 |  |\n"
        "| cnn | slim | 0.5 | 60.00 | 61.23 |  |\n"
    )


def test_spread_is_mean_and_sample_deviation_over_seeds():
    def frame(seed, samia, test):
        rows = [row(PRUNED, "samia", seed, samia, test), row(ORIGINAL, "samia", seed, 0.5)]
        rows += [row(PRUNED, "conf", seed, 0.8)] if seed != 9 else []
        return results.attacks_table(rows)

    table = results.spread_table([frame(7, 0.70, 0.5), frame(8, 0.72, 0.6), frame(9, 0.74, 0.7)])
    assert results.to_markdown(table).splitlines()[2:] == [
        "| location | fc | original |  | 3 | 60.0 ± 0.0 | 50.0 ± 0.0 |  |",
        "| location | fc | l1 | 0.7 | 3 | 60.0 ± 10.0 | 72.0 ± 2.0 | 80.0 ± 0.0 (2 of 3 seeds) |",
    ]
    alone = results.spread_table([frame(7, 0.7, 0.5)])
    assert list(alone["samia"]) == ["50.0", "70.0"]
    with pytest.raises(results.ResultError, match="seed 7 occurs twice"):
        results.spread_table([frame(7, 0.7, 0.5), frame(7, 0.7, 0.5)])


def test_undefended_averages_over_seeds_and_leaves_defences_out():
    rows = [row(PRUNED, "samia", seed, accuracy) for seed, accuracy in ((7, 0.6), (8, 0.8))]
    rows += [
        row(ORIGINAL, "samia", 7, 0.5),
        a_result(defense="ppb", strength=4),
        a_result(adversary="unaware"),
    ]
    table = results.undefended(results.attacks_table(rows))
    assert list(table["variant"]) == ["l1_0.7", "original"]
    assert list(table["seeds"]) == [2, 1]
    np.testing.assert_allclose(table["accuracy"], [0.7, 0.5])
    assert list(table["pruner"]) == ["l1", None]
    assert results.undefended(results.attacks_table(rows).iloc[:0]).empty


def test_the_spread_command_writes_markdown(tmp_path, capsys):
    for seed in (7, 8):
        frame = results.attacks_table([row(PRUNED, "samia", seed, 0.5 + seed / 100)])
        results.write_csv(tmp_path / f"{seed}.csv", frame)
    results.main([str(tmp_path / "spread.md"), str(tmp_path / "7.csv"), str(tmp_path / "8.csv")])
    assert "57.5 ± 0.7" in (tmp_path / "spread.md").read_text()
    with pytest.raises(SystemExit, match=r"error: .*9\.csv: no such table"):
        results.main([str(tmp_path / "spread.md"), str(tmp_path / "9.csv")])


def test_markdown_leaves_missing_cells_empty():
    frame = pd.DataFrame({"a": ["x", None], "b": [0.123456, np.nan]})
    assert results.to_markdown(frame) == "| a | b |\n| --- | --- |\n| x | 0.1235 |\n|  |  |\n"
