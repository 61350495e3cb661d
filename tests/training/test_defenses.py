"""The defences: each loss and gradient against a plain definition, and what each must leave alone."""

import copy
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from opacus.accountants import RDPAccountant
from torch import nn
from torch.nn import functional as F

from miaprune import grid
from miaprune.data import splits
from miaprune.data.splits import Split
from miaprune.networks import models, pruning
from miaprune.training import defenses
from miaprune.training.defenses import build, epsilon, pair_divergence
from miaprune.training.loop import train
from miaprune.training.objectives import CrossEntropy
from miaprune.training.together import in_turn

RECIPE = {"epochs": 2, "learning_rate": 1e-3, "weight_decay": 5e-4, "batch_size": 64, "patience": 5}
SPLIT = splits.victim_split(1797, 7)
BATCHES = math.ceil(len(SPLIT.train) / RECIPE["batch_size"])
OPTIONS = {
    "ppb": {},
    "adv": {"inference_steps": 2, "inference_lr": 1e-3},
    "dp": {"clip": 1.0, "delta": 1e-5, "chunk": 64},
}
STRENGTHS = {"ppb": 4.0, "adv": 1.0, "dp": 1.0}
PRUNED = [("fc", "l1"), ("cnn", "l1"), ("cnn", "l1_structured"), ("cnn", "slim")]


def objective_of(data, defense, strength=None, seed=1, recipe=RECIPE, split=SPLIT, **options):
    strength = STRENGTHS[defense] if strength is None else strength
    return build(defense, strength, OPTIONS[defense] | options, data, split, recipe, seed)


def pruned_model(data, name="cnn", pruner="l1", seed=0):
    """A pruned model whose batch norm and biases are not at their initial, all too regular, values."""
    model = models.build(name, data.input_shape, data.classes, seed)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data):
                tensor.uniform_(0.5, 1.5, generator=generator)
    pruning.PRUNERS[pruner](model, 0.5)
    return model


def trained(data, objective, name="cnn", pruner="l1", recipe=RECIPE, split=SPLIT, seed=1):
    model = pruned_model(data, name, pruner)
    (facts,) = in_turn([train(model, data, split, recipe, objective, seed)], data.inputs.device)
    return model, facts


def equal_states(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def train_batch(data, n=12):
    index = torch.from_numpy(SPLIT.train[:n])
    return data.batch(index), data.labels[index]


# --- build


def test_every_defence_of_the_grid_is_built_from_the_shipped_config(digits):
    options = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())["defense_options"]
    assert tuple(options) == tuple(grid.DEFENSES)
    for defense in grid.DEFENSES:
        build(defense, 1.0, options[defense], digits, SPLIT, RECIPE, 1)


def test_no_option_is_dropped(digits):
    adv = objective_of(digits, "adv", 3.0, inference_steps=5, inference_lr=0.25, recipe=RECIPE | {"batch_size": 17})
    assert (adv.strength, adv.inference_steps, adv.batch_size) == (3.0, 5, 17)
    assert adv.optimizer.param_groups[0]["lr"] == 0.25
    dp = objective_of(digits, "dp", 3.0, clip=0.25, delta=1e-3, chunk=5)
    assert (dp.noise_multiplier, dp.clip, dp.delta, dp.chunk) == (3.0, 0.25, 1e-3, 5)
    assert objective_of(digits, "ppb", 3.0).strength == 3.0


@pytest.mark.parametrize("defense", grid.DEFENSES)
def test_same_seed_same_bytes_and_another_seed_others(digits, defense):
    a, b, c = (
        trained(digits, objective_of(digits, defense, seed=seed), "fc", recipe=RECIPE | {"epochs": 1})[0]
        for seed in (1, 1, 2)
    )
    assert equal_states(a, b)
    # ppb draws nothing of its own: all its randomness is the training loop's, whose seed is 1 here
    assert equal_states(a, c) == (defense == "ppb")


