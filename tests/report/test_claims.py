"""Verdicts that the numbers can refute: every branch of the rule, against hand-computed examples."""

import math

import numpy as np
import pandas as pd
import pytest

from miaprune import catalog, entries, grid
from miaprune.report import claims, claims_text, summary, tables

LEVELS = ("0.5", "0.6", "0.7", "0.8", "0.9")


def rows(setting, seed=7, adversary="matched", test=60.0, **accuracies):
    """A row of the attacks table per attack, accuracies in percent."""
    place = {
        "dataset": setting.dataset,
        "model": setting.model,
        "pruner": setting.pruner,
        "sparsity": None if setting.sparsity is None else float(setting.sparsity),
        "tuning": setting.tuning,
    }
    rest = {
        "defense": setting.defense,
        "strength": None if setting.strength is None else float(setting.strength),
        "adversary": adversary,
        "seed": seed,
        "victim_test_accuracy": test / 100,
        "victim_epsilon": math.nan,
        "failed": None,
    }
    values = {a: {"accuracy": x / 100, "accuracy_ci_lo": x / 100 - 0.02, "accuracy_ci_hi": x / 100 + 0.02,
                  "auc": x / 100 + 0.05, "tpr_at_fpr_0.01": x / 400}
              for a, x in accuracies.items()}  # fmt: skip
    return [place | rest | {"attack": a} | value for a, value in values.items()]


def family(samia, original=60.0, conf=None, dataset="location", model="fc", seed=7):
    """Attacks on an original and on one pruned setting per value of ``samia``."""
    out = rows(grid.Setting(dataset, model), samia=original, conf=99.0, seed=seed)
    for i, accuracy in enumerate(samia):
        other = {} if conf is None else {"conf": conf[i], "corr": 50.0}
        out += rows(grid.Setting(dataset, model, "l1", LEVELS[i]), samia=accuracy, seed=seed, **other)
    return out


def ppb(samia, cost=0.0, adversary="matched", strength="4", dataset="location", seed=7):
    """SAMIA on one setting with PPB per value of ``samia``; each loses ``cost`` points of test accuracy."""
    ways = [grid.Setting(dataset, "fc", "l1", level, defense="ppb", strength=strength) for level in LEVELS]
    return [
        row
        for way, accuracy in zip(ways, samia, strict=False)
        for row in rows(way, seed, adversary, 60.0 - cost, samia=accuracy)
    ]


def evaluate(table):
    """Those by SAMIA's accuracy, by number and scope; claim 3 by its adversary and scope."""
    found = [c for c in claims.evaluate(pd.DataFrame(table)) if c.measure == claims.SAMIA]
    return {(c.adversary if c.number == 3 else c.number, c.scope): c for c in found}


def beyond(table, number, measure, adversary="matched"):
    """A claim that goes beyond the paper's, over all settings."""
    found = claims.evaluate(pd.DataFrame(table))
    return next(c for c in found if (c.number, c.measure, c.adversary, c.scope) == (number, measure, adversary, "all"))


def over_seeds(samia, **more):
    """A `family` of one pruned setting with each of so many seeds: as many originals as ``samia`` has values."""
    return [row for seed, accuracy in enumerate(samia, 7) for row in family([accuracy], seed=seed, **more)]


def test_a_clean_sweep_of_five_originals_supports_claim_1():
    claim = evaluate(over_seeds([61, 62, 63, 64, 65]))[1, "all"]
    assert (claim.settings, claim.originals, claim.seeds, claim.holds) == (5, 5, 5, 5)
    assert (claim.effect, claim.sign_flip_p, claim.verdict) == (pytest.approx(3.0), 1 / 32, "supported")
    low, high = claim.interval
    # The mean of 5 draws from 1..5: P(mean <= 1.6) = 56 / 3125 = 1.8 %, P(mean <= 1.8) = 4.0 %.
    assert (round(low, 9), round(high, 9)) == (1.8, 4.2)
    assert claim.detail == "location/fc (l1 at 0.5). Not above 0: none"


def test_settings_of_one_original_are_one_original():
    claim = evaluate(family([61, 62, 63, 64, 65]))[1, "all"]
    assert (claim.settings, claim.originals, claim.seeds, claim.holds) == (5, 1, 1, 5)
    assert (claim.sign_flip_p, claim.verdict) == (0.5, "too few to tell")
    assert math.isnan(claim.interval[0])
    assert claim.detail == "location/fc (l1 at 0.5, 0.6, 0.7, 0.8, 0.9). Not above 0: none"


