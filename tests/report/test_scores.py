"""Every record's score: files of it, the most exposed records, and the victims that leak most."""

from dataclasses import replace

import numpy as np
import pytest
from test_results import DEFENDED, ORIGINAL, PRUNED, a_result

from miaprune.data import splits
from miaprune.files import FileError, save_tensors
from miaprune.report import scores, tables
from miaprune.report.scores import Scores


def table(areas):
    """An attacks table with the AUC of each (setting, attack)."""
    return tables.attacks_table([a_result(s, attack) | {"auc": auc} for (s, attack), auc in areas.items()])


def of(surest, n=400):
    """Scores of two attacks: by conf those of the records ``surest`` are the highest, in that order."""
    records = np.arange(1000, 1000 + n)
    conf = np.zeros(n, np.float32)
    conf[np.array(surest) - 1000] = np.arange(len(surest), 0, -1)
    return Scores({"conf": conf, "corr": -conf}, records, np.arange(n) < n // 2)


def test_the_surest_records_are_listed_with_their_overlap_with_the_original():
    attacks = table({(ORIGINAL, "conf"): 0.8, (PRUNED, "conf"): 0.7, (PRUNED, "corr"): 0.6, (DEFENDED, "conf"): 0.9})
    found = scores.exposed(
        attacks,
        {
            ORIGINAL: of([1001, 1002, 1003, 1004]),
            PRUNED: of([1003, 1300, 1001, 1301]),
            DEFENDED: of([1350, 1351, 1352, 1353]),
        },
    )
    assert list(found.columns) == list(scores.COLUMNS) and len(found) == 3 * 4, "1 % of 400"
    pruned = found[found["pruner"].notna() & found["defense"].isna()]
    assert list(pruned["record"]) == [1003, 1300, 1001, 1301] and list(pruned["rank"]) == [1, 2, 3, 4]
    assert list(pruned["score"]) == [4, 3, 2, 1] and list(pruned["member"]) == [True, False, True, False]
    assert set(pruned["overlap_with_original"]) == {0.5} and set(pruned["attack"]) == {"conf"}
    assert set(found.loc[found["pruner"].isna(), "overlap_with_original"]) == {1.0}
    assert set(found.loc[found["defense"].notna(), "overlap_with_original"]) == {0.0}


def test_ties_fall_alike_on_members_and_others():
    """All scores but one are equal: of 300 listed records some 150 are members; members come first in the file."""
    found = scores.exposed(table({(PRUNED, "conf"): 0.7}), {PRUNED: of([1000], 30_000)})
    assert abs(found["member"].sum() - 150) < 4.5 * 8.7, "4.5 standard deviations"


def test_without_an_original_there_is_no_overlap():
    found = scores.exposed(table({(PRUNED, "conf"): 0.7}), {PRUNED: of([1003])})
    assert len(found) == 4 and found["overlap_with_original"].isna().all()


def test_an_attack_that_failed_is_not_the_strongest():
    attacks = table({(PRUNED, "conf"): 0.6, (PRUNED, "corr"): 0.7})
    assert scores.strongest(attacks, PRUNED) == ("corr", 0.7)
    attacks.loc[attacks["attack"] == "corr", "failed"] = "attack"
    assert scores.strongest(attacks, PRUNED) == ("conf", 0.6)
    assert scores.strongest(attacks.assign(failed="attack"), PRUNED) is None
    assert scores.strongest(attacks, ORIGINAL) is None


def test_of_each_kind_of_victim_the_one_that_leaks_most_is_shown():
    other = replace(PRUNED, sparsity="0.5")
    areas = {(ORIGINAL, "conf"): 0.9, (PRUNED, "conf"): 0.7, (other, "conf"): 0.75, (DEFENDED, "conf"): 0.6}
    every = {setting: of([1000]) for setting, _ in areas}
    assert list(scores.most_exposed(every, table(areas))) == [ORIGINAL, other, DEFENDED]
    assert list(scores.most_exposed({PRUNED: of([1000])}, table(areas))) == [PRUNED]


SPLIT = splits.victim_split(20, 7)
RECORDS = np.concatenate([SPLIT.train, SPLIT.test])
ARRAYS = {"conf": np.zeros(len(RECORDS), np.float32), "records": RECORDS, "members": np.arange(len(RECORDS)) < 4}


@pytest.mark.parametrize(
    ("arrays", "about", "said"),
    [
        (ARRAYS, {"setting": "a/b/original"}, "of setting a/b/original, not location/fc/l1_0.7"),
        (ARRAYS, {"seed": 8}, "of seed 8, not 7"),
        (ARRAYS | {"conf": np.zeros(99, np.float32)}, {}, "scores of different numbers of records; delete it"),
        ({"conf": np.zeros(4, np.float32)}, {}, "lacks 'records'; delete it"),
        (ARRAYS | {"records": RECORDS[::-1].copy()}, {}, "scores of other records than seed 7 attacks; delete it"),
        (ARRAYS, {"of": 30}, "scores of other records than seed 7 attacks; delete it"),
    ],
)
def test_scores_of_something_else_are_named(tmp_path, arrays, about, said):
    path = tmp_path / "scores.safetensors"
    save_tensors(path, arrays, {"setting": PRUNED.path, "seed": 7, "of": 20} | about)
    with pytest.raises(FileError, match=said):
        scores.load(path, PRUNED.path, 7)


def test_scores_come_back_from_their_file(tmp_path):
    save_tensors(tmp_path / "x.safetensors", ARRAYS, {"setting": PRUNED.path, "seed": 7, "of": 20})
    found = scores.load(tmp_path / "x.safetensors", PRUNED.path, 7)
    assert list(found.by_attack) == ["conf"] and found.members.sum() == 4


def test_attacks_that_failed_or_were_not_asked_for_are_left_out():
    attacks = table({(PRUNED, "conf"): 0.6, (PRUNED, "corr"): 0.7})
    attacks.loc[attacks["attack"] == "corr", "failed"] = "attack"
    every = of([1000])
    every.by_attack["rmia"] = every.by_attack["conf"]
    assert list(scores.sound(every, attacks, PRUNED).by_attack) == ["conf"]
