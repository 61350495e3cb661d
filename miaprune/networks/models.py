"""The five network architectures (method, section 3): from float32 [n, *input_shape] to logits, float32 [n, classes].

torchvision is imported where it is used: jobs on `fc` and `cnn` need not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from miaprune.catalog import MODELS
from miaprune.entries import GridError, ModelEntry, known


def resnet18(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """torchvision's ResNet-18 with a 3x3 stride-1 stem for 32x32 images; the stem's max-pool is kept."""
    from torchvision import models

    model = models.resnet18(num_classes=classes)
    model.conv1 = nn.Conv2d(input_shape[0], 64, kernel_size=3, stride=1, padding=1, bias=False)
    return model


def densenet121(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """torchvision's DenseNet-121 with a 3x3 stride-1 stem; the stem's pool is kept."""
    from torchvision import models

    model = models.densenet121(num_classes=classes)
    model.features.conv0 = nn.Conv2d(input_shape[0], 64, kernel_size=3, stride=1, padding=1, bias=False)
    return model


def vgg16(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """torchvision's VGG-16-BN on a 1x1 average pool with a 512-4096-4096-C head."""
    from torchvision import models

    model = models.vgg16_bn(num_classes=classes)
    model.features[0] = nn.Conv2d(input_shape[0], 64, kernel_size=3, padding=1)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier[0] = nn.Linear(512, 4096)
    return model


def fc(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two hidden layers of 256 and 128 ReLU units, dropout .1 after each."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), 256), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(128, classes),
    )  # fmt: skip


def cnn(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three conv-BN blocks, so that every pruner runs in seconds on a CPU (demo and tests)."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(input_shape[0], 16), nn.MaxPool2d(2), *block(16, 32), nn.MaxPool2d(2), *block(32, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Xavier-normal weights and zero biases for conv and linear layers; norm weights 1, biases 0 (in place).

    Raises TypeError on any other layer that has parameters or buffers.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            raise TypeError(f"initialise knows no {type(module).__name__}; say in its module how it begins")
    return model


def _unfilled(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A built-in model with tensors not yet set: their own draws, not wanted here, take VGG-16 three seconds."""
    with torch.device("meta"):
        model: nn.Module = MODELS[name](input_shape, classes)
    model.any_layout = True  # type: ignore[assignment]  # miaprune.devices.channels_last
    return model.to_empty(device="cpu")


def _of_user(entry: ModelEntry, input_shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """A user's model as its constructors fill it, with this seed; the global generator is left as it was.

    Raises `miaprune.entries.GridError` unless it gives a logit for each class of a record.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = entry.given(input_shape=input_shape, classes=classes)
        if not isinstance(model, nn.Module):
            raise GridError(f"model {entry.name} is a {type(model).__name__}; give a torch.nn.Module")
        with entry.blamed(), torch.no_grad():
            given = model.eval()(torch.zeros(2, *input_shape))
    found = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
    if found != [2, classes]:
        shape = ", ".join(map(str, input_shape))
        raise GridError(
            f"model {entry.name} gives {found} of inputs [2, {shape}]; give [2, {classes}], a logit for each class"
        )
    return model.train()


def _check_state(entry: ModelEntry, model: nn.Module, other: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Raise `GridError` if another such network with the same state answers otherwise: it would once it is loaded."""
    answers: list[Tensor] = []
    with entry.blamed(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        other.load_state_dict(model.state_dict())
        for each in (model, other):
            torch.manual_seed(0)
            answers.append(each.eval()(torch.randn(2, *input_shape)))
    model.train()
    if not torch.allclose(answers[0], answers[1], equal_nan=True):
        raise GridError(
            f"model {entry.name}: two with the same state_dict answer differently; keep what is drawn in parameters or "
            "persistent buffers"
        )


def build(name: str, input_shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """An initialised model of one of `MODELS`, on the CPU; the same seed gives the same weights.

    A user's is as its own constructors leave it.
    """
    entry = MODELS[known("model", name, MODELS)]
    if entry.extension:
        model = _of_user(entry, input_shape, classes, seed)
        _check_state(entry, model, _of_user(entry, input_shape, classes, seed + 1), input_shape)
        return model
    return initialise(_unfilled(name, input_shape, classes), torch.Generator().manual_seed(seed))


def load(name: str, input_shape: tuple[int, ...], classes: int, state: Mapping[str, Tensor]) -> nn.Module:
    """A model with the weights of a checkpoint, which are copied."""
    entry = MODELS[known("model", name, MODELS)]
    own = entry.extension is not None
    model = _of_user(entry, input_shape, classes, 0) if own else _unfilled(name, input_shape, classes)
    model.load_state_dict(state)
    return model
