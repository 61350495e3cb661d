"""Models side by side compute and learn what each does alone."""

import pytest
import torch
from torch import nn

from miaprune.data import splits
from miaprune.networks import models, pruning
from miaprune.networks.stack import Stack, unstack
from miaprune.training import loop as training
from miaprune.training import together
from miaprune.training.defenses import PairBalancing
from miaprune.training.loop import train
from miaprune.training.objectives import CrossEntropy
from miaprune.training.together import in_turn

RECIPE = {"epochs": 12, "learning_rate": 1e-2, "weight_decay": 5e-4, "batch_size": 64, "patience": 1}
SPLITS = [splits.shadow_split(1797, 7, i) for i in range(3)]


def without_dropout(data, seed, prune=True):
    model = models.build("fc", data.input_shape, data.classes, seed)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if prune:
        pruning.PRUNERS["l1"](model, 0.7)
    return model


def test_each_member_sees_its_own_records(digits):
    alone = [without_dropout(digits, seed) for seed in range(3)]
    x = torch.randn(3, 5, *digits.input_shape)
    together = Stack(alone)(x)
    for i, model in enumerate(alone):
        torch.testing.assert_close(together[i], model(x[i]))


def test_members_are_the_models_states(digits):
    alone = [without_dropout(digits, seed) for seed in range(3)]
    for model, state in zip(alone, unstack(Stack(alone)), strict=True):
        assert model.state_dict().keys() == state.keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    (only,) = unstack(alone[0])
    assert only.keys() == alone[0].state_dict().keys()


def test_dropout_draws_anew_for_each_member(digits):
    model = models.build("fc", digits.input_shape, digits.classes, 0)
    stack, x = Stack([model, model]), torch.randn(1, 50, *digits.input_shape).expand(2, -1, -1, -1, -1)
    a, b = stack.train()(x)
    assert not torch.equal(a, b)
    a, b = stack.eval()(x)
    assert torch.equal(a, b)


@pytest.mark.parametrize("objective", [CrossEntropy(), PairBalancing(4.0)])
def test_trained_together_as_each_alone(digits, objective):
    """Same batches, same early stopping, masks in force: the same but for the order of float32 sums."""
    alone = [without_dropout(digits, seed) for seed in range(3)]
    together = [without_dropout(digits, seed) for seed in range(3)]
    trainings = [train([m], digits, [SPLITS[i]], RECIPE, objective, [i]) for i, m in enumerate(alone)]
    trainings.append(train(together, digits, SPLITS, RECIPE, objective, [0, 1, 2]))
    *each, facts = in_turn(trainings, torch.device("cpu"))
    expected = [one for (one,) in each]
    assert len({one["epochs_run"] for one in expected}) > 1, "they are stopped at different epochs"
    assert [one["epochs_run"] for one in facts] == [one["epochs_run"] for one in expected]
    assert [one["epoch"] for one in facts] == [one["epoch"] for one in expected]
    for a, b, one, other in zip(alone, together, expected, facts, strict=True):
        for name, tensor in a.state_dict().items():
            torch.testing.assert_close(tensor, b.state_dict()[name], rtol=1e-2, atol=1e-4)
        assert one["test_accuracy"] == pytest.approx(other["test_accuracy"], abs=2 / 405)
        masks, final = pruning.masks(b), pruning.finalise(b).state_dict()
        assert masks and not any(final[name][mask == 0].any() for name, mask in masks.items())


def test_who_is_trained_together(digits):
    fc, cnn = (models.build(name, digits.input_shape, digits.classes, 0) for name in ("fc", "cnn"))
    roles = [f"shadow_{i}" for i in range(3)]
    parts = {"victim": splits.victim_split(1797, 7), **dict(zip(roles, SPLITS, strict=True))}
    ordinary = dict.fromkeys(parts, CrossEntropy())
    assert [len(split.train) for split in parts.values()] == [403, 404, 404, 404]
    gpu, each = torch.device("cuda"), [["victim"], *([role] for role in roles)]
    assert together._stacks(dict.fromkeys(parts, fc), parts, ordinary, gpu) == [["victim"], roles]
    assert together._stacks(dict.fromkeys(parts, fc), parts, ordinary, torch.device("cpu")) == each
    assert together._stacks(dict.fromkeys(parts, cnn), parts, ordinary, gpu) == each

    class Alone(CrossEntropy):
        by_loss = False

    # Stacks are trained side by side where each step is one launch.
    assert training.captured(ordinary.values(), gpu)
    assert not training.captured([*ordinary.values(), Alone()], gpu)
    assert not training.captured(ordinary.values(), torch.device("cpu"))

    assert together._stacks(dict.fromkeys(parts, fc), parts, dict.fromkeys(parts, Alone()), gpu) == each
