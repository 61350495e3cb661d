"""What fine-tuning, pruning and the choice of weights do, against differences made by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_claims import failing, rows

from miaprune import grid
from miaprune.report.effects import EFFECT_COLUMNS, effects

ORIGINAL, PRUNED = grid.Setting("location", "fc"), grid.Setting("location", "fc", "l1", "0.7")
AUC = {
    ORIGINAL: 50,
    grid.Setting("location", "fc", tuning="finetuned"): 58,
    PRUNED: 61,
    grid.Setting("location", "fc", "l1", "0.7", tuning="untuned"): 49,
    grid.Setting("location", "fc", "random", "0.7"): 57,
}


def attacks(seeds, more=0.0):
    """All versions of a model with each seed; the pruned one leaks ``more`` points for each further seed."""
    return [
        row
        for seed in range(7, 7 + seeds)
        for setting, auc in AUC.items()
        for row in rows(setting, seed, samia=auc + more * (seed - 7) * (setting == PRUNED), conf=45)
    ]


def of(table, effect, measure="auc"):
    return effects(pd.DataFrame(table)).set_index(["effect", "measure"]).loc[(effect, measure)]


def test_each_effect_is_a_difference_of_the_strongest_attack():
    table = effects(pd.DataFrame(attacks(1)))
    assert list(table.columns) == EFFECT_COLUMNS
    found = table[table["measure"] == "auc"].set_index("effect")["mean"]
    expected = {
        "finetuned - original": 8,
        "pruned - original": 11,
        "pruned - finetuned": 3,
        "untuned - original": -1,
        "l1 - random": 4,
    }
    assert found.to_dict() == pytest.approx({effect: points / 100 for effect, points in expected.items()})
    rates = table[table["measure"] == "tpr_at_fpr_0.01"].set_index("effect")["mean"]
    assert rates.to_dict() == pytest.approx({effect: points / 400 for effect, points in expected.items()})
    drawn = table[(table["effect"] == "l1 - random") & (table["measure"] == "auc")]
    assert drawn.iloc[0][["dataset", "model", "pruner", "sparsity"]].to_list() == ["location", "fc", "random", 0.7]
    assert table.loc[table["effect"] == "finetuned - original", ["pruner", "sparsity"]].isna().all(axis=None)
    assert table[["lo", "hi"]].isna().all(axis=None) and set(table["seeds"]) == {1}


def test_from_three_seeds_on_an_effect_has_students_interval():
    assert np.isnan(of(attacks(2, more=1.0), "pruned - finetuned")["lo"])
    row = of(attacks(4, more=1.0), "pruned - finetuned")
    values = [0.03, 0.04, 0.05, 0.06]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert row[["mean", "lo", "hi", "seeds"]].to_list() == pytest.approx([0.045, low, high, 4])


def test_an_attack_that_failed_on_one_side_is_not_the_strongest_on_the_other():
    table = failing(attacks(1), ORIGINAL, "samia")
    assert of(table, "finetuned - original")["mean"] == 0.0, "conf is the only attack that is sound on both"
    assert of(table, "pruned - finetuned")["mean"] == pytest.approx(0.03)
    for attack in ("samia", "conf"):
        failing(table, PRUNED, attack)
    assert set(effects(pd.DataFrame(table))["effect"]) == {"finetuned - original", "untuned - original"}


def test_without_controls_there_are_columns_and_no_rows():
    for table in (pd.DataFrame(rows(PRUNED, samia=60)), pd.DataFrame(rows(PRUNED, samia=60)).iloc[:0]):
        assert effects(table).empty and list(effects(table).columns) == EFFECT_COLUMNS
