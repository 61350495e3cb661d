"""The answer: the finding's sentences and its table are of the same numbers, and a failure is no number."""

import pandas as pd
import pytest
from test_claims import failing, family, ppb, rows

from miaprune import grid
from miaprune.report import tables
from miaprune.report.answer import LEAST, MOST, answer, findings

ORIGINAL, SETTING = grid.Setting("location", "fc"), grid.Setting("location", "fc", "l1", "0.6")
COLUMNS = ["version", "which", "variant", "attack", "settings", "failed_settings"]


def attacks_of(table):
    return tables._typed(pd.DataFrame(table))


def shown(table):
    found = answer(attacks_of(table))
    return list(found[COLUMNS].itertuples(index=False, name=None)), [round(auc, 6) for auc in found["auc"]]


def everything():
    table = family([62, 64, 63], conf=[61, 61, 66]) + ppb([60, 59])
    table += rows(grid.Setting("location", "fc", tuning="finetuned"), samia=65, conf=64)
    table += rows(grid.Setting("location", "fc", "l1", "0.5", tuning="untuned"), samia=99)
    table += rows(grid.Setting("location", "fc", "random", "0.5"), samia=99)
    return table + ppb([99], adversary="unaware")


def test_each_version_has_the_strongest_attack_where_it_leaks_least_and_most():
    said, values = shown(everything())
    assert said == [
        ("original", "", "original", "conf", 1, 0),
        ("finetuned", "", "finetuned", "samia", 1, 0),
        ("pruned", LEAST, "l1_0.5", "samia", 3, 0),
        ("pruned", MOST, "l1_0.7", "conf", 3, 0),
        ("defended", LEAST, "l1_0.6", "samia", 2, 0),
        ("defended", MOST, "l1_0.5", "samia", 2, 0),
    ]
    assert values == pytest.approx([1.04, 0.70, 0.67, 0.71, 0.64, 0.65]), "an AUC is 0.05 above its accuracy here"


def test_the_sentence_has_the_tables_numbers():
    (finding,) = findings(attacks_of(everything()))
    for part in ("1.04 (conf) before pruning", "0.67 to 0.71 (conf on l1_0.7) after", "0.700 (samia)"):
        assert part in finding


def test_where_no_attack_says_anything_there_is_no_number():
    table = family([62, 64])
    failing(table, SETTING)
    assert shown(table)[0][1:] == [("pruned", "", "l1_0.5", "samia", 2, 1)]
    failing(table, grid.Setting("location", "fc", "l1", "0.5"))
    found = answer(attacks_of(table))
    assert found["auc"].isna().tolist() == [False, True] and found["failed_settings"].tolist() == [0, 2]


def test_the_strongest_of_those_that_worked_is_said_to_be_that():
    table = failing(family([62, 64], conf=[61, 61]), SETTING)
    assert "of 0.66 (conf; 1 failed) to 0.67 (samia on l1_0.5) after" in findings(attacks_of(table))[0]
    table = failing(family([62, 64], conf=[61, 66]), SETTING)
    assert "of 0.67 to 0.71 (conf on l1_0.6; 1 failed) after" in findings(attacks_of(table))[0]
    in_one_seed = failing(family([62, 64]), SETTING) + family([62, 64], seed=8)
    assert "of 0.67 to 0.69 (samia on l1_0.6; 1 of 2 seeds) after" in findings(attacks_of(in_one_seed))[0]


def test_an_original_of_which_no_attack_says_anything_is_named():
    table = failing(failing(family([62, 64]), ORIGINAL), ORIGINAL, "conf")
    (finding,) = findings(attacks_of(table))
    assert "an AUC of 0.67 to 0.69 (samia on l1_0.6) after. A coin toss has 0.50. Of the original no attack" in finding


def test_a_control_that_failed_is_no_number_in_the_sentence():
    table, control = everything(), grid.Setting("location", "fc", tuning="finetuned")
    failing(table, control)
    assert "0.690 (conf; 1 failed)" in findings(attacks_of(table))[0]
    failing(table, control, "conf")
    (finding,) = findings(attacks_of(table))
    assert "Fine-tuned alike" not in finding and "Of the original fine-tuned alike no attack says" in finding


def test_several_seeds_are_one_row_and_several_networks_are_apart():
    table = [row for seed in (7, 8) for row in family([60 + seed], seed=seed)] + family([70], dataset="texas")
    found = answer(attacks_of(table))
    assert found["dataset"].tolist() == ["location"] * 2 + ["texas"] * 2
    assert found["auc"].tolist() == pytest.approx([1.04, 0.725, 1.04, 0.75])
    assert found["seeds"].tolist() == [2, 2, 1, 1]