def test_an_original_counts_once_whatever_the_number_of_its_settings():
    table = family([80] * 5) + [row for seed in range(8, 12) for row in family([61], seed=seed)]
    claim = evaluate(table)[1, "all"]
    assert (claim.settings, claim.originals) == (9, 5)
    assert claim.effect == pytest.approx((20 + 4 * 1) / 5)


def test_data_sets_networks_and_seeds_make_originals():
    table = [
        row
        for dataset, model in (("cifar10", "resnet18"), ("cifar10", "vgg16"), ("svhn", "vgg16"))
        for seed in (7, 8)
        for row in family([61, 62], dataset=dataset, model=model, seed=seed)
    ]
    found = evaluate(table)
    assert (found[1, "all"].originals, found[1, "all"].seeds, found[1, "all"].settings) == (6, 2, 12)
    assert (found[1, "all"].sign_flip_p, found[1, "all"].verdict) == (1 / 64, "supported")
    assert (found[1, "cifar10"].originals, found[1, "cifar10"].verdict) == (4, "too few to tell")


def test_seeds_are_compared_each_with_its_own_original():
    """Averaged over seeds first, every difference would be the same."""
    table = family([61, 63], original=60, seed=7) + family([73, 71], original=70, seed=8)
    claim = evaluate(table)[1, "all"]
    assert (claim.settings, claim.holds, claim.originals, claim.effect) == (4, 4, 2, pytest.approx(2.0))
    # Two originals that average 2 points with settings of 1 and 3: P(mean < 1.5) = 1/16 in each tail.
    assert claim.interval == pytest.approx((1.0, 3.0))


def test_four_of_five_do_not_support_it_however_large():
    claim = evaluate(over_seeds([80, 80, 80, 80, 59.9]))[1, "all"]
    assert claim.sign_flip_p == 2 / 32
    assert claim.interval[0] > 0
    assert (claim.holds, claim.verdict) == (4, "not shown")
    assert claim.detail.endswith("Not above 0: location/fc/l1_0.5 with seed 11 (-0.10)")


def test_many_small_gains_do_not_outweigh_few_large_losses():
    claim = evaluate(over_seeds([60.1] * 5 + [40.0, 41.0]))[1, "all"]
    assert (claim.originals, claim.holds, claim.verdict) == (7, 5, "not shown")
    assert claim.effect < 0 and claim.sign_flip_p > 0.5


def test_losses_refute_claim_1():
    claim = evaluate(over_seeds([59, 58, 57, 56, 55]))[1, "all"]
    assert (claim.holds, claim.sign_flip_p, claim.verdict) == (0, 1.0, "refuted")
    assert claim.effect == pytest.approx(-3.0)


def test_the_fewest_originals_are_the_fewest_that_could_support():
    assert 0.5**claims.MIN_ORIGINALS < claims.ALPHA <= 0.5 ** (claims.MIN_ORIGINALS - 1)
    claim = evaluate(over_seeds([61, 62, 63, 64]))[1, "all"]
    assert (claim.originals, claim.holds, claim.verdict) == (4, 4, "too few to tell")


@pytest.mark.parametrize(
    ("originals", "interval", "p_value", "said"),
    [
        (5, (0.1, 2.0), 0.04, claims.SUPPORTED),
        (5, (0.0, 2.0), 0.04, claims.NOT_SHOWN),
        (5, (0.1, 2.0), 0.05, claims.NOT_SHOWN),
        (5, (-1.0, 2.0), 0.04, claims.NOT_SHOWN),
        (5, (-2.0, 0.0), 1.0, claims.NOT_SHOWN),
        (5, (-2.0, -0.1), 0.96, claims.REFUTED),
        (4, (0.1, 2.0), 0.04, claims.TOO_FEW),
        (4, (-2.0, -0.1), 1.0, claims.TOO_FEW),
        (0, (math.nan, math.nan), 1.0, claims.TOO_FEW),
    ],
)
def test_the_rule_branch_by_branch(originals, interval, p_value, said):
    assert claims.verdict(originals, interval, p_value) == said


