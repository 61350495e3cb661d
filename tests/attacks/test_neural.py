"""The neural attacks: the encoder against torch's own, the dropout's rate, and what they can and cannot tell."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from synthetic import make_signals
from torch import nn

from miaprune import grid, metrics
from miaprune.attacks import attack, neural
from miaprune.networks import layers

RECIPES = yaml.safe_load(Path("config.yaml").read_text())["attack_recipes"]
RECIPES = {name: recipe | {"epochs": recipe["epochs"]["samia"]} for name, recipe in RECIPES.items()}
QUICK = RECIPES["fast"] | {"epochs": 5, "least_steps": 1}


def test_every_attack_of_the_grid_exists_and_is_in_one_family():
    assert all(attack(name) for name in grid.ATTACKS)
    assert sorted(a for family in grid.ATTACK_FAMILIES.values() for a in family) == sorted(grid.ATTACKS)


def test_an_attack_without_an_implementation_is_named(monkeypatch):
    monkeypatch.setattr(grid, "ATTACKS", (*grid.ATTACKS, "lira"))
    with pytest.raises(grid.GridError, match=r"attack lira: miaprune/grid\.py names it, but attack\(\)"):
        attack("lira")


def test_encoder_layer_is_torchs_layer():
    ours = neural.EncoderLayer(64, 4, 128, 0.2, np.random.default_rng(0)).eval()
    theirs = nn.TransformerEncoderLayer(64, 4, 128, 0.2, "gelu", batch_first=True).eval()
    names = {
        "self_attn.in_proj_weight": "qkv.weight", "self_attn.in_proj_bias": "qkv.bias",
        "self_attn.out_proj.weight": "out.weight", "self_attn.out_proj.bias": "out.bias",
        "linear1.weight": "up.weight", "linear1.bias": "up.bias",
        "linear2.weight": "down.weight", "linear2.bias": "down.bias",
    }  # fmt: skip
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.2)
    state = ours.state_dict()
    theirs.load_state_dict({k: state[names.get(k, k)] for k in theirs.state_dict()})
    x = torch.randn(5, 7, 64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_dropout_keeps_the_mean_and_drops_at_its_rate():
    dropout, n, p = layers.Dropout(0.2, np.random.default_rng(0)), 1_000_000, 0.2
    x = torch.ones(n, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    assert set(y.detach().unique().tolist()) == {0.0, 1.25}
    # 5 standard errors: false alarm once in 1.7 million
    assert abs((y == 0).float().mean().item() - p) < 5 * (p * (1 - p) / n) ** 0.5
    assert torch.equal(x.grad, y.detach()), "the gradient goes through the same mask"
    assert torch.equal(dropout.eval()(x), x)


def test_samia_reads_posterior_sensitivity_and_label_of_each_class():
    s = make_signals(6, 4, 0)
    x = neural.samia_features(s)
    assert x.shape == (6, 3, 4) and x.dtype == np.float32
    np.testing.assert_array_equal(x[:, 0], s.posteriors)
    np.testing.assert_array_equal(x[:, 1], s.sensitivities)
    np.testing.assert_array_equal(x[:, 2].argmax(1), s.labels)


def test_top3_posteriors_are_sorted():
    s = make_signals(50, 10, 0)
    expected = [sorted(row, reverse=True)[:3] for row in s.posteriors.tolist()]
    np.testing.assert_array_equal(neural.nn_top3_features(s), np.array(expected, dtype=np.float32))


@pytest.mark.parametrize("name", grid.NEURAL_ATTACKS)
def test_same_seed_same_scores_and_another_seed_others(name):
    shadows, victim = make_signals(300, 5, 0), make_signals(200, 5, 1)
    a, b, c = (
        attack(name).score(attack(name).fit(shadows, QUICK, seed, "cpu"), victim, QUICK, seed, "cpu")
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_set_the_learning_rate_they_describe(recipe):
    options = RECIPES[recipe]
    rates = [neural.learning_rate(options, step, 20) for step in range(20 * options["epochs"])]
    assert max(rates) == pytest.approx(options["lr"])
    if recipe == "paper":
        assert [rates[20 * e] for e in (0, 49, 50, 74, 75, 99)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_few_records_are_trained_on_for_more_epochs():
    fast = RECIPES["fast"] | {"epochs": 5, "least_steps": 320}
    assert [neural.epochs_of(fast, steps) for steps in (1, 32, 63, 64, 65, 1000)] == [320, 10, 6, 5, 5, 5]
    assert neural.epochs_of(RECIPES["paper"], 1) == 100


@pytest.mark.parametrize("name", grid.ATTACKS)
def test_without_a_difference_every_attack_scores_one_half(name):
    options = {"top": 3, "batch": 1000} if name == "blindmi" else QUICK
    shadows, victim = make_signals(4000, 10, 0), make_signals(4000, 10, 1)
    scores = attack(name).score(attack(name).fit(shadows, options, 0, "cpu"), victim, options, 0, "cpu")
    # The accuracy of a coin on 2000 + 2000 records: 4 standard errors, a false alarm in 16 000
    assert abs(metrics.accuracy(scores, victim.members) - 0.5) < 4 * 0.5 / 4000**0.5


@pytest.mark.parametrize("name", [a for a in grid.ATTACKS if a != "corr"])
def test_on_separable_signals_every_attack_scores_near_one(name):
    options = {"top": 3, "batch": 1000} if name == "blindmi" else QUICK
    shadows, victim = (make_signals(4000, 10, seed, member_boost=30) for seed in (0, 1))
    scores = attack(name).score(attack(name).fit(shadows, options, 0, "cpu"), victim, options, 0, "cpu")
    assert metrics.accuracy(scores, victim.members) > 0.95


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", grid.NEURAL_ATTACKS)
def test_captured_training_is_the_training(name, recipe, monkeypatch):
    """Without dropout, over epochs of batches of two sizes: the same scores but for rounding."""
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, p: x)
    shadows, victim = make_signals(500, 10, 1, member_boost=1.0), make_signals(100, 10, 2, member_boost=1.0)
    options, found = RECIPES[recipe] | {"epochs": 6, "least_steps": 1, "milestones": [2, 4]}, []
    for _ in range(2):
        found.append(attack(name).score(attack(name).fit(shadows, options, 1, "cuda"), victim, options, 1, "cuda"))
        monkeypatch.setattr(neural, "Captured", lambda step: step)
    np.testing.assert_allclose(*found, rtol=0, atol=1e-2 * np.abs(found[1]).max())
