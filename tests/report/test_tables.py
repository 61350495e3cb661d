"""Tables come back from a file as they were written, and those for people show what they should."""

import os
import re
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from test_results import DEFENDED, MODEL, ORIGINAL, PRIVATE, PRUNED, a_result

from miaprune import grid
from miaprune.report import answer, tables
from miaprune.report.results import ResultError


def row(setting, attack, seed, accuracy, test_accuracy=0.6, adversary="matched"):
    result = a_result(setting, attack, seed, adversary=adversary)
    victim = result["victim"] | {"test_accuracy": test_accuracy}
    return result | {"accuracy": accuracy, "auc": accuracy + 0.05, "victim": victim}


def test_a_missing_table_says_how_to_make_it(tmp_path):
    with pytest.raises(ResultError, match=re.escape(f"snakemake {tmp_path}/x.csv")):
        tables.read_table(tmp_path / "x.csv")


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    path.write_text("a\n1\n")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        tables.write_csv(path, pd.DataFrame({"x": [1]}))
    assert os.listdir(tmp_path) == ["x.csv"]
    assert path.read_text() == "a\n1\n"


ROW = tables.attacks_table([row(ORIGINAL, "conf", 7, 0.6)])
NO_TESTS = ROW.drop(columns="victim_test_accuracy").to_csv(index=False)
WORDS = ROW.astype({"accuracy": object}).assign(accuracy="high").to_csv(index=False)


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", '"\n', NO_TESTS, WORDS])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(ResultError, match=r"x\.csv: not a"):
        tables.read_table(tmp_path / "x.csv")


@pytest.mark.parametrize("settings", [[ORIGINAL], [PRUNED], [DEFENDED, ORIGINAL, PRIVATE]])
def test_an_attacks_table_is_the_same_after_a_file(tmp_path, settings):
    found = [a_result(s, a, shift=0.01) for s in settings for a in ("conf", "samia")]
    for commit in ("12345e678901", "012345678901", None):
        for result in found:
            result["versions"] = result["versions"] | {"commit": commit}
        table = tables.attacks_table(found)
        tables.write_csv(tmp_path / "attacks.csv", table)
        pd.testing.assert_frame_equal(tables.read_table(tmp_path / "attacks.csv"), table, check_exact=True)


def test_a_sparsity_is_written_as_in_paths():
    table = tables.attacks_table([a_result(replace(PRUNED, sparsity="0.9921875"), "conf")])
    assert tables.sound(table)["variant"].tolist() == ["l1_0.9921875"]


def test_names_that_pandas_takes_for_missing_values_are_names(tmp_path):
    table = tables.attacks_table([a_result(replace(PRUNED, pruner="NA")) | {"attack": "null"}])
    tables.write_csv(tmp_path / "attacks.csv", table)
    pd.testing.assert_frame_equal(tables.read_table(tmp_path / "attacks.csv"), table)


def test_an_attacks_table_has_the_names_of_the_json_flattened():
    table = tables.attacks_table([a_result()])
    assert ",".join(table.columns) == (
        "dataset,model,pruner,sparsity,tuning,defense,strength,adversary,attack,seed,accuracy,accuracy_ci_lo,"
        "accuracy_ci_hi,auc,auc_ci_lo,auc_ci_hi,tpr_at_fpr_0.01,tpr_at_fpr_0.01_ci_lo,tpr_at_fpr_0.01_ci_hi,"
        "tpr_at_fpr_0.01_false_positives,tpr_at_fpr_0.001,tpr_at_fpr_0.001_ci_lo,tpr_at_fpr_0.001_ci_hi,"
        "tpr_at_fpr_0.001_false_positives,members,non_members,references,trained,failed,"
        "victim_train_accuracy,victim_test_accuracy,"
        "victim_sparsity,victim_generalization_gap,victim_confidence_gap,victim_sensitivity_gap,victim_epsilon,"
        "victim_delta,versions_commit"
    )
    result, only = a_result(), table.iloc[0]
    assert only["accuracy_ci_hi"] == result["accuracy_ci"][1]
    assert pd.isna(only["tpr_at_fpr_0.001"]) and only["tpr_at_fpr_0.001_false_positives"] == 0
    assert only["victim_sensitivity_gap"] == result["victim"]["sensitivity_gap"]