def test_equal_accuracies_are_a_tie():
    # In binary 100 * (0.3 - 0.1) and 100 * (0.2 - 0) differ.
    claim = evaluate(over_seeds([60.0] * 5) + rows(grid.Setting("location", "fc", "l1", "0.7"), samia=60.0))[1, "all"]
    assert (claim.settings, claim.holds, claim.effect, claim.sign_flip_p) == (6, 0, 0.0, 1.0)
    assert claim.verdict == "not shown"


def test_claim_2_compares_with_the_best_other_attack_on_pruned_models_only():
    claim = evaluate(family([61, 62, 63, 64, 65], conf=[60, 60, 60, 60, 60]))[2, "all"]
    # conf reaches 99 % on the original, which claim 2 is not about; corr is never the best other.
    assert (claim.settings, claim.holds) == (5, 5)
    assert claim.effect == pytest.approx(3.0)
    assert claim.detail.endswith("Others: conf, corr")


def test_one_better_attack_counts_against_claim_2():
    claim = evaluate(family([61, 62, 63, 64, 65], conf=[62, 63, 64, 65, 60]))[2, "all"]
    assert claim.holds == 1
    assert claim.effect == pytest.approx(0.2)
    assert "location/fc/l1_0.5 (-1.00), location/fc/l1_0.6 (-1.00)" in claim.detail


def test_each_dataset_has_its_own_verdict():
    table = over_seeds([61, 62, 63, 64, 65]) + over_seeds([50, 51, 52, 53, 54], dataset="texas")
    found = evaluate(table)
    assert found[1, "location"].verdict == "supported"
    assert found[1, "texas"].verdict == "refuted"
    assert (found[1, "all"].originals, found[1, "all"].holds) == (10, 5)


def test_defended_unaware_mismatched_and_control_rows_do_not_count_in_claims_1_and_2():
    pruned = grid.Setting("location", "fc", "l1", "0.5")
    extra = rows(pruned, adversary="shadows_l1_0.9", samia=99, conf=99)
    extra += ppb([99]) + ppb([99], adversary="unaware")
    for control in grid.controls([pruned, pruned.original], {"controls": "p", "parts": {"p": {}}}):
        extra += rows(control, samia=10, conf=99)
    found = evaluate(family([61], conf=[60]) + extra)
    assert (found[1, "all"].settings, found[1, "all"].effect) == (1, pytest.approx(1.0))
    assert (found[2, "all"].settings, found[2, "all"].effect) == (1, pytest.approx(1.0))


def test_claim_3_compares_each_setting_with_itself_undefended():
    # The adaptive attacker loses 1, 2, 3, 4, 5 points; the unaware one gains them.
    table = []
    for i, seed in enumerate(range(7, 12), 1):
        table += family([70], seed=seed) + ppb([70 - i], cost=2.0, seed=seed)
        table += ppb([70 + i], adversary="unaware", cost=2.0, seed=seed)
    found = evaluate(table)
    adaptive, unaware = found["adaptive", "all"], found["unaware", "all"]
    assert (adaptive.settings, adaptive.originals, adaptive.holds, adaptive.verdict) == (5, 5, 5, "supported")
    assert (adaptive.effect, adaptive.left) == (pytest.approx(3.0), pytest.approx(67.0))
    assert (round(adaptive.interval[0], 9), round(adaptive.interval[1], 9)) == (1.8, 4.2)
    assert adaptive.sign_flip_p == 1 / 32
    assert (unaware.holds, unaware.sign_flip_p, unaware.verdict) == (0, 1.0, "refuted")
    assert (unaware.effect, unaware.left) == (pytest.approx(-3.0), pytest.approx(73.0))
    for claim in (adaptive, unaware):
        assert (claim.number, claim.cost) == (3, pytest.approx(2.0))
        assert claim.cost_interval == pytest.approx((2.0, 2.0))
    assert math.isnan(found[1, "all"].cost) and math.isnan(found[2, "all"].left)


def test_the_cost_is_of_the_settings_compared_and_can_be_a_gain():
    # The fifth seed has no undefended result: neither its accuracy nor its cost counts.
    costs = (4.0, 2.0, 0.0, -2.0, 50.0)
    defended = [row for seed, cost in enumerate(costs, 7) for row in ppb([60], cost=cost, seed=seed)]
    claim = evaluate(over_seeds([61, 62, 63, 64]) + defended)["adaptive", "all"]
    assert (claim.originals, claim.verdict) == (4, "too few to tell")
    assert (claim.effect, claim.cost) == (pytest.approx(2.5), pytest.approx(1.0))
    # Of 4 draws from (4, 2, 0, -2): P(mean <= -1.5) = 5/256 = 2.0 %, P(mean <= -1) = 15/256 = 5.9 %; symmetric.
    assert claim.cost_interval == pytest.approx((-1.0, 3.0))


