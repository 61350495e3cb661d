"""The optimisers and the schedule are torch's own, step by step."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from miaprune.training import optim

CASES = {
    "adam": (
        lambda p: optim.Adam(p, weight_decay=5e-2),
        lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=5e-2),
    ),
    "adamw": (
        lambda p: optim.Adam(p, weight_decay=5e-2, decoupled=True),
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=5e-2),
    ),
    "sgd": (
        lambda p: optim.SGD(p, weight_decay=5e-2, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=1e-2, weight_decay=5e-2, momentum=0.9),
    ),
}


def model_of(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def step(model, x, optimizer, *lr):
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step(*lr)


@pytest.mark.parametrize("name", CASES)
def test_it_steps_as_torch_does(name):
    ours, theirs = model_of(0), model_of(0)
    a, b = CASES[name][0](ours.parameters()), CASES[name][1](theirs.parameters())
    for _ in range(20):
        x = torch.randn(16, 4)
        step(ours, x, a, 1e-2)
        step(theirs, x, b)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("name", CASES)
def test_its_state_is_all_it_needs_to_go_on(name):
    a, b = model_of(0), model_of(0)
    x, first = torch.randn(16, 4), CASES[name][0](a.parameters())
    for _ in range(3):
        step(a, x, first, 1e-2)
    b.load_state_dict(a.state_dict())
    second = CASES[name][0](b.parameters())
    second.load_state({key: tensor.clone() for key, tensor in first.state().items()})
    for _ in range(3):
        step(a, x, first, 1e-2)
        step(b, x, second, 1e-2)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(("steps", "peak"), [(10, 1e-3), (441, 2e-3), (2, 1.0)])
def test_one_cycle_is_torchs(steps, peak):
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, peak, total_steps=steps)
    for step in range(steps):
        assert optim.one_cycle(step, steps, peak) == pytest.approx(theirs.param_groups[0]["lr"])
        theirs.step()
        if step < steps - 1:
            schedule.step()


def test_a_step_does_without_torch_dynamo():
    code = (
        "import sys, torch; from miaprune.training import optim\n"
        "p = torch.ones(3, requires_grad=True); p.sum().backward()\n"
        "for o in (optim.Adam([p], 0.0), optim.SGD([p], 0.0, 0.9)): o.step(0.1)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_moments_are_laid_out_like_their_parameters():
    """As CUDA's fused kernel demands of models in channels-last."""
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    adam = optim.Adam(model.parameters(), 0.0)
    for moments in (adam.kept["exp_avg"], adam.kept["exp_avg_sq"]):
        assert [m.stride() for m in moments] == [p.stride() for p in model.parameters()]
    assert not model.weight.is_contiguous()
