"""Masks against plain definitions: which units go, and that they stay gone."""

import copy
import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

from miaprune import grid
from miaprune.networks import models, pruning

SHAPES = {
    "resnet18": (3, 32, 32),
    "vgg16": (3, 32, 32),
    "densenet121": (3, 32, 32),
    "cnn": (1, 8, 8),
    "fc": (20,),
}
PAPERS = ("l1", "l1_structured", "l2_structured", "slim")
UNSTRUCTURED = ("l1", "random", "l1_global", "wanda", "two_four")


def prune(model, pruner, sparsity, shape, seed=0):
    """By any pruner, at its only sparsity if it has but one; what it draws is of the seed, and records are noise."""
    torch.manual_seed(seed)
    records = torch.randn(4, *shape, generator=torch.Generator().manual_seed(seed))
    sparsity = float(grid.PRUNERS[pruner].sparsity or sparsity)
    pruning.prune(pruner, model, sparsity, records)


def pruned(name, pruner, sparsity, seed=0):
    model = models.build(name, SHAPES[name], 5, seed)
    with torch.no_grad():  # as after training: no two batch-norm channels alike
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(generator=generator)
                module.bias.normal_(generator=generator)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    prune(model, pruner, sparsity, SHAPES[name], seed)
    return model, before


def test_the_grid_knows_the_pruners_and_their_order():
    assert tuple(grid.PRUNERS)[:4] == PAPERS
    assert {p for p in grid.PRUNERS if grid.unit(p) == "weights"} == set(UNSTRUCTURED)


@pytest.mark.parametrize("pruner", pruning.PRUNERS)
def test_pruning_leaves_no_graph_behind(pruner):
    """A CUDA graph could not be captured of a step that differentiates through one made outside it."""
    model, _ = pruned("cnn", pruner, 0.5)
    masked = [module for module in model.modules() if hasattr(module, "weight_mask")]
    assert masked and all(module.weight.grad_fn is None for module in masked)
    model(torch.zeros(2, *SHAPES["cnn"])).sum().backward()
    assert all(module.weight_orig.grad is not None for module in masked)


def test_an_unstructured_pruner_of_ones_own_counts_weights():
    model = nn.Linear(4, 2)
    torch_prune.custom_from_mask(model, "weight", torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]]))
    assert pruning.layer_sparsity(model, "random") == {"weight": (3, 8)}


@given(st.sampled_from(["fc", "cnn"]), st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=25)
def test_l1_prunes_the_smallest_weights_of_each_layer(name, sparsity):
    model, before = pruned(name, "l1", sparsity)
    for layer, (gone, there) in pruning.layer_sparsity(model, "l1").items():
        weight = before[f"{layer}.weight"].abs().flatten()
        assert (gone, there) == (int(there * sparsity), len(weight))
        mask = pruning.masks(model)[f"{layer}.weight"].flatten()
        if gone:
            assert weight[mask == 0].max() <= weight[mask == 1].min()


@pytest.mark.parametrize(("pruner", "norm"), [("l1_structured", 1), ("l2_structured", 2)])
@pytest.mark.parametrize("sparsity", [0.5, 0.7, 0.9])
def test_structured_pruners_drop_whole_filters_with_their_bias(pruner, norm, sparsity):
    model, before = pruned("cnn", pruner, sparsity)
    kept = pruning.masks(model)
    convs = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    for layer in convs:
        norms = before[f"{layer}.weight"].flatten(1).norm(norm, dim=1)
        mask = kept[f"{layer}.weight"].flatten(1)
        assert torch.equal(mask.amin(1), mask.amax(1)), "a filter goes whole"
        assert torch.equal(mask[:, 0], kept[f"{layer}.bias"])
        gone = mask[:, 0] == 0
        assert gone.sum() == int(len(norms) * sparsity)
        assert norms[gone].max() <= norms[~gone].min()
    assert set(kept) == {f"{layer}.{p}" for layer in convs for p in ("weight", "bias")}, "linear layers stay"


