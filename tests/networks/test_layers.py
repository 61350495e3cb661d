"""Layers that are faster than torch's own compute the same."""

import pytest
import torch
from torch import nn

from miaprune.networks import layers


@pytest.mark.parametrize("shape", [(5, 4), (3, 7, 4), (1, 4), (0, 4)])
@pytest.mark.parametrize("needs_input_gradient", [True, False])
def test_linear_is_torchs_forward_and_backward(shape, needs_input_gradient):
    ours, theirs = layers.Linear(4, 6), nn.Linear(4, 6)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, requires_grad=needs_input_gradient)
    weights, results = torch.randn(*shape[:-1], 6), []
    for layer in (ours, theirs):
        y = layer(x)
        (y * weights).sum().backward()
        results.append([y, layer.weight.grad, layer.bias.grad, x.grad])
        x.grad = None
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_linear_takes_other_numbers_than_float32():
    layer = layers.Linear(4, 6).double()
    assert layer(torch.randn(2, 4, dtype=torch.float64)).dtype == torch.float64


def test_linear_does_not_depend_on_onednn(monkeypatch):
    layer, x = layers.Linear(4, 6), torch.randn(3, 4)
    expected = layer(x)
    monkeypatch.setattr(layers, "ONEDNN", False)
    torch.testing.assert_close(layer(x), expected)