def test_claim_3_is_about_ppb_at_the_papers_strength():
    dp = grid.Setting("location", "fc", "l1", "0.5", defense="dp", strength="4")
    table = family([70] * 5) + ppb([50] * 5, strength="16") + rows(dp, samia=50)
    assert evaluate(table)["adaptive", "all"].settings == 0
    assert evaluate(table + ppb([69]))["adaptive", "all"].effect == pytest.approx(1.0)


def test_claim_3_compares_within_a_seed_and_decides_by_dataset():
    table = family([70], seed=7) + family([72], seed=8) + ppb([68], seed=7, cost=1) + ppb([68], seed=8, cost=3)
    table += family([60] * 5, dataset="texas") + ppb([61] * 5, dataset="texas")
    found = evaluate(table)
    one = found["adaptive", "location"]
    assert (one.settings, one.originals, one.effect, one.cost) == (2, 2, pytest.approx(3.0), pytest.approx(2.0))
    assert (found["adaptive", "texas"].originals, found["adaptive", "all"].settings) == (1, 7)
    assert ("unaware", "texas") not in found


def controlled(pruned, finetuned, seeds=5):
    """Attacks on an original, its control and one pruned setting of each of so many seeds; accuracies by attack."""
    table = []
    for seed in range(7, 7 + seeds):
        table += rows(grid.Setting("location", "fc"), seed, samia=50, conf=50)
        table += rows(grid.Setting("location", "fc", tuning="finetuned"), seed, **finetuned)
        table += rows(grid.Setting("location", "fc", "l1", "0.7"), seed, **pruned)
    return table


def test_claim_4_compares_with_the_original_fine_tuned_alike():
    """Pruned models leak more than originals, and less than these after fine-tuning."""
    table = controlled(pruned={"samia": 66, "conf": 60}, finetuned={"samia": 64, "conf": 68})
    assert beyond(table, 1, claims.STRONGEST).verdict == "supported"
    claim = beyond(table, 4, claims.STRONGEST)
    assert (claim.settings, claim.originals, claim.verdict) == (5, 5, "refuted")
    assert claim.effect == pytest.approx(66 - 68)
    alone = {measure: beyond(table, 4, measure) for measure in ("samia auc", "conf auc", claims.SAMIA)}
    assert [c.effect for c in alone.values()] == pytest.approx([2.0, -8.0, 2.0])
    assert [c.verdict for c in alone.values()] == ["supported", "refuted", "supported"]
    assert "conf has a larger AUC" in alone["conf auc"].statement
    text = claims_text.markdown(claims.evaluate(pd.DataFrame(table)))
    assert "## Claim 4, by the strongest attack: refuted" in text
    assert "| conf auc | 5 | 5 | 0 | 0 | -8.00 | -8.00 to -8.00 | 1 | refuted |" in text
    shown = summary.summary(pd.DataFrame(table), claims.evaluate(pd.DataFrame(table)))
    assert (
        shown.count("Claim 4, by the strongest attack, pruning itself raises the leak") == shown.count("Claim 4") == 1
    )


def test_the_strongest_attack_is_of_the_same_attacks_on_both_sides():
    """nn is far ahead but failed on the control: it is no sign that pruning leaks."""
    table = controlled(pruned={"samia": 61, "nn": 90}, finetuned={"samia": 60, "nn": 50})
    failing(table, grid.Setting("location", "fc", tuning="finetuned"), "nn")
    claim = beyond(table, 4, claims.STRONGEST)
    assert (claim.effect, claim.settings, claim.left_out) == (pytest.approx(1.0), 5, 0)
    assert claim.detail.endswith("Left out as failed, because a network learnt nothing: 5 of 20 results")
    assert (beyond(table, 4, "nn auc").settings, beyond(table, 4, "nn auc").left_out) == (0, 5)
    table = over_seeds([70.0] * 5) + [r for seed in range(7, 12) for r in ppb([69.0], seed=seed)]
    table += [r for seed in range(7, 12) for r in rows(grid.Setting("location", "fc", "l1", "0.5"), seed, nn=95)]
    assert beyond(table, 3, claims.STRONGEST, "adaptive").effect == pytest.approx(1.0), "nn did not attack PPB"