@given(st.floats(0.01, 0.99), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_slim_has_one_threshold_over_all_layers_and_empties_none(sparsity, seed):
    model, before = pruned("cnn", "slim", sparsity, seed)
    gamma = {k.removesuffix(".weight"): before[k].abs() for k in pruning.masks(model) if k.endswith(".weight")}
    threshold = torch.cat(list(gamma.values())).sort().values[int(sum(map(len, gamma.values())) * sparsity)]
    for layer, values in gamma.items():
        expected = values >= threshold
        expected[values.argmax()] = True
        for part in ("weight", "bias"):
            assert torch.equal(pruning.masks(model)[f"{layer}.{part}"].bool(), expected)
    assert pruning.achieved_sparsity(model, "slim") <= sparsity


def test_slim_at_high_sparsity_keeps_a_channel_and_says_what_it_achieved():
    model = models.build("cnn", (1, 8, 8), 5, seed=0)
    with torch.no_grad():
        model[1].weight.mul_(1e-3)  # the first layer's channels are all smaller than the others'
    pruning.slim(model, 0.5)
    assert pruning.layer_sparsity(model, "slim")["1"] == (15, 16)
    assert pruning.achieved_sparsity(model, "slim") == 54 / 112
    assert model.eval()(torch.randn(4, 1, 8, 8)).std() > 0, "the network is not cut"


def test_slim_leaves_a_batch_norm_without_weights_alone():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    with torch.no_grad():
        model[3].weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    pruning.slim(model, 0.5)
    pruning.finalise(model)
    assert model[3].weight.tolist() == [0.0, 0.0, 3.0, 4.0]


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg16", "cnn"])
@pytest.mark.parametrize(
    ("pruner", "kinds"),
    [
        ("l1", (nn.Conv2d, nn.Linear)),
        ("l1_structured", nn.Conv2d),
        ("l2_structured", nn.Conv2d),
        ("slim", nn.BatchNorm2d),
    ],
)
def test_requested_and_achieved_sparsity_layer_by_layer(name, pruner, kinds):
    model, _ = pruned(name, pruner, 0.7)
    layers = pruning.layer_sparsity(model, pruner)
    assert set(layers) == {n for n, m in model.named_modules() if isinstance(m, kinds)}
    if pruner != "slim":
        assert all(gone == int(there * 0.7) for gone, there in layers.values())
    else:
        total = sum(there for _, there in layers.values())
        assert 0 <= int(total * 0.7) - sum(gone for gone, _ in layers.values()) <= len(layers)


@pytest.mark.parametrize("pruner", pruning.PRUNERS)
def test_masks_hold_through_training_and_for_good(pruner):
    model, _ = pruned("cnn", pruner, 0.7)
    masks = {k: v.clone() for k, v in pruning.masks(model).items()}
    optimizer = torch.optim.Adam(model.parameters(), 0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 1, 8, 8)).square().mean().backward()
        optimizer.step()
    x = torch.randn(4, 1, 8, 8)
    expected = model.eval()(x)
    plain = models.build("cnn", (1, 8, 8), 5, seed=1).eval()
    plain.load_state_dict(pruning.finalise(model).state_dict())
    assert torch.equal(plain(x), expected)
    for name, mask in masks.items():
        assert not plain.state_dict()[name][mask == 0].any()


def reference_finalise(model):
    """The masks multiplied in, and nothing else."""
    plain = {k: v for k, v in model.state_dict().items() if not k.endswith(("_mask", "_orig"))}
    for name, mask in pruning.masks(model).items():
        plain[name] = model.state_dict()[f"{name}_orig"] * mask
    return plain


