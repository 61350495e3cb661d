"""Verdicts that the numbers can refute: every branch of the rule, against hand-computed examples."""

import math

import pandas as pd
import pytest

from miaprune import claims, grid, results

LEVELS = ("0.5", "0.6", "0.7", "0.8", "0.9")


def rows(setting, seed=7, defense=None, adversary="matched", **accuracies):
    """A row of the attacks table per attack, accuracies in percent."""
    place = {
        "dataset": setting.dataset,
        "model": setting.model,
        "pruner": setting.pruner,
        "sparsity": None if setting.sparsity is None else float(setting.sparsity),
    }
    rest = {"defense": defense, "strength": None, "adversary": adversary, "seed": seed}
    return [place | rest | {"attack": a, "accuracy": x / 100} for a, x in accuracies.items()]


def family(samia, original=60.0, conf=None, dataset="location", model="fc", seed=7):
    """Attacks on an original and on one pruned setting per value of ``samia``."""
    out = rows(grid.Setting(dataset, model), samia=original, conf=99.0, seed=seed)
    for i, accuracy in enumerate(samia):
        other = {} if conf is None else {"conf": conf[i], "corr": 50.0}
        out += rows(grid.Setting(dataset, model, "l1", LEVELS[i]), samia=accuracy, seed=seed, **other)
    return out


def evaluate(table):
    return {(c.number, c.scope): c for c in claims.evaluate(pd.DataFrame(table))}


def test_a_clean_sweep_of_five_supports_claim_1():
    claim = evaluate(family([61, 62, 63, 64, 65]))[1, "all"]
    assert (claim.settings, claim.holds, claim.verdict) == (5, 5, "supported")
    assert claim.effect == pytest.approx(3.0)
    assert claim.p_value == 1 / 32
    low, high = claim.interval
    # The mean of 5 draws from 1..5: P(mean <= 1.6) = 56 / 3125 = 1.8 %, P(mean <= 1.8) = 4.0 %.
    assert (round(low, 9), round(high, 9)) == (1.8, 4.2)
    assert claim.detail == "location/fc (l1 at 0.5, 0.6, 0.7, 0.8, 0.9). Not above 0: none"


def test_four_of_five_do_not_support_it_however_large():
    claim = evaluate(family([80, 80, 80, 80, 59.9]))[1, "all"]
    assert claim.p_value == 6 / 32
    assert claim.interval[0] > 0
    assert (claim.holds, claim.verdict) == (4, "not supported")
    assert claim.detail.endswith("Not above 0: location/fc/l1_0.9 (-0.10)")


def test_many_small_gains_do_not_outweigh_few_large_losses():
    table = [r for d in ("cifar10", "svhn") for r in family([60.1] * 5, dataset=d, model="resnet18")]
    table += family([60.1, 60.1, 60.1, 60.1, 40.0])
    claim = evaluate(table)[1, "all"]
    assert (claim.settings, claim.holds) == (15, 14)
    assert claim.p_value == pytest.approx(16 / 2**15)
    assert claim.effect < 0
    assert claim.verdict == "not supported"


def test_losses_refute_claim_1():
    claim = evaluate(family([59, 58, 57, 56, 55]))[1, "all"]
    assert (claim.holds, claim.p_value, claim.verdict) == (0, 1.0, "not supported")
    assert claim.effect == pytest.approx(-3.0)


def test_the_fewest_settings_are_the_fewest_that_could_support():
    assert 0.5**claims.MIN_SETTINGS < claims.ALPHA <= 0.5 ** (claims.MIN_SETTINGS - 1)
    claim = evaluate(family([61, 62, 63, 64]))[1, "all"]
    assert (claim.settings, claim.holds, claim.verdict) == (4, 4, "too few settings to tell")


def test_ties_neither_hold_nor_enter_the_sign_test():
    claim = evaluate(family([61, 61, 61, 61, 60]))[1, "all"]
    assert (claim.settings, claim.holds, claim.p_value) == (5, 4, 1 / 16)
    assert claim.verdict == "not supported"


def test_claim_2_compares_with_the_best_other_attack_on_pruned_models_only():
    claim = evaluate(family([61, 62, 63, 64, 65], conf=[60, 60, 60, 60, 60]))[2, "all"]
    # conf reaches 99 % on the original, which claim 2 is not about; corr is never the best other.
    assert (claim.settings, claim.holds, claim.verdict) == (5, 5, "supported")
    assert claim.effect == pytest.approx(3.0)
    assert claim.detail.endswith("Others: conf, corr")


