"""The networks that attacks train: SAMIA and the perceptron of the `nn` attacks (method, section 7).

`EncoderLayer` and `Dropout` compute what torch's own do and are ours for their speed on a CPU (docs/performance.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """`torch.nn.Dropout`, on a CPU by bytes of 64-bit words instead of a draw for each number.

    The draws are the global generator's either way. On a CPU the probability is rounded to 1/256, .2 to .1992.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return F.dropout(x, self.p, self.training)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        dropped = round(self.p * 256)
        kept = (words.view(torch.uint8)[: x.numel()] >= dropped).view(x.shape)
        return x * kept.to(x.dtype).mul_(256 / (256 - dropped))


class EncoderLayer(nn.Module):
    """A post-norm transformer encoder layer, the same function as `torch.nn.TransformerEncoderLayer`.

    Written out for the sake of `Dropout`: the library's layer draws its masks itself.
    """

    def __init__(self, width: int, heads: int, feedforward: int, p: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(p)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def attend(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), dim=-1)
        mixed = self.dropout(weights) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.attend(x)))
        feedforward = self.down(self.dropout(F.gelu(self.up(x))))
        return self.norm2(x + self.dropout(feedforward))


class Samia(nn.Module):
    """Self-attention over classes: each class is a token of posterior, sensitivity and one-hot label.

    Input float32 [n, 3, C], output logits [n, 2] (non-member, member).
    """

    def __init__(self, inputs: tuple[int, ...]) -> None:
        super().__init__()
        features, classes = inputs
        self.norm = nn.BatchNorm1d(features * classes)
        self.embed = nn.Linear(features, 64)
        self.encoder = nn.Sequential(*(EncoderLayer(64, 4, 128, 0.2) for _ in range(3)))
        self.head = nn.Sequential(nn.Linear(64 * classes, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.flatten(1)).view(x.shape).transpose(1, 2)
        y: Tensor = self.head(self.encoder(F.gelu(self.embed(tokens))).flatten(1))
        return y


def mlp(inputs: tuple[int, ...]) -> nn.Module:
    """The 512-256-128-2 network of the `nn` attacks; input float32 [n, d], output logits [n, 2]."""
    return nn.Sequential(
        nn.Linear(inputs[0], 512), nn.ReLU(), Dropout(0.2),
        nn.Linear(512, 256), nn.ReLU(), Dropout(0.2),
        nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2),
    )  # fmt: skip