def test_a_models_table_has_empty_cells_where_nothing_applies(tmp_path):
    facts = MODEL | {"role": "shadow_0", "seed": 7, "achieved_sparsity": 0.0, "layers": {}}
    table = tables.models_table(asdict(s) | facts for s in (ORIGINAL, PRUNED, DEFENDED))
    path = tmp_path / "models.csv"
    tables.write_csv(path, table)
    assert path.read_text() == (
        "dataset,model,pruner,sparsity,tuning,defense,strength,role,epoch,train_accuracy,dev_accuracy,test_accuracy,"
        "majority_accuracy,learnt,achieved_sparsity,seed\n"
        "location,fc,,,,,,shadow_0,12,0.99,0.7,0.6,,,0.0,7\n"
        "location,fc,l1,0.7,,,,shadow_0,12,0.99,0.7,0.6,,,0.0,7\n"
        "location,fc,l1,0.7,,ppb,4.0,shadow_0,12,0.99,0.7,0.6,,,0.0,7\n"
    )
    pd.testing.assert_frame_equal(tables.read_table(path), table)


def test_settings_with_models_that_learnt_nothing_are_named():
    found = [(ORIGINAL, True), (ORIGINAL, True), (PRUNED, False), (PRUNED, False), (DEFENDED, False), (DEFENDED, True)]
    facts = [MODEL | {"role": "victim", "seed": 7, "learnt": learnt} for _, learnt in found]
    rows = [asdict(setting) | one for (setting, _), one in zip(found, facts, strict=True)]
    assert tables.learnt_nothing(tables.models_table(rows)) == [
        "location/fc/l1_0.7 (2 of 2)",
        "location/fc/l1_0.7/ppb_4 (1 of 2)",
    ]
    unknown = [{**row, "learnt": None} for row in rows]  # checkpoints from before it was kept
    assert tables.learnt_nothing(tables.models_table(unknown)) == []


def test_the_paper_table_starts_each_model_with_its_original():
    cnn = grid.Setting("digits", "cnn", "slim", "0.5")
    rows = [
        row(grid.Setting("digits", "fc", "l1", "0.5"), "samia", 7, 0.7),
        row(cnn, "samia", 7, 0.61234),
        row(grid.Setting("digits", "fc"), "samia", 7, 0.55),
        row(grid.Setting("digits", "fc"), "conf", 7, 0.5, 0.6),
        row(PRUNED, "samia", 7, 0.9),
        row(replace(cnn, defense="ppb", strength="4"), "samia", 7, 0.1),
        row(cnn, "samia", 7, 0.2, adversary="shadows_l1_0.5"),
    ]
    table = tables.paper_table(tables.attacks_table(rows), "digits")
    assert tables.to_markdown(table) == (
        "| model | pruner | sparsity | test_accuracy | samia | conf | strongest |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| fc | original |  | 60.00 | 55.00 | 50.00 | 0.600 (samia) |\n"
        "| fc | l1 | 0.5 | 60.00 | 70.00 |  | 0.750 (samia) |\n"
        "| cnn | slim | 0.5 | 60.00 | 61.23 |  | 0.662 (samia) |\n"
    )


def test_the_widest_interval_of_one_seed_is_stated():
    result = row(PRUNED, "samia", 7, 0.6) | {"accuracy_ci": [0.58, 0.62]}
    assert tables.precision(tables.attacks_table([result])) == "at most ±2.0 points"


def test_undefended_averages_over_seeds_and_leaves_defences_out():
    rows = [row(PRUNED, "samia", seed, accuracy) for seed, accuracy in ((7, 0.6), (8, 0.8))]
    rows += [row(ORIGINAL, "samia", 7, 0.5), a_result(DEFENDED), a_result(DEFENDED, adversary="unaware")]
    rows += [a_result(adversary="shadows_l1_0.5")]
    table = tables.undefended(tables.attacks_table(rows))
    assert list(table["variant"]) == ["l1_0.7", "original"]
    assert list(table["seeds"]) == [2, 1]
    np.testing.assert_allclose(table["accuracy"], [0.7, 0.5])
    assert list(table["pruner"]) == ["l1", None]
    assert tables.undefended(tables.attacks_table(rows).iloc[:0]).empty


