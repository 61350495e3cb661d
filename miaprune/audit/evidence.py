"""What models said: of the audited versions of a model, and of reference models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from miaprune.attacks.thresholds import SMALLEST
from miaprune.signals import ROUNDING, Signals

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["logits", "posteriors"]

DRAWS, EPSILON = 10, 1e-3
"""Noise draws and scale of sensitivities (method, section 6)."""


@dataclass(frozen=True)
class Version:
    """What one version of a model (original, pruned, defended, ...) said of n records.

    Attributes
    ----------
    signals : Signals
        What attacks without reference models see; sensitivities may lack.
    margins : np.ndarray
        float32 [n], what attacks with reference models see.
    saturated : int
        Of how many records the posterior of the label is exactly 0 or 1, where the logits are not known: then their
        margins are not, either.
    source : dict[str, Any]
        What the results say it comes from: the file's name and SHA-256.
    """

    signals: Signals
    margins: np.ndarray
    saturated: int = 0
    source: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class References:
    """What K reference models said of the same n records.

    Attributes
    ----------
    margins : np.ndarray
        float32 [K, n].
    members : np.ndarray
        bool [K, n], whether the record was in the reference's training set; nowhere True: offline attacks only.
    source : dict[str, Any]
        As a `Version` has it.
    """

    margins: np.ndarray
    members: np.ndarray
    source: dict[str, Any] = field(default_factory=dict)


def of_logits(
    logits: np.ndarray, labels: np.ndarray, members: np.ndarray, sensitivities: np.ndarray | None = None
) -> Version:
    """A version by its logits, float [n, C], labels int [n] (0-based) and members bool [n], in any order of records.

    ``sensitivities``, float [n, C], are for SAMIA (`miaprune.measure`). Raises `ValueError` on what no attack can take.
    """
    return _version("logits", logits, labels, members, sensitivities)


def of_posteriors(
    posteriors: np.ndarray, labels: np.ndarray, members: np.ndarray, sensitivities: np.ndarray | None = None
) -> Version:
    """A version by its posteriors, float [n, C]; the rest as `of_logits`.

    Posteriors near 1 lose by rounding what margins are made of: give logits where there are some.
    """
    return _version("posteriors", posteriors, labels, members, sensitivities)


def query(model: nn.Module, inputs: np.ndarray, labels: np.ndarray, members: np.ndarray, seed: int = 7) -> Version:
    """A version by asking a network, for posteriors, sensitivities and margins, where it is; leaves it in eval mode.

    Parameters
    ----------
    model : from float32 [b, ...] to logits [b, C], C being the largest label + 1 at least.
    inputs : float [n, ...], as the model takes them.
    labels, members : int [n], 0-based, and bool [n].

    Raises
    ------
    ValueError : on what no attack can take.
    """
    import torch

    from miaprune.data.datasets import Dataset
    from miaprune.data.splits import Split
    from miaprune.signals import measure

    inside = as_members(members)
    if inside.shape != np.shape(labels):
        shapes = f"labels {list(np.shape(labels))} and members {list(inside.shape)}"
        raise ValueError(f"{shapes} do not agree; they must be [n] and [n]")
    if fault := fault_of_members(inside):
        raise ValueError(fault)
    device = next(model.parameters()).device
    tensor = torch.as_tensor(inputs, dtype=torch.float32)
    with torch.inference_mode():
        classes = model.eval()(tensor[:2].to(device)).shape[1]
    mean, std = torch.tensor(0.0), torch.tensor(1.0)
    data = Dataset("the model", tensor, torch.as_tensor(as_labels(labels)), classes, mean, std).to(device)
    split = Split(np.flatnonzero(inside), np.empty(0, np.int64), np.flatnonzero(~inside))
    margins = np.empty(len(inside), np.float32)
    measured = measure(model, data, split, DRAWS, EPSILON, seed, margins=margins)
    order = np.argsort(np.concatenate([split.train, split.test]))  # members come first there
    return Version(measured.at(order), margins)


def references(outputs: np.ndarray, labels: np.ndarray, members: np.ndarray, kind: Kind = "logits") -> References:
    """What references said: logits or posteriors, float [K, n, C], labels int [n] and members bool [K, n].

    Raises `ValueError` on what no attack can take.
    """
    outputs, members = np.asarray(outputs), as_members(members)
    if outputs.ndim != 3 or members.shape != outputs.shape[:2] or np.shape(labels) != outputs.shape[1:2]:
        raise ValueError(
            f"references' {kind} {list(outputs.shape)}, labels {list(np.shape(labels))} and members "
            f"{list(members.shape)} do not agree; they must be [K, n, C], [n] and [K, n]"
        )
    labels = as_labels(labels)
    margins = np.empty(members.shape, np.float32)
    for k, said in enumerate(outputs):
        if fault := fault_of(kind, said, labels):
            raise ValueError(f"reference {k}: {fault}")
        margins[k] = margins_of(kind, said, labels)
    return References(margins, members)


def _version(
    kind: Kind, outputs: np.ndarray, labels: np.ndarray, members: np.ndarray, sensitivities: np.ndarray | None
) -> Version:
    outputs, labels, members = np.asarray(outputs), as_labels(labels), as_members(members)
    if outputs.ndim != 2 or {labels.shape, members.shape} != {outputs.shape[:1]}:
        raise ValueError(
            f"{kind} {list(outputs.shape)}, labels {list(labels.shape)} and members {list(members.shape)} do not "
            "agree; they must be [n, C], [n] and [n]"
        )
    if fault := fault_of(kind, outputs, labels) or fault_of_members(members):
        raise ValueError(fault)
    said = np.empty((len(outputs), 0), np.float32) if sensitivities is None else np.asarray(sensitivities, np.float32)
    posteriors = posteriors_of(kind, outputs)
    margins = margins_of(kind, outputs, labels)
    return Version(Signals(posteriors, said, labels, members), margins, saturated_in(kind, outputs, labels))


def as_labels(labels: np.ndarray) -> np.ndarray:
    """Labels as int64; raises `ValueError` if they are no integers."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}; they must be integers, 0 for the first class")
    return labels.astype(np.int64, copy=False)