def test_without_controls_claim_4_is_not_spoken_of():
    table = pd.DataFrame(family([61, 62]))
    found = claims.evaluate(table)
    assert {c.measure for c in found if c.number == 4} == {claims.STRONGEST, claims.SAMIA}
    assert "Claim 4" not in summary.summary(table, found)
    assert "one attack at a time" not in claims_text.markdown(found)


@pytest.mark.parametrize(
    "table",
    [
        family([61])[:0] + rows(grid.Setting("location", "fc"), conf=50),  # no samia, no pruned setting
        rows(grid.Setting("location", "fc", "l1", "0.5"), conf=50),  # no samia
        rows(grid.Setting("location", "fc", "l1", "0.5"), samia=50),  # no original and no other attack
    ],
)
def test_nothing_to_compare_is_too_few(table):
    found = claims.evaluate(pd.DataFrame(table))
    assert [(c.number, c.adversary, c.scope, c.settings, c.verdict) for c in found if c.measure == claims.SAMIA] == [
        (1, "matched", "all", 0, "too few to tell"),
        (2, "matched", "all", 0, "too few to tell"),
        (3, "adaptive", "all", 0, "too few to tell"),
        (3, "unaware", "all", 0, "too few to tell"),
        (4, "matched", "all", 0, "too few to tell"),
    ]
    assert {(c.settings, c.verdict) for c in found} == {(0, "too few to tell")}
    assert math.isnan(found[0].effect)
    assert "no setting has the results" in claims_text.markdown(found)


def test_an_empty_table_is_too_few():
    assert [c.settings for c in claims.evaluate(pd.DataFrame(family([61])).iloc[:0])] == 11 * [0]


def test_many_exceptions_are_counted_and_pruners_grouped():
    table = rows(grid.Setting("cifar10", "vgg16"), samia=60)
    for i, pruner in enumerate(("l1", "l1_structured", "l2_structured", "slim")):
        for level in LEVELS[: 5 if i < 3 else 1]:
            table += rows(grid.Setting("cifar10", "vgg16", pruner, level), samia=55 - i)
    detail = evaluate(table)[1, "all"].detail
    levels = ", ".join(LEVELS)
    assert f"cifar10/vgg16 (l1, l1_structured, l2_structured at {levels}; slim at 0.5). Not above 0: " in detail
    assert "Not above 0: cifar10/vgg16/slim_0.5 (-8.00), " in detail
    assert detail.endswith(" and 6 more")


def test_the_table_has_a_row_per_claim_and_scope(tmp_path):
    found = claims.evaluate(pd.DataFrame(family([61, 62, 63, 64, 65]) + ppb([60], cost=3)))
    table = claims.claims_table(found)
    assert list(table.columns) == [
        *(
            "number",
            "adversary",
            "measure",
            "scope",
            "statement",
            "settings",
            "holds",
            "originals",
            "seeds",
            "left_out",
        ),
        *("effect", "interval_lo", "interval_hi", "sign_flip_p"),
        *("left", "cost", "cost_interval_lo", "cost_interval_hi", "verdict", "detail"),
    ]
    kinds = [
        (1, "matched", claims.SAMIA, ["all", "location"]),
        (1, "matched", claims.STRONGEST, ["all", "location"]),
        (2, "matched", claims.SAMIA, ["all"]),
        (3, "adaptive", claims.SAMIA, ["all", "location"]),
        (3, "unaware", claims.SAMIA, ["all"]),
        (3, "adaptive", claims.STRONGEST, ["all", "location"]),
        (3, "unaware", claims.STRONGEST, ["all"]),
        (4, "matched", claims.STRONGEST, ["all"]),
        (4, "matched", claims.SAMIA, ["all"]),
        (5, "matched", claims.AUC, ["all"]),
        (5, "matched", claims.TPR, ["all"]),
    ]
    keys = [(*kind, scope) for *kind, scopes in kinds for scope in scopes]
    assert list(table[["number", "adversary", "measure", "scope"]].itertuples(index=False, name=None)) == keys
    tables.write_csv(tmp_path / "claims.csv", table)
    back = pd.read_csv(tmp_path / "claims.csv")
    # On the original conf is far ahead, but it does not attack the pruned models: it does not count.
    assert list(back["holds"]) == [5, 5, 5, 5, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0]
    assert [i for i, missing in enumerate(back["cost"].isna()) if not missing] == [5, 6, 8, 9]
    assert back["cost"][5] == pytest.approx(3.0)
    assert np.isnan(back["cost_interval_hi"][5]), "one original says nothing about the spread"