@pytest.mark.parametrize("defense", grid.DEFENSES)
def test_the_global_generator_is_left_alone(digits, defense):
    before = torch.get_rng_state()
    trained(digits, objective_of(digits, defense), recipe=RECIPE | {"epochs": 1})
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("name", "pruner"), [("fc", "l1"), ("cnn", "slim")])
@pytest.mark.parametrize("defense", ["ppb", "adv"])
def test_strength_zero_is_exactly_the_undefended_training(digits, defense, name, pruner):
    undefended, facts = trained(digits, CrossEntropy(), name, pruner)
    defended, defended_facts = trained(digits, objective_of(digits, defense, 0.0), name, pruner)
    assert equal_states(undefended, defended)
    assert facts == defended_facts
    stronger, _ = trained(digits, objective_of(digits, defense), name, pruner)
    assert not equal_states(undefended, stronger)


@pytest.mark.parametrize("defense", grid.DEFENSES)
@pytest.mark.parametrize(("name", "pruner"), PRUNED)
def test_pruned_weights_are_exactly_zero_after_training(digits, defense, name, pruner):
    model, _ = trained(digits, objective_of(digits, defense), name, pruner, RECIPE | {"epochs": 1})
    masks = pruning.masks(model)
    state = pruning.finalise(copy.deepcopy(model)).state_dict()
    assert masks
    for parameter, mask in masks.items():
        assert not state[parameter][mask == 0].any()
        assert state[parameter][mask == 1].all()


# --- ppb


def plain_divergence(logits):
    """The definition, pair by pair, in float64 numpy."""
    half, total = len(logits) // 2, 0.0
    for i in range(half):
        first, second = (np.sort(row)[::-1] for row in (logits[i], logits[half + i]))
        p, q = np.exp(second) / np.exp(second).sum(), np.exp(first) / np.exp(first).sum()
        total += sum(p[c] * math.log(p[c] / q[c]) for c in range(len(p)))
    return total / half


@pytest.mark.parametrize("batch", [2, 3, 4, 7, 64])
def test_ppb_loss_is_the_plain_definition(batch, digits):
    logits = 3 * torch.randn(batch, 10, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)
    y = torch.arange(batch) % 10
    expected = F.cross_entropy(logits, y).item() + 2.5 * plain_divergence(logits.numpy())
    assert objective_of(digits, "ppb", 2.5).loss(logits, y).item() == pytest.approx(expected, rel=1e-12)


def test_ppb_leaves_the_odd_last_record_to_the_cross_entropy():
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(pair_divergence(logits), logits)
    assert not gradient[6].any()
    assert gradient[:6].any(dim=1).all()


def test_ppb_of_one_record_is_its_cross_entropy(digits):
    logits = torch.tensor([[3.0, -1.0, 90.0]], requires_grad=True)
    y = torch.tensor([0])
    loss, plain = objective_of(digits, "ppb").loss(logits, y), F.cross_entropy(logits, y)
    assert loss == plain
    assert torch.equal(*(torch.autograd.grad(value, logits)[0] for value in (loss, plain)))


def test_ppb_trains_with_a_last_batch_of_one(digits):
    size = len(SPLIT.train) - 1
    model, _ = trained(digits, objective_of(digits, "ppb"), recipe=RECIPE | {"batch_size": size})
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_ppb_gradient_by_finite_differences(digits):
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 3, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda z: objective_of(digits, "ppb", 4.0).loss(z, y), logits)


# --- adv


class Recorder:
    """A dataset that remembers which records were asked for."""

    def __init__(self, data):
        self.data, self.labels, self.classes, self.asked = data, data.labels, data.classes, []

    def batch(self, index):
        self.asked.append(index)
        return self.data.batch(index)


