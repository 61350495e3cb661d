"""Networks that take no time, and evidence with a leak of known size."""

import pytest
from synthetic import Evidence

from miaprune import metrics
from miaprune.attacks import neural
from miaprune.audit import running


@pytest.fixture
def quick(monkeypatch):
    """Networks that are fitted in a few steps, and differences of few resamples."""
    monkeypatch.setattr(neural, "REFITS", 0)
    monkeypatch.setitem(running.RECIPE, "least_steps", 8)
    monkeypatch.setattr(running, "EPOCHS", dict.fromkeys(running.EPOCHS, 1))
    monkeypatch.setattr(metrics, "PAIRED_RESAMPLES", 100)


@pytest.fixture
def evidence():
    return Evidence()