def test_the_text_says_what_was_claimed_seen_and_decided():
    text = claims_text.markdown(claims.evaluate(pd.DataFrame(over_seeds([61, 62, 63, 64, 65]))), source="Seed 7.")
    assert "\n\nSeed 7.\n\n## Claim 1: supported\n\nClaimed: pruning makes membership inference easier" in text
    assert "above 0 in 5 of 5 settings; the mean over 5 originals (5 seeds) is +3.00 points" in text
    assert "(95 % interval +1.80 to +4.20); sign flips p = 0.031" in text
    assert "| location | 5 | 5 | 5 | 0 | +3.00 | +1.80 to +4.20 | 0.031 | supported |" in text
    assert "## Claim 2: too few to tell" in text
    assert "## Claim 3, unaware adversary: too few to tell" in text
    one = claims_text.markdown(claims.evaluate(pd.DataFrame(family([61, 62]))))
    assert "the mean over 1 original is +1.50 points (95 % interval none from one original)" in one


def test_the_text_says_what_ppb_leaves_and_costs():
    table = []
    for i, seed in enumerate(range(7, 12), 1):
        table += family([70], seed=seed) + ppb([70 - i], cost=2.0, seed=seed)
        table += ppb([70], cost=2.0, adversary="unaware", seed=seed)
    text = claims_text.markdown(claims.evaluate(pd.DataFrame(table)))
    assert "## Claim 3, adaptive adversary: supported\n\nClaimed: PPB (strength 4) protects pruned models" in text
    assert "than without, against an adversary who knows of it.\n" in text
    assert (
        "sign flips p = 0.031; with PPB SAMIA still reaches 67.00 % on average (guessing: 50 %), and PPB costs "
        "+2.00 points of test accuracy (95 % interval +2.00 to +2.00).\n" in text
    )
    assert "## Claim 3, unaware adversary: not shown" in text
    row = "| location | 5 | 5 | 5 | 0 | +3.00 | +1.80 to +4.20 | 0.031 | 67.00 | +2.00 | +2.00 to +2.00 | supported |"
    assert row in text
    assert text.count("cost (points)") == 4  # not in the tables of claims 1, 2, 4 and 5


def test_the_strongest_attack_decides_beside_samia():
    """SAMIA gains by pruning and loses by PPB; another attack has more than it, and nothing happens to that one."""
    table = []
    for seed in range(7, 12):
        table += rows(grid.Setting("location", "fc"), seed, samia=60, rmia=90)
        table += rows(grid.Setting("location", "fc", "l1", "0.5"), seed, samia=70, rmia=90)
        defended = grid.Setting("location", "fc", "l1", "0.5", defense="ppb", strength="4")
        table += rows(defended, seed, samia=60, rmia=90)
    assert beyond(table, 1, claims.SAMIA).verdict == beyond(table, 3, claims.SAMIA, "adaptive").verdict == "supported"
    for claim in (beyond(table, 1, claims.STRONGEST), beyond(table, 3, claims.STRONGEST, "adaptive")):
        assert (claim.settings, claim.effect, claim.verdict) == (5, 0.0, "not shown")
    assert beyond(table, 3, claims.STRONGEST, "adaptive").left == pytest.approx(95.0)
    text = claims_text.markdown(claims.evaluate(pd.DataFrame(table)))
    assert "## Claim 3, adaptive adversary, by the strongest attack: not shown" in text
    assert "with PPB the strongest attack still has an AUC of 95.00 % on average (guessing: 50 %)" in text


