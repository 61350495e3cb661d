"""The pruners (method, section 5), on `torch.nn.utils.prune`.

A pruner registers its masks on the model: `torch.nn.utils.prune` then keeps them in force, for the weights and
for their gradients, until `finalise` makes the zeros permanent. It prunes without gradients: the graph that a pruned
weight would keep is bound to the default stream of a GPU, and a step with it cannot be captured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune
from torch.utils.hooks import RemovableHandle

from miaprune.catalog import FILTERS, PRUNERS, unit
from miaprune.entries import GridError, known


def _weighted(model: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """The conv and linear layers, whose single weights unstructured pruners choose from.

    A `torch.nn.MultiheadAttention` computes with its output layer's weights and never calls that: no mask would stay
    in force there.
    """
    inner = [module.out_proj for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and all(m is not each for each in inner)]


def _without_smallest(scores: Tensor, amount: int) -> Tensor:
    """A mask of the scores' shape that drops the ``amount`` smallest along the last dimension, first ones first."""
    return torch.ones_like(scores).scatter_(-1, scores.argsort(dim=-1, stable=True)[..., :amount], 0)


def _without_smallest_of_all(scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Masks of layers' scores (one-dimensional) by one threshold over all: the int(total*s) smallest go.

    A layer that would be emptied keeps its largest.
    """
    if not scores:
        return []
    sizes = [len(each) for each in scores]
    masks = _without_smallest(torch.cat(list(scores)), int(sum(sizes) * sparsity)).split(sizes)
    for mask, each in zip(masks, scores, strict=True):
        if not mask.any():
            mask[each.argmax()] = 1
    return list(masks)


@torch.no_grad()
def l1(model: nn.Module, sparsity: float) -> None:
    """Unstructured magnitude pruning: per conv and linear layer the int(n*s) smallest |w| go."""
    for layer in _weighted(model):
        torch_prune.l1_unstructured(layer, "weight", amount=int(layer.weight.numel() * sparsity))


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
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.affine]
    masks = _without_smallest_of_all([layer.weight.abs() for layer in layers], sparsity)
    for layer, mask in zip(layers, masks, strict=True):
        torch_prune.custom_from_mask(layer, "weight", mask)
        torch_prune.custom_from_mask(layer, "bias", mask)


@torch.no_grad()
def random(model: nn.Module, sparsity: float) -> None:
    """As many weights as `l1`, any of them: int(n*s) per conv and linear layer (method, section 15).

    The control of which weights go. Drawn on the CPU from torch's generator, so that a seed gives the same masks on
    every device.
    """
    for layer in _weighted(model):
        n = layer.weight.numel()
        mask = torch.ones(n)
        mask[torch.randperm(n)[: int(n * sparsity)]] = 0
        torch_prune.custom_from_mask(layer, "weight", mask.view(layer.weight.shape).to(layer.weight))


@torch.no_grad()
def l1_global(model: nn.Module, sparsity: float) -> None:
    """Global magnitude pruning (a baseline of Blalock et al., MLSys 2020): the int(total*s) smallest |w| of all go.

    One threshold over the weights of all conv and linear layers, the last one's too. As with `slim` a layer that would
    be emptied keeps its largest weight; the achieved sparsity is then below the requested one.
    """
    layers = _weighted(model)
    masks = _without_smallest_of_all([layer.weight.abs().flatten() for layer in layers], sparsity)
    for layer, mask in zip(layers, masks, strict=True):
        torch_prune.custom_from_mask(layer, "weight", mask.view_as(layer.weight))


def _squares_met(layer: nn.Conv2d | nn.Linear, inputs: Tensor) -> Tensor:
    """Per weight the sum of squares of all that the layer multiplies it with, broadcastable to the weights."""
    # In float64, which no GPU rounds to TF32. What a weight of 1 adds to the sum of all outputs is what it meets.
    squares, groups = inputs.double().square(), layer.groups if isinstance(layer, nn.Conv2d) else 1
    with torch.enable_grad():
        ones = squares.new_ones(groups, *layer.weight.shape[1:]).requires_grad_()
        if isinstance(layer, nn.Linear):
            outputs = F.linear(squares, ones)
        else:
            outputs = F.conv2d(squares, ones, None, layer.stride, layer.padding, layer.dilation, groups)
        (met,) = torch.autograd.grad(outputs.sum(), ones)
    return met.repeat_interleave(len(layer.weight) // groups, dim=0)


@torch.no_grad()
def wanda(model: nn.Module, sparsity: float, records: Tensor) -> None:
    """Weights and activations (Sun et al., ICLR 2024, arXiv 2306.11695): per output the int(n*s) smallest scores go.

    A weight's score is |w| times the L2 norm, over the records, of the input that it is multiplied with; weights of one
    output are compared with each other, n to an output (the sparsity achieved falls short of s by less than 1/n). The
    paper has linear layers alone. In a convolution an output is a filter, and an input of a weight is its channel at
    its place in the window, at all positions of the window, padding included: the layer as a linear one of patches.
    As in the paper a layer sees what layers that are already pruned make of the records, in eval mode. A layer that
    they do not reach is left as it is.

    Parameters
    ----------
    records : Tensor
        Calibration records, normalised, float32 [n, *input_shape].
    """

    def reached(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        waiting.pop(layer).remove()
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        norms = _squares_met(layer, inputs[0]).sqrt().to(layer.weight.dtype)
        scores = (layer.weight.abs() * norms).flatten(1)
        mask = _without_smallest(scores, int(scores.shape[1] * sparsity))
        torch_prune.custom_from_mask(layer, "weight", mask.view_as(layer.weight))

    waiting: dict[nn.Module, RemovableHandle] = {}
    for layer in _weighted(model):
        waiting[layer] = layer.register_forward_pre_hook(reached)
    was_training = model.training
    model.eval()(records)
    model.train(was_training)
    for handle in waiting.values():
        handle.remove()


@torch.no_grad()
def two_four(model: nn.Module, sparsity: float) -> None:
    """2:4 sparsity, which NVIDIA's tensor cores compute with (Mishra et al., 2021, arXiv 2104.08378).

    Per conv and linear layer, of every four consecutive weights of an output the two of smallest |w| go. Consecutive
    along the inputs; in a convolution along its input channels, then along the window. What is left of an output's
    weights after the last four stays, so that the achieved sparsity can be below 0.5, the only one that there is.
    Raises ValueError if ``sparsity`` is another one.
    """
    if sparsity != 0.5:
        raise ValueError(f"two_four takes two weights of every four: its sparsity is 0.5, not {sparsity}")
    for layer in _weighted(model):
        weight = layer.weight.movedim(1, -1)
        rows = weight.abs().flatten(1)
        fours = rows[:, : rows.shape[1] // 4 * 4]
        mask = torch.ones_like(rows)
        mask[:, : fours.shape[1]] = _without_smallest(fours.unflatten(1, (-1, 4)), 2).flatten(1)
        torch_prune.custom_from_mask(layer, "weight", mask.view(weight.shape).movedim(-1, 1).contiguous())


CALIBRATION = 128
"""Records of a model's own training, the first ones, that a pruner may look at: as many as Wanda's paper takes."""


def prune(name: str, model: nn.Module, sparsity: float, records: Tensor) -> None:
    """Prune a model in place by one of `PRUNERS`; ``records`` are for those that look at some, as `wanda`.

    Raises `miaprune.entries.GridError` if nothing is pruned then.
    """
    PRUNERS[known("pruner", name, PRUNERS)].given(model=model, sparsity=sparsity, records=records)
    if all(mask.all() for mask in masks(model).values()):
        raise GridError(
            f"pruner {name} pruned nothing at sparsity {sparsity:g}: no mask of torch.nn.utils.prune has a zero"
        )
    if not layer_sparsity(model, name):
        raise GridError(f"pruner {name} masks no {unit(name)}, which its sparsity counts: {', '.join(masks(model))}")


def masks(model: nn.Module, recurse: bool = True) -> dict[str, Tensor]:
    """The masks in force, by parameter name (``conv1.weight``): 1 keeps, 0 prunes; its own, or its layers' too."""
    pruned = {name for name, _ in model.named_parameters(recurse=recurse) if name.endswith("_orig")}
    found = {name.removesuffix("_mask"): buffer for name, buffer in model.named_buffers(recurse=recurse)}
    return {name: mask for name, mask in found.items() if f"{name}_orig" in pruned}


def layer_sparsity(model: nn.Module, pruner: str) -> dict[str, tuple[int, int]]:
    """Per layer, how many of the pruner's units are gone and how many there were.

    The unit is the pruner's (`miaprune.catalog.PRUNERS`): a filter, or else what a single number in a mask stands for.
    """
    counts, filters = {}, unit(pruner) == FILTERS
    for name, mask in masks(model).items():
        if name.endswith("weight") and (mask.dim() > 1 or not filters):  # a batch norm's has no filters
            units = mask.flatten(1)[:, 0] if filters else mask.flatten()
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
        for name, mask in masks(module, recurse=False).items():
            torch_prune.remove(module, name)
            getattr(module, name)[mask == 0] = 0.0  # the mask left -0.0 of a negative weight
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
    except Exception:  # control flow by an input's values, or whatever else users do: they cost space only
        return
    calls = Counter(id(of(node)) for node in nodes if isinstance(of(node), nn.Conv2d | nn.BatchNorm2d))
    if max(calls.values(), default=0) > 1:  # what is dead after one call need not be so after the other
        return
    for node in nodes:
        layer, source = of(node), node.all_input_nodes[0] if node.all_input_nodes else node
        if isinstance(layer, nn.BatchNorm2d):
            conv = of(source)
            if isinstance(conv, nn.Conv2d) and len(source.users) == 1:
                conv.weight[_dead(layer)] = 0.0
                if conv.bias is not None:
                    conv.bias[_dead(layer)] = 0.0
        elif isinstance(layer, nn.Conv2d) and layer.groups == 1:  # else a weight has not every channel
            while isinstance(of(source), nn.ReLU | nn.MaxPool2d | nn.Dropout):
                source = source.all_input_nodes[0]
            norm = of(source)
            if isinstance(norm, nn.BatchNorm2d):
                layer.weight[:, _dead(norm)] = 0.0


def _dead(norm: nn.BatchNorm2d) -> Tensor:
    """Which channels are constantly 0, bool [channels]."""
    return (norm.weight == 0) & (norm.bias == 0)
