"""Masks against plain definitions: which units go, and that they stay gone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from miaprune.networks import models, pruning

SHAPES = {
    "resnet18": (3, 32, 32),
    "vgg16": (3, 32, 32),
    "densenet121": (3, 32, 32),
    "cnn": (1, 8, 8),
    "fc": (20,),
}


def pruned(name, pruner, sparsity, seed=0):
    model = models.build(name, SHAPES[name], 5, seed)
    with torch.no_grad():  # as after training: no two batch-norm channels alike
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(generator=generator)
                module.bias.normal_(generator=generator)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pruning.PRUNERS[pruner](model, sparsity)
    return model, before


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


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg16", "cnn"])
@pytest.mark.parametrize("pruner", pruning.PRUNERS)
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