def test_claim_5_compares_the_best_attack_with_reference_models_with_samia():
    table = rows(grid.Setting("location", "fc"), samia=99, rmia=50)
    for i, level in enumerate(LEVELS):
        table += rows(grid.Setting("location", "fc", "l1", level), samia=60, rmia=62 + i, base=50, lira=61, conf=99)
    by_auc, by_rate = (beyond(table, 5, measure) for measure in (claims.AUC, claims.TPR))
    assert (by_auc.settings, by_auc.holds) == (5, 5)
    assert (by_auc.effect, by_rate.effect) == (pytest.approx(4.0), pytest.approx(1.0))
    assert evaluate(table)[2, "all"].effect == pytest.approx(-39.0), "claim 2 is not about reference models"
    assert "Others: conf" in evaluate(table)[2, "all"].detail


def test_the_summary_speaks_of_defences_only_where_there_are_any():
    plain, defended = (pd.DataFrame(family([61, 62]) + more) for more in ([], ppb([60, 60], cost=1)))
    assert "Claim 3" not in summary.summary(plain, claims.evaluate(plain))
    assert "defen" not in summary.summary(plain, claims.evaluate(plain))
    text = summary.summary(defended, claims.evaluate(defended))
    assert "An accuracy's 95 % interval is\nat most ±2.0 points." in text
    assert "Claim 2" in text
    assert "than without, against an adversary who knows of it\n  TOO FEW TO TELL: the difference is" in text
    assert "PPB costs +1.00 points" in text
    versions = [line.split()[3:5] for line in text.split("with defences: ")[1].split("\n\n")[0].splitlines()[3:]]
    assert [v[0] for v in versions] == ["none", "ppb", "none", "ppb"] and versions[1][1] == "4"
    assert "who doesn't know of it\n  TOO FEW TO TELL: no setting has the results" in text


def test_models_that_learnt_nothing_are_named_before_the_verdicts():
    plain = pd.DataFrame(family([61, 62]))
    found, guessing = (
        claims.evaluate(plain),
        [f"digits/cnn/slim_0.{i} (1 of 6)" for i in range(claims.MAX_EXCEPTIONS + 2)],
    )
    for text, verdicts in (
        (summary.summary(plain, found, guessing), "\n\nClaim 1"),
        (claims_text.markdown(found, guessing), "\n\n## Claim 1"),
    ):
        said = text.split(verdicts)[0].rpartition("\n\n")[2]
        assert said.startswith("Models that learnt nothing") and said.endswith("(1 of 6) and 2 more settings.")
    assert "learnt nothing" not in summary.summary(plain, found) + claims_text.markdown(found)


# --- networks that learnt nothing


def failing(table, setting, attack="samia"):
    """The table with that result marked, its accuracy as if the attack found nothing."""
    mine = (setting.dataset, setting.model, setting.pruner, setting.tuning, setting.defense)
    for row in table:
        at = tuple(row[key] for key in ("dataset", "model", "pruner", "tuning", "defense"))
        here = at == mine and (setting.sparsity is None or row["sparsity"] == float(setting.sparsity))
        if here and row["attack"] == attack:
            row |= {"failed": "attack", "accuracy": 0.5}
    return table


def test_a_failed_attack_moves_no_claim_and_is_counted():
    worst = grid.Setting("location", "fc", "l1", "0.9")
    sound = evaluate(family([62, 63, 64, 65]))[1, "all"]
    marked = evaluate(failing(family([62, 63, 64, 65, 50]), worst))[1, "all"]
    assert (marked.settings, marked.holds, marked.left_out) == (sound.settings, sound.holds, 1)
    assert (marked.effect, marked.sign_flip_p) == (sound.effect, sound.sign_flip_p)
    text = claims_text.markdown(claims.evaluate(pd.DataFrame(failing(family([62, 63, 64, 65, 50]), worst))))
    assert "1 more failed and left out, as a network of theirs learnt nothing" in text


def test_a_failed_attack_on_the_original_leaves_nothing_to_compare_with():
    marked = evaluate(failing(family([62, 63, 64, 65, 66]), grid.Setting("location", "fc")))[1, "all"]
    assert (marked.settings, marked.left_out, marked.verdict) == (0, 5, claims.TOO_FEW)
    assert "Seen: nothing, as in all 5 settings a network learnt nothing." in claims_text.markdown([marked])


def test_an_attack_that_failed_is_no_defence_that_worked():
    strong = ppb([50.0] * 5)
    for level in LEVELS:
        failing(strong, grid.Setting("location", "fc", "l1", level, defense="ppb", strength="4"))
    claim = evaluate(family([60, 61, 62, 63, 64]) + strong)["adaptive", "all"]
    assert (claim.settings, claim.left_out, claim.verdict) == (0, 5, claims.TOO_FEW)