def test_seeds_are_averaged_within_a_setting_and_an_adversary():
    rows = [
        row(setting, "samia", seed, accuracy + seed / 100, adversary=adversary)
        for setting, adversary, accuracy in (
            (PRUNED, "matched", 0.7),
            (PRUNED, "shadows_l1_0.5", 0.6),
            (DEFENDED, "matched", 0.5),
            (DEFENDED, "unaware", 0.4),
            (replace(DEFENDED, strength="16"), "unaware", 0.3),
        )
        for seed in (1, 2, 3)
    ]
    table = tables.over_seeds(tables.attacks_table(rows))
    np.testing.assert_allclose(table["accuracy"], [0.72, 0.62, 0.52, 0.42, 0.32])
    assert list(table["seeds"]) == [3] * 5
    assert set(table["variant"]) == {"l1_0.7"}
    assert list(table["sparsity"]) == [0.7] * 5  # exactly: a mean of three would be off by a bit
    assert list(table["defense"]) == [None, None, "ppb", "ppb", "ppb"]


def test_the_defence_table_shows_each_defended_setting_undefended_first():
    low, other = (replace(PRUNED, sparsity=s) for s in ("0.5", "0.9"))
    strong = replace(DEFENDED, strength="16")
    rows = [
        row(strong, "samia", 7, 0.52, 0.40),
        row(DEFENDED, "samia", 7, 0.60, 0.57),
        row(DEFENDED, "samia", 8, 0.62, 0.58),
        *(row(DEFENDED, name, 7, accuracy, 0.57) for name, accuracy in (("conf", 0.63), ("nn", 0.61))),
        *(row(DEFENDED, name, 7, accuracy, 0.57, "unaware") for name, accuracy in (("conf", 0.55), ("nn", 0.56))),
        row(PRIVATE, "samia", 7, 0.51, 0.30, "unaware"),
        row(PRUNED, "samia", 7, 0.70),
        row(PRUNED, "nn", 7, 0.68),
        row(PRUNED, "samia", 7, 0.99, adversary="shadows_l1_0.5"),
        row(low, "samia", 7, 0.99),  # never defended: not in this table
        row(replace(other, defense="ppb", strength="4"), "samia", 7, 0.65),  # its undefended results are missing
        row(ORIGINAL, "samia", 7, 0.99),
        row(replace(DEFENDED, dataset="texas"), "samia", 7, 0.99),
    ]
    table = tables.defense_table(tables.attacks_table(rows), "location")
    assert list(table.columns) == [
        *("model", "pruner", "sparsity", "defense", "strength", "seeds", "test_accuracy", "epsilon"),
        *("samia adaptive", "strongest adaptive", "samia unaware", "strongest unaware"),
    ]
    assert tables.to_markdown(table).splitlines()[2:] == [
        "| fc | l1 | 0.7 | none |  | 1 | 60.00 |  | 70.00 | 0.750 (samia) | 70.00 | 0.750 (samia) |",
        "| fc | l1 | 0.7 | ppb | 4 | 2 | 57.5 ± 0.7 |  | 61.0 ± 1.4 | 0.680 (conf; 1 of 2 seeds) |  | 0.610 (nn) |",
        "| fc | l1 | 0.7 | ppb | 16 | 1 | 40.00 |  | 52.00 | 0.570 (samia) |  |  |",
        "| fc | l1 | 0.7 | dp | 0.5 | 1 | 30.00 | 3.25 |  |  | 51.00 | 0.560 (samia) |",
        "| fc | l1 | 0.9 | ppb | 4 | 1 | 60.00 |  | 65.00 | 0.700 (samia) |  |  |",
    ]
    one = tables.defense_table(tables.attacks_table([row for row in rows if row["seed"] == 7]), "location")
    assert "seeds" not in one and list(one["samia adaptive"])[:2] == ["70.00", "60.00"]


