"""Small inputs that tests share, and the switch for tests that need a GPU."""

import hypothesis
import numpy as np
import pytest
import torch

from miaprune.signals import Signals

torch.set_num_threads(1)
hypothesis.settings.register_profile("loaded", deadline=None)  # a loaded machine is slow, not wrong
hypothesis.settings.load_profile("loaded")


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def make_signals(n, classes, seed, member_boost=0.0):
    """Random signals, half of them members; ``member_boost`` raises the logit of a member's true class."""
    rng = np.random.default_rng(seed)
    labels, members = rng.integers(0, classes, n), np.arange(n) < n // 2
    logits = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[labels]
    logits[np.arange(n), labels] += member_boost * members
    posteriors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sensitivities = posteriors * (1 - posteriors) * rng.uniform(0.5, 1.5, (n, classes))
    return Signals(posteriors.astype("f4"), sensitivities.astype("f4"), labels, members)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The bundled digits as a prepared dataset."""
    from miaprune import datasets

    path = tmp_path_factory.mktemp("digits") / "digits.safetensors"
    datasets.prepare("digits", path.parent, path)
    return datasets.load(path)