def test_adv_steps_the_inference_model_before_every_batch_of_every_epoch(digits):
    objective = objective_of(digits, "adv", inference_steps=3)
    objective.data = Recorder(digits)
    steps = []
    step = objective.optimizer.step
    objective.optimizer.step = lambda: (steps.append(1), step())
    trained(digits, objective, "fc", recipe=RECIPE)
    assert len(steps) == len(objective.data.asked) == 3 * BATCHES * RECIPE["epochs"]
    size = RECIPE["batch_size"]
    for index in objective.data.asked:
        assert len(index) == 2 * size
        assert set(index[:size].tolist()) <= set(SPLIT.dev.tolist())
        assert set(index[size:].tolist()) <= set(SPLIT.train.tolist())
    seen = torch.cat([index[size:] for index in objective.data.asked]).unique()
    assert len(seen) > 0.9 * len(SPLIT.train)  # drawn anew each time: 36 draws leave out e^-5.7 of the records


def test_adv_inference_model_learns_to_call_train_records_members(digits):
    """A classifier that is sure of its train records and of nothing else gives them away."""
    objective = objective_of(digits, "adv", inference_steps=100)
    is_member = torch.zeros(len(digits), dtype=torch.bool)
    is_member[torch.from_numpy(SPLIT.train)] = True

    class GivesAway(nn.Module):
        def forward(self, index):
            return 9.0 * F.one_hot(digits.labels[index], digits.classes) * is_member[index, None]

    objective.data = Recorder(digits)
    objective.data.batch = lambda index: index
    model = GivesAway()
    objective._train_inference(model)
    for part, member in ((SPLIT.train, 1), (SPLIT.dev, 0)):
        index = torch.from_numpy(part)
        loss = objective._membership_loss(model(index), digits.labels[index], torch.full_like(index, member))
        assert loss < 0.1


def test_adv_inference_steps_leave_the_classifier_alone(digits):
    model = pruned_model(digits)
    objective = objective_of(digits, "adv", inference_steps=3)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    draws = torch.get_rng_state()
    inference = copy.deepcopy(objective.inference)
    objective._train_inference(model)
    assert not equal_states(inference, objective.inference)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all((parameter.grad == 0.5).all() for parameter in model.parameters())
    assert torch.equal(draws, torch.get_rng_state())
    assert all(module.training for module in model.modules())


def test_adv_moves_the_classifier_to_raise_the_inference_loss(digits):
    """Finite differences along the part of the gradient that θ adds, with the inference model held still."""
    model = pruned_model(digits).double()
    x, y = train_batch(digits, 32)
    x, gradients = x.double(), {}
    objective = objective_of(digits, "adv", inference_steps=30)
    objective.inference.double()
    model.train()

    def inference_loss():
        with torch.no_grad():
            features = torch.cat([model(x).softmax(1), F.one_hot(y, digits.classes)], dim=1)
            return F.cross_entropy(objective.inference(features), torch.ones_like(y)).item()

    for theta in (0.0, 2.0):
        objective.strength, objective.inference_steps = theta, 0
        model.zero_grad()
        objective.backward(model, x, y)
        gradients[theta] = [parameter.grad.clone() for parameter in model.parameters()]
    added = [g - plain for g, plain in zip(gradients[2.0], gradients[0.0], strict=True)]
    before, step = inference_loss(), 1e-6 / math.sqrt(sum(g.square().sum().item() for g in added))
    with torch.no_grad():
        for parameter, g in zip(model.parameters(), added, strict=True):
            parameter -= step * g
    # a step of length h against g = -θ∇L changes L by h|∇L| = h|g| / θ
    expected = 1e-6 * (1e-6 / step) / 2.0
    assert inference_loss() - before == pytest.approx(expected, rel=1e-3)
    assert expected > 0


# --- dp


def frozen(model):
    """The model as DP-SGD sees it, without dropout, in float64."""
    model.double().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
    return model


