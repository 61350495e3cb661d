"""The four pruners (method, section 5), on `torch.nn.utils.prune`.

A pruner registers its masks on the model: `torch.nn.utils.prune` then keeps them in force, for the weights and
for their gradients, until `finalise` makes the zeros permanent. It prunes without gradients: the graph that a pruned
weight would keep is bound to the default stream of a GPU, and a step with it cannot be captured.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import prune as torch_prune

from miaprune.grid import unit


@torch.no_grad()
def l1(model: nn.Module, sparsity: float) -> None:
    """Unstructured magnitude pruning: per conv and linear layer the int(n*s) smallest |w| go."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            torch_prune.l1_unstructured(module, "weight", amount=int(module.weight.numel() * sparsity))


@torch.no_grad()
def _structured(model: nn.Module, sparsity: float, norm: int) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            amount = int(module.out_channels * sparsity)
            torch_prune.ln_structured(module, "weight", amount=amount, n=norm, dim=0)
            if module.bias is not None:
                kept = module.get_buffer("weight_mask").flatten(1)[:, 0]
                torch_prune.custom_from_mask(module, "bias", kept)


def l1_structured(model: nn.Module, sparsity: float) -> None:
    """Per conv layer the int(filters*s) filters of smallest L1 norm go, weight and bias (Li et al., ICLR 2017)."""
    _structured(model, sparsity, norm=1)


def l2_structured(model: nn.Module, sparsity: float) -> None:
    """Per conv layer the int(filters*s) filters of smallest L2 norm go, weight and bias."""
    _structured(model, sparsity, norm=2)


@torch.no_grad()
def slim(model: nn.Module, sparsity: float) -> None:
    """Network slimming (Liu et al., ICCV 2017): the int(total*s) smallest batch-norm |gamma| go, gamma and beta.

    One threshold over all layers could empty a layer and cut the network, so each layer keeps its largest
    channel; the achieved sparsity is then below the requested one.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    gammas = [layer.weight.detach().abs() for layer in layers]
    pruned = torch.cat(gammas).argsort(stable=True)[: int(sum(map(len, gammas)) * sparsity)]
    kept = torch.ones(sum(map(len, gammas)), device=gammas[0].device)
    kept[pruned] = 0
    for layer, gamma, mask in zip(layers, gammas, kept.split([len(g) for g in gammas]), strict=True):
        if not mask.any():
            mask[gamma.argmax()] = 1
        torch_prune.custom_from_mask(layer, "weight", mask)
        torch_prune.custom_from_mask(layer, "bias", mask)


@torch.no_grad()
def random(model: nn.Module, sparsity: float) -> None:
    """As many weights as `l1`, any of them: int(n*s) per conv and linear layer (method, section 15)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            n = module.weight.numel()
            mask = torch.ones(n)
            mask[torch.randperm(n)[: int(n * sparsity)]] = 0
            torch_prune.custom_from_mask(module, "weight", mask.view(module.weight.shape).to(module.weight))


PRUNERS: dict[str, Callable[[nn.Module, float], None]] = {
    "l1": l1,
    "l1_structured": l1_structured,
    "l2_structured": l2_structured,
    "slim": slim,
    "random": random,
}


def masks(model: nn.Module) -> dict[str, Tensor]:
    """The masks in force, by parameter name (``conv1.weight``): 1 keeps, 0 prunes."""
    return {name.removesuffix("_mask"): mask for name, mask in model.named_buffers() if name.endswith("_mask")}


def layer_sparsity(model: nn.Module, pruner: str) -> dict[str, tuple[int, int]]:
    """Per layer, how many of the pruner's units are gone and how many there were.

    The unit is `miaprune.grid.unit`'s: a filter, or else what a single number in the mask stands for.
    """
    counts = {}
    for name, mask in masks(model).items():
        if name.endswith(".weight") or name == "weight":
            units = mask.flatten(1)[:, 0] if unit(pruner) == "filters" else mask.flatten()
            counts[name.removesuffix(".weight")] = (int((units == 0).sum()), len(units))
    return counts


def achieved_sparsity(model: nn.Module, pruner: str) -> float:
    """The share of the pruner's units that are gone, over the whole model."""
    gone, there = zip(*layer_sparsity(model, pruner).values(), strict=True)
    return sum(gone) / sum(there)


@torch.no_grad()
def finalise(model: nn.Module) -> nn.Module:
    """Make the masked zeros permanent and drop the masks (in place), leaving a plain model.

    In eval mode it computes what it did before. Weights that slimming left without effect are zeros too, so that a
    checkpoint takes the space of what is left (`miaprune.files.save_tensors`).
    """
    for module in model.modules():
        for name in ("weight", "bias"):
            if hasattr(module, f"{name}_mask"):
                gone = getattr(module, f"{name}_mask") == 0
                torch_prune.remove(module, name)
                getattr(module, name)[gone] = 0.0  # the mask left -0.0 of a negative weight
    _clear_dead_channels(model)
    return model


class _Layers(fx.Tracer):
    """Traces what flows between layers, not what happens in one."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(m.children())


def _clear_dead_channels(model: nn.Module) -> None:
    """Zero (in place) the filters that only a dead channel of a batch norm reads, and the weights that read only it.

    A channel whose gamma and beta are 0 is 0 whatever comes in, and stays 0 through ReLU, max-pool and dropout.
    """
    modules = dict(model.named_modules())
    if not any(isinstance(module, nn.BatchNorm2d) for module in modules.values()):
        return

    def of(node: fx.Node) -> nn.Module | None:
        return modules[str(node.target)] if node.op == "call_module" else None

    try:
        nodes = _Layers().trace(model).nodes
    except (fx.proxy.TraceError, TypeError, RuntimeError):  # control flow by an input's values: they cost space only
        return
    for node in nodes:
        layer, source = of(node), node.all_input_nodes[0] if node.all_input_nodes else node
        if isinstance(layer, nn.BatchNorm2d):
            conv = of(source)
            if isinstance(conv, nn.Conv2d) and len(source.users) == 1:
                conv.weight[_dead(layer)] = 0.0
                if conv.bias is not None:
                    conv.bias[_dead(layer)] = 0.0
        elif isinstance(layer, nn.Conv2d):
            while isinstance(of(source), nn.ReLU | nn.MaxPool2d | nn.Dropout):
                source = source.all_input_nodes[0]
            norm = of(source)
            if isinstance(norm, nn.BatchNorm2d):
                layer.weight[:, _dead(norm)] = 0.0


def _dead(norm: nn.BatchNorm2d) -> Tensor:
    """Which channels are constantly 0, bool [channels]."""
    return (norm.weight == 0) & (norm.bias == 0)