@pytest.mark.parametrize(
    ("name", "pruner"),
    [(n, p) for n in ("resnet18", "densenet121", "vgg16", "cnn") for p in (PAPERS if n != "cnn" else pruning.PRUNERS)],
)
def test_finalise_changes_no_bit_of_the_logits(name, pruner):
    model, _ = pruned(name, pruner, 0.7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training
            module.running_mean.normal_(generator=torch.Generator().manual_seed(1))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    expected = models.build(name, SHAPES[name], 5, seed=1).eval()
    expected.load_state_dict(reference_finalise(model))
    counts = pruning.layer_sparsity(model, pruner)
    masks = {k: v.clone() for k, v in pruning.masks(model).items()}
    state = pruning.finalise(model).eval().state_dict()
    x = torch.randn(2, *SHAPES[name], generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        logits = model(x)
        assert torch.equal(logits.view(torch.int32), expected(x).view(torch.int32)) and logits.std() > 0
    # what was pruned is +0.0 to the bit; what was reported counts the pruner's units, not what follows from them
    assert all((state[k].view(torch.int32)[mask == 0] == 0).all() for k, mask in masks.items())
    assert sum(gone for gone, _ in counts.values()) == sum(
        int((m.flatten(1)[:, 0] == 0).sum() if pruner.endswith("_structured") else (m == 0).sum())
        for k, m in masks.items()
        if k.endswith("weight")
    )
    if pruner != "slim":
        others = {k: v for k, v in expected.state_dict().items() if k not in masks}
        assert all(torch.equal(state[k], v) for k, v in others.items()), "only slimming leaves weights without effect"


def test_slimming_clears_what_only_dead_channels_write_or_read():
    model, before = pruned("cnn", "slim", 0.7)
    dead = {i: pruning.masks(model)[f"{i}.weight"] == 0 for i in (1, 5, 9)}
    assert all(0 < gone.sum() < len(gone) for gone in dead.values())
    after = pruning.finalise(model).state_dict()
    for conv, written, read in ((0, dead[1], None), (4, dead[5], dead[1]), (8, dead[9], dead[5])):
        weight, bias = before[f"{conv}.weight"].clone(), before[f"{conv}.bias"].clone()
        weight[written], bias[written] = 0, 0
        if read is not None:
            weight[:, read] = 0
        assert torch.equal(after[f"{conv}.weight"], weight) and torch.equal(after[f"{conv}.bias"], bias)


class Choosing(nn.Sequential):
    """A network whose path depends on what flows through it."""

    def forward(self, x):
        x = super().forward(x)
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_finalised_all_the_same():
    model = Choosing(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).eval()
    pruning.slim(model, 0.5)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = model(x)
    assert torch.equal(pruning.finalise(model)(x), before) and not pruning.masks(model)


def test_a_channel_that_others_read_too_keeps_its_filter():
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    model = Branched().eval()
    with torch.no_grad():
        model.norm.weight[1] = model.norm.bias[1] = 0
    before = {k: v.clone() for k, v in model.state_dict().items()}
    after = pruning.finalise(model).state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_a_grouped_convolution_behind_dead_channels_says_the_same():
    """A depthwise one, as of MobileNet: each of its weights reads one channel."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4)).eval()
    pruning.slim(model, 0.5)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = model(x)
    assert torch.equal(pruning.finalise(model)(x), before)


def layers_of(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


@pytest.mark.parametrize("pruner", UNSTRUCTURED)
def test_unstructured_pruners_choose_from_every_convolution_and_linear_layer(pruner):
    for name in ("fc", "cnn", "densenet121"):
        model, _ = pruned(name, pruner, 0.7)
        assert set(pruning.masks(model)) == {f"{layer}.weight" for layer in layers_of(model)}
        assert all(mask.dtype == torch.float32 and mask.is_contiguous() for mask in pruning.masks(model).values())
        assert {*torch.cat([mask.flatten() for mask in pruning.masks(model).values()]).tolist()} == {0.0, 1.0}


@given(st.sampled_from(["fc", "cnn"]), st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=25)
def test_random_takes_as_many_of_each_layer_as_l1(name, sparsity):
    counts = [pruning.layer_sparsity(pruned(name, pruner, sparsity)[0], pruner) for pruner in ("random", "l1")]
    assert counts[0] == counts[1]


def test_random_draws_by_the_seed_and_not_by_the_weights():
    def drawn(seed, scale=1.0):
        model = models.build("cnn", SHAPES["cnn"], 5, seed=0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        torch.manual_seed(seed)
        pruning.random(model, 0.5)
        return torch.cat([mask.flatten() for mask in pruning.masks(model).values()])

    assert torch.equal(drawn(1), drawn(1, scale=-3.0))
    agree = (drawn(1) == drawn(2)).double().mean()  # two fair coins, tossed 23 824 times
    assert abs(agree - 0.5) < 0.02
    masks = torch.stack([drawn(seed) for seed in range(200)]).mean(0)
    assert abs(masks - 0.5).max() < 0.2, "no weight is favoured"


@given(st.floats(0.01, 0.99), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_l1_global_has_one_threshold_over_all_layers_and_empties_none(sparsity, seed):
    model, before = pruned("cnn", "l1_global", sparsity, seed)
    weights = {name: before[name].abs() for name in pruning.masks(model)}
    everything = sorted(value for weight in weights.values() for value in weight.flatten().tolist())
    threshold = everything[int(len(everything) * sparsity)]
    for name, weight in weights.items():
        expected = (weight >= threshold) | (weight == weight.max())
        assert torch.equal(pruning.masks(model)[name].bool(), expected)


def test_l1_global_leaves_a_small_layer_its_largest_weight_and_says_what_it_achieved():
    model = models.build("fc", (20,), 5, seed=0)
    with torch.no_grad():
        model[4].weight.mul_(1e-6)
    largest = model[4].weight.abs().argmax()
    pruning.l1_global(model, 0.9)
    there = 20 * 256 + 256 * 128 + 128 * 5
    assert pruning.layer_sparsity(model, "l1_global")["4"] == (256 * 128 - 1, 256 * 128)
    assert pruning.masks(model)["4.weight"].flatten()[largest] == 1
    assert pruning.achieved_sparsity(model, "l1_global") == (int(there * 0.9) - 1) / there


def scores_by_loops(layer, inputs):
    """|w| times the norm of what it meets, a weight and a product at a time."""
    weight, scores = layer.weight.detach().double(), torch.zeros_like(layer.weight, dtype=torch.float64)
    if isinstance(layer, nn.Linear):
        for o, i in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
            scores[o, i] = weight[o, i].abs() * math.sqrt(sum(x[i].item() ** 2 for x in inputs))
        return scores
    padded = F.pad(inputs, (layer.padding[1], layer.padding[1], layer.padding[0], layer.padding[0]))
    filters, channels, height, width = weight.shape
    positions = [
        (y, x)
        for y in range(0, padded.shape[2] - layer.dilation[0] * (height - 1), layer.stride[0])
        for x in range(0, padded.shape[3] - layer.dilation[1] * (width - 1), layer.stride[1])
    ]
    for o, i, h, w in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
        channel = o // (filters // layer.groups) * channels + i
        met = [
            image[channel, y + h * layer.dilation[0], x + w * layer.dilation[1]].item()
            for image in padded
            for y, x in positions
        ]
        scores[o, i, h, w] = weight[o, i, h, w].abs() * math.sqrt(sum(value**2 for value in met))
    return scores


def without_smallest(scores, sparsity):
    """Of each output the int(n*s) smallest scores, in a loop."""
    mask = torch.ones(scores.flatten(1).shape)
    for row, of_row in zip(mask, scores.flatten(1), strict=True):
        for position in sorted(range(len(row)), key=of_row.tolist().__getitem__)[: int(len(row) * sparsity)]:
            row[position] = 0
    return mask.view(scores.shape)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Linear(12, 8),
        lambda: nn.Conv2d(2, 3, 3, padding=1),
        lambda: nn.Conv2d(4, 6, (2, 3), stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=2, bias=False),
    ],
)
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
def test_wanda_is_its_definition_on_one_layer(layer, sparsity):
    torch.manual_seed(0)
    layer = layer()
    # Inputs of unequal size: their norms decide.
    inputs = torch.randn(3, *((12,) if isinstance(layer, nn.Linear) else (layer.in_channels, 5, 6)))
    inputs *= torch.logspace(-1, 1, inputs.shape[1]).view(-1, *[1] * (inputs.ndim - 2))
    expected = without_smallest(scores_by_loops(layer, inputs), sparsity)
    by_magnitude = without_smallest(layer.weight.detach().abs(), sparsity)
    pruning.wanda(layer, sparsity, inputs)
    assert torch.equal(layer.weight_mask, expected) and not torch.equal(expected, by_magnitude)


def test_wanda_goes_from_layer_to_layer_in_eval_mode_and_leaves_all_else_as_it_was():
    model = models.build("cnn", SHAPES["cnn"], 5, seed=0)
    records = torch.randn(4, *SHAPES["cnn"], generator=torch.Generator().manual_seed(0))
    expected = copy.deepcopy(model).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pruning.wanda(model, 0.5, records)
    with torch.no_grad():
        flowing = records
        for layer in expected:  # a layer sees what the pruned ones before it make of the records
            if isinstance(layer, nn.Conv2d):
                patches = F.unfold(flowing.double(), layer.kernel_size, padding=layer.padding)
                norms = patches.square().sum((0, 2)).sqrt()
            elif isinstance(layer, nn.Linear):
                norms = flowing.double().square().sum(0).sqrt()
            if isinstance(layer, nn.Conv2d | nn.Linear):
                scores = layer.weight.flatten(1).abs() * norms
                layer.weight *= without_smallest(scores, 0.5).view(layer.weight.shape)
            flowing = layer(flowing)
    state = model.state_dict()
    for name, weight in expected.state_dict().items():
        own = state[f"{name}_orig" if f"{name}_mask" in state else name]
        assert torch.equal(own, before[name]) and torch.equal(own * state.get(f"{name}_mask", 1), weight)
    assert model.training and all(len(layer._forward_pre_hooks) == 1 for layer in layers_of(model).values())


@given(st.floats(0.01, 0.99), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_wanda_is_l1_output_by_output_where_all_inputs_are_alike(sparsity, seed):
    layer = nn.Linear(12, 7)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(seed))
    each = [nn.Linear(12, 1) for _ in range(7)]
    for row, one in zip(layer.weight.data, each, strict=True):
        one.weight.data.copy_(row[None])
        pruning.l1(one, sparsity)
    pruning.wanda(layer, sparsity, torch.eye(12))
    assert torch.equal(layer.weight_mask, torch.cat([one.weight_mask for one in each]))


def test_wanda_takes_the_same_share_of_every_output():
    model, _ = pruned("cnn", "wanda", 0.7)
    for mask in pruning.masks(model).values():
        gone = (mask.flatten(1) == 0).sum(1)
        assert (gone == int(mask[0].numel() * 0.7)).all()


def test_wanda_leaves_a_layer_that_no_record_reaches_as_it_is():
    model = nn.Sequential(nn.Linear(4, 2), nn.Identity())
    model[1].aside = nn.Linear(4, 2)
    pruning.wanda(model, 0.5, torch.randn(3, 4))
    assert set(pruning.masks(model)) == {"0.weight"} and not model[1].aside._forward_pre_hooks


@given(st.integers(1, 5), st.integers(1, 9), st.sampled_from([None, (1, 1), (3, 3), (2, 3)]), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_two_four_takes_the_two_smallest_of_every_four_weights(outputs, inputs, window, seed):
    layer = nn.Linear(inputs, outputs) if window is None else nn.Conv2d(inputs, outputs, window)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(seed))
    weight = layer.weight.detach().clone()
    pruning.two_four(layer, 0.5)
    # Input channels first, then places in the window.
    places = [(i, *place) for place in product(*map(range, window or ())) for i in range(inputs)]
    for row, mask in zip(weight, layer.weight_mask, strict=True):
        flat, kept = [row[place].item() for place in places], [mask[place].item() for place in places]
        for first in range(0, len(flat), 4):
            four = range(first, min(first + 4, len(flat)))
            gone = sorted(four, key=lambda place: abs(flat[place]))[:2] if len(four) == 4 else []
            assert [place for place in four if not kept[place]] == sorted(gone)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "cnn", "fc"])
def test_two_four_achieves_a_half_but_for_what_is_left_of_a_row(name):
    model, _ = pruned(name, "two_four", 0.5)
    for layer, (gone, there) in pruning.layer_sparsity(model, "two_four").items():
        row = model.get_submodule(layer).weight[0].numel()
        assert gone == there // row * (row // 4 * 2)
    for layer in layers_of(model).values():
        if layer.weight.shape[1] % 4 == 0:  # of four input channels, at each place of a window
            assert (layer.weight_mask.unflatten(1, (-1, 4)).sum(2) == 2).all()


def test_two_four_has_one_sparsity():
    with pytest.raises(ValueError, match=r"weights of every four: its sparsity is 0\.5, not 0\.7"):
        pruning.two_four(models.build("fc", (20,), 5, seed=0), 0.7)