def record_gradients(model, x, y):
    """Each record's gradient by its own backward pass."""
    for i in range(len(x)):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        yield {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def norm(gradient):
    return math.sqrt(sum(g.square().sum().item() for g in gradient.values()))


def assert_close(a, b, rel=1e-10):
    assert a.keys() == b.keys()
    difference = {name: a[name] - b[name] for name in a}
    assert norm(difference) <= rel * norm(b)


@pytest.mark.parametrize(("name", "pruner"), PRUNED)
def test_dp_sums_each_records_clipped_gradient(digits, name, pruner):
    model = frozen(pruned_model(digits, name, pruner))
    x, y = train_batch(digits)
    x = x.double()
    per_record = list(record_gradients(model, x, y))
    clip = float(np.median([norm(g) for g in per_record]))  # some are clipped, some are not
    expected = {
        parameter: sum(g[parameter] * min(1.0, clip / norm(g)) for g in per_record) for parameter in per_record[0]
    }
    for chunk in (1, 5, 64):
        total = objective_of(digits, "dp", clip=clip, chunk=chunk).clipped_sum(model, x, y)
        assert_close(total, expected)
    for i, g in enumerate(per_record):
        alone = objective_of(digits, "dp", clip=clip).clipped_sum(model, x[i : i + 1], y[i : i + 1])
        assert norm(alone) <= clip * (1 + 1e-12)
        if norm(g) <= clip:
            assert_close(alone, g)
    for parameter, mask in pruning.masks(model).items():
        assert not total[f"{parameter}_orig"][mask == 0].any(), "pruned weights have no part in the norm"


def test_dp_leaves_frozen_layers_alone_and_takes_a_parameter_of_one_number(digits):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10))
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.scale * self.layers(x)

    model = Scaled()
    model.layers[1].requires_grad_(False)
    x, y = train_batch(digits)
    total = objective_of(digits, "dp", clip=1e9).clipped_sum(model, x, y)
    F.cross_entropy(model(x), y, reduction="sum").backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert "scale" in expected and len(expected) == 3
    assert_close(total, expected, rel=1e-4)
    objective = objective_of(digits, "dp")
    next(objective.batches(torch.arange(100), 50, torch.Generator().manual_seed(0)))
    model.zero_grad()
    objective.backward(model, x, y)
    assert model.layers[1].weight.grad is None and model.scale.grad is not None


def test_dp_takes_a_pruned_resnet18(digits):
    model = models.build("resnet18", (3, 32, 32), 5, seed=0)
    pruning.l1_structured(model, 0.5)
    pruning.slim(model, 0.5)
    model = frozen(model).float()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 3])
    per_record = list(record_gradients(model, x, y))
    expected = {name: sum(g[name] / max(1.0, norm(g)) for g in per_record) for name in per_record[0]}
    dp = defenses.DifferentialPrivacy(1.0, clip=1.0, delta=1e-5, chunk=2, seed=1, data=digits)
    assert_close(dp.clipped_sum(model, x, y), expected, rel=1e-4)


def test_dp_holds_one_chunk_of_gradients_at_a_time(digits, monkeypatch):
    """VGG16 has 135 MB of gradient per record: a chunk's must be gone when the next one's are computed."""
    held, sizes = [], []

    def watched(function, **options):
        per_record = torch.vmap(function, **options)

        def call(*arguments):
            assert not [1 for gradient in held if gradient() is not None]
            gradients = per_record(*arguments)
            held[:] = map(weakref.ref, gradients.values())
            sizes.extend({len(g) for g in gradients.values()})
            return gradients

        return call

    monkeypatch.setattr(defenses, "vmap", watched)
    objective_of(digits, "dp", chunk=5).clipped_sum(frozen(pruned_model(digits)).float(), *train_batch(digits, 12))
    assert sizes == [5, 5, 2]