def as_members(members: np.ndarray) -> np.ndarray:
    """Members as bool; raises `ValueError` if they are neither bool nor 0 and 1."""
    members = np.asarray(members)
    if members.dtype == bool:
        return members
    if members.dtype.kind not in "iuf" or not np.isin(members, (0, 1)).all():
        raise ValueError(f"members are {members.dtype} and not only 0 and 1; they must be true or false")
    return members.astype(bool)


LEAST = 10
"""Members, and non-members, without which no interval holds."""


def fault_of_members(members: np.ndarray) -> str | None:
    """Why no attack can be measured on these."""
    inside = int(members.sum())
    if min(inside, len(members) - inside) < LEAST:
        return f"{inside} members and {len(members) - inside} non-members; an audit needs {LEAST} or more of each"
    return None


def fault_of(kind: Kind, outputs: np.ndarray, labels: np.ndarray, first: int = 0) -> str | None:
    """Why no attack can take these outputs [b, C] and labels int64 [b], in half a line; None where all can.

    ``first`` is the number of the first record, for the message.
    """
    if outputs.dtype.kind != "f":
        return f"{kind} are {outputs.dtype}; they must be floating-point numbers"
    if outputs.shape[1] < 2:
        return f"{kind} of {outputs.shape[1]} class; two or more are needed, of a yes-or-no model p0 = 1 - p and p1 = p"
    if not len(outputs):
        return "no records"
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        return f"record {first + int(finite.argmin())}: {kind} with NaN or infinity"
    sums = outputs.sum(axis=1, dtype=np.float64)
    right = (abs(sums - 1) <= ROUNDING) & (outputs.min(axis=1) >= 0)
    if kind == "posteriors" and not right.all():
        wrong = int(right.argmin())
        low, high = outputs[wrong].min(), outputs[wrong].max()
        hint = "; are they logits? Then name them so" if low < 0 or high > 1 + ROUNDING else ""
        return (
            f"record {first + wrong}: posteriors from {low:.4g} to {high:.4g} with the sum {sums[wrong]:.6g}; they "
            f"must be 0 or more and sum to 1{hint}"
        )
    if kind == "logits" and right.all():
        return f"logits that are 0 or more and sum to 1 in record {first} and those after it; name them posteriors"
    wrong_labels = (labels < 0) | (labels >= outputs.shape[1])
    if wrong_labels.any():
        wrong = int(wrong_labels.argmax())
        hint = "; are labels counted from 1?" if labels[wrong] == outputs.shape[1] else ""
        last = outputs.shape[1] - 1
        return f"record {first + wrong}: label {labels[wrong]}; with {last + 1} classes they are 0 to {last}{hint}"
    return None


def posteriors_of(kind: Kind, outputs: np.ndarray) -> np.ndarray:
    """Posteriors, float32 [b, C]."""
    if kind == "posteriors":
        return outputs.astype(np.float32, copy=False)
    # In half precision, a softmax would round the posteriors of sure labels to 1.
    outputs = outputs.astype(np.promote_types(outputs.dtype, np.float32), copy=False)
    exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def margins_of(kind: Kind, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Margins (method, section 13) of outputs [b, C] and labels int64 [b], float32 [b].

    Of posteriors they are log p_y less the logarithm of the sum of the others, each sum not below `SMALLEST`.
    """
    true, others = labels[:, None], outputs.astype(np.promote_types(outputs.dtype, np.float32))  # a copy
    of_true = np.take_along_axis(others, true, axis=1)[:, 0].astype(np.float64)
    if kind == "posteriors":
        np.put_along_axis(others, true, 0.0, axis=1)
        rest = others.sum(axis=1, dtype=np.float64)
        return (np.log(np.maximum(of_true, SMALLEST)) - np.log(np.maximum(rest, SMALLEST))).astype(np.float32)
    np.put_along_axis(others, true, -np.inf, axis=1)
    largest = others.max(axis=1)
    np.exp(np.subtract(others, largest[:, None], out=others), out=others)
    return (of_true - largest - np.log(others.sum(axis=1, dtype=np.float64))).astype(np.float32)


def saturated_in(kind: Kind, outputs: np.ndarray, labels: np.ndarray) -> int:
    """How many labels have a posterior of exactly 0 or 1: of logits none, as their margins are not rounded."""
    if kind == "logits":
        return 0
    of_true = np.take_along_axis(outputs, labels[:, None], axis=1)
    return int(((of_true == 0) | (of_true == 1)).sum())