def test_one_better_attack_refutes_claim_2():
    claim = evaluate(family([61, 62, 63, 64, 65], conf=[62, 63, 64, 65, 60]))[2, "all"]
    assert (claim.holds, claim.verdict) == (1, "not supported")
    assert claim.effect == pytest.approx(0.2)
    assert "location/fc/l1_0.5 (-1.00), location/fc/l1_0.6 (-1.00)" in claim.detail


def test_each_dataset_has_its_own_verdict():
    table = family([61, 62, 63, 64, 65]) + family([50, 51, 52, 53, 54], dataset="texas")
    found = evaluate(table)
    assert found[1, "location"].verdict == "supported"
    assert found[1, "texas"].verdict == "not supported"
    assert (found[1, "all"].settings, found[1, "all"].holds) == (10, 5)


def test_seeds_are_averaged_and_do_not_count_as_settings():
    table = family([61, 62, 63], seed=7) + family([63, 64, 65], seed=8)
    claim = evaluate(table)[1, "all"]
    assert (claim.settings, claim.verdict) == (3, "too few settings to tell")
    assert claim.effect == pytest.approx(3.0)


def test_equal_means_over_seeds_are_a_tie():
    # (0.1 + 0.7) / 2 and (0.3 + 0.5) / 2 differ in the last bit.
    table = family([10], original=30, seed=7) + family([70], original=50, seed=8)
    claim = evaluate(table)[1, "all"]
    assert (claim.settings, claim.holds, claim.effect, claim.p_value) == (1, 0, 0.0, 1.0)


def test_defended_and_unaware_rows_do_not_count():
    extra = grid.Setting("location", "fc", "l1", "0.5")
    table = family([61]) + rows(extra, defense="ppb", samia=99) + rows(extra, adversary="unaware", samia=99)
    assert evaluate(table)[1, "all"].effect == pytest.approx(1.0)


@pytest.mark.parametrize(
    "table",
    [
        family([61])[:0] + rows(grid.Setting("location", "fc"), conf=50),  # no samia, no pruned setting
        rows(grid.Setting("location", "fc", "l1", "0.5"), conf=50),  # no samia
        rows(grid.Setting("location", "fc", "l1", "0.5"), samia=50),  # no original and no other attack
    ],
)
def test_nothing_to_compare_is_too_few_settings(table):
    found = claims.evaluate(pd.DataFrame(table))
    assert [(c.number, c.scope, c.settings, c.verdict) for c in found] == [
        (1, "all", 0, "too few settings to tell"),
        (2, "all", 0, "too few settings to tell"),
    ]
    assert math.isnan(found[0].effect)
    assert "no setting has the results" in claims.claims_markdown(found)


def test_an_empty_table_is_too_few_settings():
    assert [c.settings for c in claims.evaluate(pd.DataFrame(family([61])).iloc[:0])] == [0, 0]


def test_many_exceptions_are_counted_and_pruners_grouped():
    table = rows(grid.Setting("cifar10", "vgg16"), samia=60)
    for i, pruner in enumerate(grid.PRUNERS):
        for level in LEVELS[: 5 if i < 3 else 1]:
            table += rows(grid.Setting("cifar10", "vgg16", pruner, level), samia=55 - i)
    detail = evaluate(table)[1, "all"].detail
    levels = ", ".join(LEVELS)
    assert f"cifar10/vgg16 (l1, l1_structured, l2_structured at {levels}; slim at 0.5). Not above 0: " in detail
    assert "Not above 0: cifar10/vgg16/slim_0.5 (-8.00), " in detail
    assert detail.endswith(" and 6 more")


def test_the_table_has_a_row_per_claim_and_scope(tmp_path):
    found = claims.evaluate(pd.DataFrame(family([61, 62, 63, 64, 65])))
    table = claims.claims_table(found)
    assert list(table.columns) == [
        *("number", "scope", "statement", "settings", "holds", "effect", "p_value", "interval_lo"),
        *("interval_hi", "verdict", "detail"),
    ]
    assert list(zip(table["number"], table["scope"], strict=True)) == [
        (1, "all"),
        (1, "location"),
        (2, "all"),
    ]
    results.write_csv(tmp_path / "claims.csv", table)
    assert list(pd.read_csv(tmp_path / "claims.csv")["holds"]) == [5, 5, 0]


def test_the_text_says_what_was_claimed_seen_and_decided():
    text = claims.claims_markdown(claims.evaluate(pd.DataFrame(family([61, 62, 63, 64, 65]))))
    assert "## Claim 1: supported\n\nClaimed: pruning makes membership inference easier" in text
    assert "above 0 in 5 of 5 settings; on average +3.00 points (95 % interval +1.80 to +4.20)" in text
    assert "sign test p = 0.031" in text
    assert "| location | 5 | 5 | +3.00 | +1.80 to +4.20 | 0.031 | supported |" in text
    assert "## Claim 2: too few settings to tell" in text