def test_dp_draws_dropout_for_each_record_by_itself(digits):
    model = models.build("fc", digits.input_shape, digits.classes, seed=0)
    model[3].p = model[6].p = 0.5
    x, y = (tensor.expand(2, *tensor.shape[1:]) for tensor in train_batch(digits, 1))
    total = objective_of(digits, "dp", clip=1e9).clipped_sum(model.train(), x, y)
    # the gradient of a hidden bias is 0 where its unit is dropped (or inactive): one shared draw would drop half of
    # the active units for both records, two draws a quarter of them
    active = model[1](model[0](x))[0] > 0
    kept = (total["1.bias"] != 0)[active].double()
    assert kept.mean().item() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / len(kept)) ** 0.5)


def test_dp_keeps_the_statistics_of_batch_norm_but_trains_its_weights(digits):
    original = pruned_model(digits)
    model, _ = trained(digits, objective_of(digits, "dp"))
    before, after = original.state_dict(), model.state_dict()
    statistics = [name for name in before if "running" in name or "num_batches" in name]
    assert len(statistics) == 9
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    assert not torch.equal(before["1.weight"], after["1.weight"])


@pytest.mark.parametrize(("name", "pruner"), PRUNED)
def test_dp_gives_pruned_weights_neither_gradient_nor_noise(digits, name, pruner):
    model, objective = pruned_model(digits, name, pruner), objective_of(digits, "dp")
    batch = next(objective.batches(torch.from_numpy(SPLIT.train), 64, torch.Generator().manual_seed(1)))
    objective.backward(model.train(), digits.batch(batch), digits.labels[batch])
    masks = pruning.masks(model)
    for parameter, p in model.named_parameters():
        mask = masks.get(parameter.removesuffix("_orig"), torch.ones_like(p))
        assert not p.grad[mask == 0].any()
        assert p.grad[mask == 1].all()


def test_dp_batches_are_poisson_sampled(digits):
    objective = objective_of(digits, "dp")
    index, size, epochs = torch.from_numpy(SPLIT.train), 64, 200
    generator = torch.Generator().manual_seed(0)
    batches = [batch for _ in range(epochs) for batch in objective.batches(index, size, generator)]
    assert len(batches) == epochs * math.ceil(len(index) / size)
    assert all(set(batch.tolist()) <= set(index.tolist()) and len(batch.unique()) == len(batch) for batch in batches)
    sizes, rate = np.array([len(batch) for batch in batches]), size / len(index)
    variance, draws = len(index) * rate * (1 - rate), len(batches)
    # 4 standard errors, as for the shares below: a right sampler fails one such check with another seed in 16,000
    assert sizes.mean() == pytest.approx(size, abs=4 * (variance / draws) ** 0.5)
    assert sizes.var() == pytest.approx(variance, abs=4 * variance * (2 / draws) ** 0.5)
    counts = torch.bincount(torch.cat(batches), minlength=1797)[index]
    # 5 standard errors for each of 404 records: 1 in 4,000
    assert (counts / draws - rate).abs().max() < 5 * (rate * (1 - rate) / draws) ** 0.5


def noise_of(objective, model, data):
    """What an empty batch leaves as the gradient: noise alone."""
    nobody = torch.zeros(0, dtype=torch.int64)
    objective.backward(model.train(), data.batch(nobody), data.labels[nobody])
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize(("sigma", "clip", "size"), [(1.0, 1.0, 64), (2.0, 0.25, 128), (0.5, 1.0, 10**6)])
def test_dp_noise_has_the_scale_of_sigma_times_clip(digits, sigma, clip, size):
    objective = objective_of(digits, "dp", sigma, clip=clip)
    model = models.build("fc", digits.input_shape, digits.classes, seed=0)
    next(objective.batches(torch.from_numpy(SPLIT.train), size, torch.Generator()))
    first, second = (noise_of(objective, model, digits) for _ in range(2))
    scale = sigma * clip / min(size, len(SPLIT.train))  # a batch larger than the data is all of the data
    for noise in (first, second):
        n = len(noise)  # 50,826; 4 standard errors: 1 in 16,000 for each check
        assert noise.mean().item() == pytest.approx(0, abs=4 * scale / n**0.5)
        assert noise.std().item() == pytest.approx(scale, rel=4 / (2 * n) ** 0.5)
    assert torch.corrcoef(torch.stack([first, second]))[0, 1].abs() < 4 / n**0.5


