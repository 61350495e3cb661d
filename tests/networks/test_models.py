"""Parameter counts of the method, and initialisation from one seed."""

import pytest
import torch
from torch import nn

from miaprune import grid
from miaprune.devices import channels_last
from miaprune.networks import models

IMAGE = (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "count"),
    [
        ("resnet18", IMAGE, 10, 11_173_962),
        ("densenet121", IMAGE, 10, 6_956_426),
        ("vgg16", IMAGE, 10, 33_646_666),
        ("fc", (446,), 30, 446 * 256 + 256 + 256 * 128 + 128 + 128 * 30 + 30),
    ],
)
def test_parameter_counts(name, shape, classes, count):
    assert sum(p.numel() for p in models.build(name, shape, classes, seed=0).parameters()) == count


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, IMAGE) for name in ("resnet18", "densenet121", "vgg16", "cnn")),
        ("cnn", (1, 8, 8)),
        ("fc", (1, 8, 8)),
    ],
)
def test_logits_have_one_column_per_class(name, shape):
    model = models.build(name, shape, 7, seed=0).eval()
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


def test_initialisation_is_xavier_normal_with_zero_biases():
    model = models.build("cnn", IMAGE, 10, seed=3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert not module.bias.any()
    conv = model[8]
    assert (conv.in_channels, conv.out_channels) == (32, 64)
    expected = (2 / (9 * 32 + 9 * 64)) ** 0.5
    n = conv.weight.numel()  # the relative standard error of a normal's deviation is 1/sqrt(2n): 5 of them
    assert conv.weight.std().item() == pytest.approx(expected, rel=5 / (2 * n) ** 0.5)


def test_one_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    a, b, c = (models.build("fc", (20,), 3, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["1.weight"], c["1.weight"])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "shape"), [("resnet18", IMAGE), ("densenet121", IMAGE), ("vgg16", IMAGE), ("fc", (20,))]
)
def test_what_the_architectures_draw_themselves_changes_nothing(name, shape):
    """Built with their own draws and then initialised, as one would without the detour over no device."""
    with torch.random.fork_rng(devices=[]):
        plain = models.initialise(grid.MODELS[name](shape, 7), torch.Generator().manual_seed(5)).state_dict()
    built = models.build(name, shape, 7, seed=5).state_dict()
    assert built.keys() == plain.keys() and all(torch.equal(built[key], plain[key]) for key in plain)


def test_a_loaded_model_has_the_weights_of_the_checkpoint_and_none_of_its_memory():
    state = models.build("cnn", IMAGE, 10, seed=3).state_dict()
    state["1.running_mean"] += 1
    loaded = models.load("cnn", IMAGE, 10, state).state_dict()
    assert loaded.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(loaded[key], tensor) and loaded[key].data_ptr() != tensor.data_ptr()
    del state["0.bias"]
    with pytest.raises(RuntimeError, match=r"0\.bias"):
        models.load("cnn", IMAGE, 10, state)


def test_a_layer_whose_beginning_nobody_fixed_is_refused():
    with pytest.raises(TypeError, match=r"initialise knows no LayerNorm; say in its module"):
        models.initialise(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), torch.Generator())


def test_only_a_built_in_model_is_laid_out_anew():
    """A user's may view its images as rows, which raises an error where channels come last."""
    own = nn.Conv2d(3, 4, 3)
    for model, there in ((own, False), (models.build("cnn", (3, 8, 8), 10, 0), True)):
        channels_last(model)
        weight = next(p for p in model.parameters() if p.dim() == 4)
        assert weight.is_contiguous(memory_format=torch.channels_last) == there
