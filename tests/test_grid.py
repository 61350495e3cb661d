"""The grid: 255 settings, and one clear line for everything outside it."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from miaprune import grid
from miaprune.grid import GridError, Setting

PAPER = yaml.safe_load(Path("config.yaml").read_text())


def test_the_papers_grid_has_15_originals_and_255_pruned_settings():
    assert len(grid.originals(PAPER)) == 15
    assert len(set(grid.pruned(PAPER))) == len(grid.pruned(PAPER)) == 255


def test_settings_lists_originals_first_and_each_once():
    both = grid.settings(PAPER, PAPER)
    assert len(both) == len(set(both)) == 270
    assert all(s.pruner is None for s in both[:15])


@given(st.sampled_from([victim for victim, _ in grid.over_seeds(grid.attacked(grid.settings(PAPER), PAPER), [7, 8])]))
def test_a_setting_is_its_path(setting):
    assert Setting.parse(setting.path) == setting


def test_paths_are_the_public_interface():
    assert Setting("cifar10", "resnet18", "l1", "0.7").path == "cifar10/resnet18/l1_0.7"
    assert Setting("cifar10", "resnet18").path == "cifar10/resnet18/original"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("cifra10/resnet18/l1_0.7", "unknown dataset 'cifra10': did you mean 'cifar10'?"),
        ("cifar10/resnet/l1_0.7", "unknown model 'resnet': did you mean 'resnet18'?"),
        ("cifar10/resnet18/l3_0.7", "unknown pruner 'l3': did you mean 'l1'?"),
        ("location/resnet18/l1_0.7", "model resnet18 does not take location; use fc"),
        ("location/fc/slim_0.7", "slim does not apply to model fc; use l1, random, l1_global, wanda or two_four"),
        ("location/resnet18/random_0.7", "model resnet18 does not take location; use fc"),
        ("location/fc/two_four_0.7", "location/fc/two_four_0.7: pruner two_four has one sparsity; write two_four_0.5"),
        ("location/fc/two_four_0.50", "'0.50' has one name in paths; write 0.5"),
        ("location/fc/l1_globl_0.7", "unknown pruner 'l1_globl': did you mean 'l1_global'?"),
        ("location/fc/l1_0", "sparsity '0' must be a number above 0 and below 1"),
        ("location/fc/l1_1", "sparsity '1' must be a number above 0 and below 1"),
        ("location/fc/l1_1.7", "sparsity '1.7' must be"),
        ("location/fc/l1_half", "sparsity 'half' must be"),
        ("location/fc/l1_nan", "sparsity 'nan' must be"),
        ("location/fc/orignal", "neither 'original' nor pruner_sparsity"),
        ("location/fc", "no setting"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(path, message):
    with pytest.raises(GridError, match=re.escape(message)) as caught:
        Setting.parse(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sparsity", [0, 1, 1.7, -0.5, "half", True, None])
def test_a_sparsity_in_the_config_lies_between_0_and_1(sparsity):
    with pytest.raises(GridError, match="above 0 and below 1"):
        grid.pruned(PAPER | {"sparsities": [0.5, sparsity]})


def test_pruners_beyond_the_papers_are_left_out_where_they_do_not_exist():
    block = {"datasets": ["location"], "models": ["fc"], "sparsities": [0.5, 0.7]}
    block["pruners"] = ["two_four", "l1_structured", "random", "l1_global", "wanda"]
    assert [s.variant for s in grid.pruned(block)] == [
        "two_four_0.5",
        *(f"{pruner}_{s}" for pruner in ("random", "l1_global", "wanda") for s in ("0.5", "0.7")),
    ]


def test_a_pruner_with_none_of_its_sparsities_is_an_error_not_an_empty_run():
    with pytest.raises(GridError, match=r"none of the sparsities \['0.7'\] is one of two_four; add 0.5"):
        grid.pruned(PAPER | {"pruners": ["l1", "two_four"], "sparsities": [0.7]})


@pytest.mark.parametrize("pruner", grid.PRUNERS)
def test_a_pruner_s_name_ends_where_its_sparsity_begins(pruner):
    setting = Setting("digits", "cnn", pruner, "0.5")
    assert Setting.parse(setting.path) == setting


def test_a_dataset_that_no_listed_model_takes_is_an_error_not_an_empty_run():
    with pytest.raises(GridError, match=r"none of the models \['resnet18'\] takes location; add fc"):
        grid.originals(PAPER | {"datasets": ["cifar10", "location"], "models": ["resnet18"]})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("location/fc/l1_0.7/ppv_4", "unknown defense 'ppv': did you mean 'ppb'?"),
        ("location/fc/l1_0.7/ppb_-1", "strength '-1' of defense ppb must be a number from 0 to 1e9"),
        ("location/fc/l1_0.7/adv_much", "strength 'much' of defense adv must be"),
        ("location/fc/l1_0.7/dp_0", "strength '0' of defense dp must be a number from 1e-06 to 1e9"),
        ("location/fc/l1_0.7/dp_inf", "strength 'inf' of defense dp must be"),
        ("location/fc/l1_0.7/dp_1e-200", "strength '1e-200' of defense dp must be"),
        ("location/fc/l1_0.7/ppb_1e39", "strength '1e39' of defense ppb must be"),
        ("location/fc/l1_0.7/ppb_+4", "strength '+4' of defense ppb must be"),
        ("location/fc/original/ppb_4", "defences act in fine-tuning"),
    ],
)
def test_a_defence_that_does_not_exist_is_refused(path, message):
    with pytest.raises(GridError, match=re.escape(message)):
        Setting.parse(path)


@pytest.mark.parametrize("strengths", [["1_000"], [" 4 "], ["４"]])
def test_a_strength_is_written_plainly(strengths):
    entry = {"defense": "ppb", "strengths": strengths, "part": "all", "adversaries": ["adaptive"]}
    with pytest.raises(GridError, match="must be a number from 0 to 1e9"):
        grid.attacked(grid.settings(PAPER), PAPER | {"defenses": [entry]})


def test_one_setting_has_one_name():
    entries = [
        {"defense": "ppb", "strengths": [strength], "part": "half", "adversaries": ["adaptive"]}
        for strength in (4, "4.0")
    ]
    block = PAPER | {"sparsities": [0.5, "0.50"], "defenses": entries, "parts": {"half": {"sparsities": ["0.500"]}}}
    settings = grid.settings(block)
    assert {s.sparsity for s in settings} == {None, "0.5"}
    attacked = grid.attacked(settings, block | {"transfer": "none", "controls": "none"})
    assert {v.strength for v, _ in attacked if v.defense} == {"4"} and len(attacked) == len(set(attacked))
    for path in ("location/fc/l1_0.50", "location/fc/l1_0.5/ppb_4.0"):
        with pytest.raises(GridError, match="has one name in paths; write"):
            Setting.parse(path)


def test_a_part_that_picks_nothing_is_an_error_unless_its_data_sets_are_left_out():
    entry = {"defense": "ppb", "strengths": [4], "part": "one", "adversaries": ["adaptive"]}
    block = PAPER | {"defenses": [entry], "transfer": "none", "controls": "none"}
    block["parts"] = {"one": {"sparsities": [0.55]}}
    with pytest.raises(GridError, match="part one picks no setting"):
        grid.attacked(grid.settings(block), block)
    for elsewhere in ({"datasets": ["digits"]}, {"pruners": ["wanda"]}):
        block["parts"] = {"one": elsewhere}
        assert not [v for v, _ in grid.attacked(grid.settings(block), block) if v.defense]


def test_what_is_attacked_covers_the_third_claim_on_all_255_settings():
    settings = grid.settings(PAPER)
    attacked = grid.attacked(settings, PAPER)
    ppb = [(v, a) for v, a in attacked if (v.defense, v.strength) == ("ppb", "4")]
    assert len(ppb) == len(set(ppb)) == 2 * 255
    assert {a for _, a in ppb} == {"matched", "unaware"}
    location = [s for s in grid.pruned(PAPER) if s.dataset == "location"]
    crossed = {(v.sparsity, a) for v, a in attacked if v.dataset == "location" and a.startswith("shadows_")}
    assert crossed == {(v.sparsity, f"shadows_{s.variant}") for v in location for s in location if s != v}


def test_controls_are_of_every_original_and_of_the_part_s_pruned_settings():
    settings = grid.settings(PAPER)
    controls = grid.controls(settings, PAPER)
    versions = [s.version for s in controls if (s.dataset, s.model) == ("location", "fc")]
    levels = [str(level) for level in PAPER["sparsities"]]
    assert versions == ["finetuned", *(f"l1_{x}/untuned" for x in levels), *(f"random_{x}" for x in levels)]
    assert [s.original for s in controls if s.variant == "finetuned"] == grid.originals(PAPER)
    assert all(map(grid.is_control, controls)) and not any(map(grid.is_control, settings))
    assert grid.controls(settings, PAPER | {"controls": "none"}) == []
    attacked = grid.attacked(settings, PAPER)
    assert {(s, "matched") for s in controls} < set(attacked)
    of_two = grid.over_seeds(attacked, [7, 8])
    assert of_two[: len(attacked)] == attacked and {v.path.split("/")[0] for v, _ in of_two[len(attacked) :]} == {
        "seed_8"
    }


def test_an_adversary_s_results_lie_below_its_victim_s():
    victim = Setting("location", "fc", "l1", "0.7", "ppb", "4")
    assert grid.folder(victim, "unaware") == "location/fc/l1_0.7/ppb_4/unaware"
    assert Setting.parse(victim.path) == victim


def test_derived_seeds_differ_by_seed_and_purpose():
    seeds = {grid.derive_seed(s, *p) for s in range(100) for p in (("a", "b"), ("a", "c"), ("ab",))}
    assert len(seeds) == 300
    assert grid.derive_seed(7, "a") == grid.derive_seed(7, "a")