def test_dp_noise_is_not_the_stream_that_draws_the_batches(digits):
    """One seed for both would make the noise a function of who is in the first batches."""
    objective = objective_of(digits, "dp", seed=5)
    model = models.build("fc", digits.input_shape, digits.classes, seed=0)
    next(objective.batches(torch.from_numpy(SPLIT.train), 64, torch.Generator()))
    noise_of(objective, model, digits)
    same_stream = torch.randn(model[1].weight.shape, generator=torch.Generator().manual_seed(5))
    correlation = torch.corrcoef(torch.stack([model[1].weight.grad.flatten(), same_stream.flatten()]))[0, 1]
    assert correlation.abs() < 4 / same_stream.numel() ** 0.5


def test_dp_trains_through_empty_batches(digits):
    """20 records and batches of 1: a batch is empty with probability 0.36."""
    split = Split(SPLIT.train[:20], SPLIT.dev, SPLIT.test)
    objective = objective_of(digits, "dp", split=split)
    sizes = []
    draw = objective.batches
    objective.batches = lambda *a: (sizes.append(len(batch)) or batch for batch in draw(*a))
    model, facts = trained(digits, objective, recipe=RECIPE | {"batch_size": 1}, split=split)
    assert 0 in sizes
    assert facts["privacy"]["steps"] == len(sizes) == 40
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_epsilon_is_opacus_stepped_one_by_one(sigma):
    accountant = RDPAccountant()
    for _ in range(30):
        accountant.step(noise_multiplier=sigma, sample_rate=0.2)
    assert epsilon(sigma, 0.2, 30, 1e-5) == accountant.get_epsilon(delta=1e-5)


def test_epsilon_falls_with_sigma_and_delta_and_grows_with_steps_and_rate():
    assert epsilon(0.5, 0.1, 50, 1e-5) > epsilon(1.0, 0.1, 50, 1e-5) > epsilon(2.0, 0.1, 50, 1e-5)
    assert epsilon(1.0, 0.1, 50, 1e-5) < epsilon(1.0, 0.1, 100, 1e-5) < epsilon(1.0, 0.1, 200, 1e-5)
    assert epsilon(1.0, 0.1, 50, 1e-5) < epsilon(1.0, 0.2, 50, 1e-5)
    assert epsilon(1.0, 0.1, 50, 1e-5) < epsilon(1.0, 0.1, 50, 1e-7)


def test_dp_reports_the_privacy_of_every_step_it_took(digits):
    _, facts = trained(digits, objective_of(digits, "dp", 2.0, delta=1e-4), recipe=RECIPE | {"epochs": 3})
    privacy, steps = facts["privacy"], 3 * BATCHES
    assert privacy["steps"] == steps
    assert privacy["delta"] == 1e-4
    assert privacy["epsilon"] == epsilon(2.0, 64 / len(SPLIT.train), steps, 1e-4)
    assert "not the original model" in privacy["covers"]


def test_nothing_of_dp_is_left_in_the_model(digits):
    """`torch.nn.utils.prune` keeps the last forward's weight on its layer, under `grad` a dead wrapper."""
    model, _ = trained(digits, objective_of(digits, "dp"), recipe=RECIPE | {"epochs": 1})
    x, _ = train_batch(digits)
    final = pruning.finalise(copy.deepcopy(model))
    assert torch.equal(final.eval()(x), model.eval()(x))
    assert not any(name.endswith(("_orig", "_mask")) for name in final.state_dict())