def test_a_failed_attack_is_not_the_strongest_nor_shown_as_a_coin_toss():
    table = pd.DataFrame(failing(family([62, 63], conf=[61, 61]), grid.Setting("location", "fc", "l1", "0.6")))
    shown = tables.paper_table(table, "location").set_index("sparsity")
    assert shown.loc["0.6", "samia"] == "failed" and shown.loc["0.6", "conf"] == "61.00"
    found = summary.summary(table, claims.evaluate(table))
    assert (
        "of 0.66 (conf; 1 failed) to 0.67 (samia on l1_0.5) after" in " ".join(found.split())
        and "60.00 failed 61.00" in found
    )
    finding = " ".join(found.split("\n\n")[0].split())
    assert finding.endswith(
        "A coin toss has 0.50. Left out as failed, because a network learnt nothing: 1 of 8 results."
    )


def test_claim_2_says_how_many_other_attacks_failed():
    table = failing(family([62, 63], conf=[61, 61]), grid.Setting("location", "fc", "l1", "0.6"), "conf")
    claim = evaluate(table)[2, "all"]
    assert (claim.settings, claim.holds, claim.left_out) == (2, 2, 0), "there is corr"
    text = "Others: conf, corr. Left out as failed, because a network learnt nothing: 1 of 4 results"
    assert claim.detail.endswith(text) and text in claims_text.markdown(claims.evaluate(pd.DataFrame(table)))


def test_claim_3_leaves_what_the_strongest_attack_reaches_and_counts_the_settings_it_compares():
    table = family([78, 60], conf=[56, 56]) + ppb([70])
    table += rows(grid.Setting("location", "fc", "l1", "0.5", defense="ppb", strength="4"), conf=55)
    for level in ("0.5", "0.6"):  # 0.6 has no defended version
        failing(table, grid.Setting("location", "fc", "l1", level))
    by_auc = [c for c in claims.evaluate(pd.DataFrame(table)) if (c.number, c.adversary) == (3, "adaptive")]
    by_auc = [c for c in by_auc if c.measure == claims.STRONGEST]
    (claim,) = (c for c in by_auc if c.scope == "all")
    assert claim.left == pytest.approx(75), "of SAMIA, though nobody knows what it reached without the defence"
    assert claim.effect == pytest.approx(1), "of conf, which is on both sides"
    assert claim.detail.endswith("Left out as failed, because a network learnt nothing: 1 of 5 results")
    assert all("Left out" not in c.detail for c in by_auc if c.scope != "all")


def test_where_every_attack_failed_nothing_is_said_of_it():
    table = pd.DataFrame(family([62, 63])).assign(failed="victim", accuracy=0.5, auc=0.5)
    found = summary.summary(table, claims.evaluate(table))
    assert "location, fc: no attack says anything. Left out as failed, because" in " ".join(found.split())
    assert not any("50" in line for line in found.splitlines() if "failed" in line)


def test_a_failed_attack_on_a_defended_model_is_not_the_strongest():
    strong = grid.Setting("location", "fc", "l1", "0.5", defense="ppb", strength="4")
    table, shown = rows(strong, samia=61.0, nn=64.0, conf=63.0), []
    for attack in ("corr", "nn", "samia", "conf"):  # there is no corr: nothing has failed at first
        row = tables.defense_table(pd.DataFrame(failing(table, strong, attack)), "location").loc[0]
        shown.append((row["samia adaptive"], row["strongest adaptive"]))
    assert shown == [
        *(("61.00", "0.690 (nn)"), ("61.00", "0.680 (conf; 1 failed)")),
        *(("failed", "0.680 (conf; 2 failed)"), ("failed", "failed")),
    ]


@pytest.mark.usefixtures("catalogue")
def test_the_papers_claims_are_not_about_attacks_that_users_add():
    with catalog.registering(entries.Extension("my_lab.py", "0")):
        catalog.attack("gap")(Scorer)
    table = family([70.0, 71.0, 72.0], conf=[60.0, 61.0, 62.0])
    with_it = table + [row | {"attack": "gap", "accuracy": 0.99} for row in table if row["attack"] == "corr"]
    assert evaluate(with_it)[2, "all"].effect == evaluate(table)[2, "all"].effect


class Scorer:
    fit = score = print