@pytest.mark.parametrize("setting", [None, ORIGINAL, PRUNED])
def test_without_defences_the_defence_table_has_columns_but_no_rows(setting):
    table = tables.attacks_table([a_result(setting or PRUNED)])
    table = tables.defense_table(table.iloc[:0] if setting is None else table, "location")
    assert table.empty
    assert "samia unaware" in table.columns


def test_several_seeds_are_mean_and_sample_deviation():
    rows = []
    for seed, samia, test in ((7, 0.70, 0.5), (8, 0.72, 0.6), (9, 0.74, 0.7)):
        rows += [row(PRUNED, "samia", seed, samia, test), row(ORIGINAL, "samia", seed, 0.5)]
        rows += [row(PRUNED, "conf", seed, 0.8, test)] if seed != 9 else []
    fewer = "(conf; 2 of 3 seeds)"
    assert tables.to_markdown(tables.paper_table(tables.attacks_table(rows), "location")).splitlines() == [
        "| model | pruner | sparsity | seeds | test_accuracy | samia | conf | strongest |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| fc | original |  | 3 | 60.0 ± 0.0 | 50.0 ± 0.0 |  | 0.550 ± 0.000 (samia) |",
        f"| fc | l1 | 0.7 | 3 | 60.0 ± 10.0 | 72.0 ± 2.0 | 80.0 ± 0.0 (2 of 3 seeds) | 0.850 ± 0.000 {fewer} |",
    ]
    rows[0] |= {"failed": ["attack"]}  # samia on the pruned model, of seed 7
    table = tables.paper_table(tables.attacks_table(rows), "location")
    assert table["samia"][1] == "73.0 ± 1.4 (2 of 3 seeds)"
    for result in rows:
        if result["attack"] == "samia" and result["setting"]["pruner"]:
            result["failed"] = ["attack"]
    table = tables.paper_table(tables.attacks_table(rows), "location")
    assert (table["samia"][1], table["strongest"][1]) == ("failed", "0.850 ± 0.000 (conf; 2 of 3 seeds; 1 failed)")


FINETUNED = replace(ORIGINAL, tuning="finetuned")
UNTUNED = replace(PRUNED, tuning="untuned")
DRAWN = replace(PRUNED, pruner="random")


def test_the_controls_stand_beside_the_pruned_models_of_the_same_sparsity():
    settings = [DRAWN, UNTUNED, replace(DRAWN, sparsity="0.5"), FINETUNED, PRUNED, ORIGINAL, DEFENDED]
    settings += [replace(PRUNED, sparsity="0.5"), replace(PRUNED, sparsity="0.9"), replace(ORIGINAL, dataset="texas")]
    rows = [row(s, "samia", 7, 0.6) for s in settings]
    table = tables.controls_table(tables.attacks_table(rows), "location")
    assert list(table.columns) == ["model", "pruner", "sparsity", "test_accuracy", "samia", "strongest"]
    assert list(table[["pruner", "sparsity"]].itertuples(index=False, name=None)) == [
        *(("original", ""), ("finetuned", ""), ("l1", "0.5"), ("random", "0.5")),
        *(("l1", "0.7"), ("l1/untuned", "0.7"), ("random", "0.7")),
    ]
    assert tables.controls_table(tables.attacks_table([row(PRUNED, "samia", 7, 0.6)]), "location").empty


def test_the_papers_table_and_the_findings_are_without_controls():
    sound = [row(ORIGINAL, "samia", 7, 0.55), row(PRUNED, "samia", 7, 0.6)]
    controls = [row(s, "samia", 7, 0.9) for s in (FINETUNED, UNTUNED, DRAWN)]
    with_them, without = tables.attacks_table(sound + controls), tables.attacks_table(sound)
    pd.testing.assert_frame_equal(tables.paper_table(with_them, "location"), tables.paper_table(without, "location"))
    alike = " Fine-tuned alike, the original without pruning has 0.950 (samia)."
    assert answer.findings(with_them) == [finding + alike for finding in answer.findings(without)]


def test_markdown_leaves_missing_cells_empty():
    frame = pd.DataFrame({"a": ["x", None], "b": [0.123456, np.nan]})
    assert tables.to_markdown(frame) == "| a | b |\n| --- | --- |\n| x | 0.1235 |\n|  |  |\n"
