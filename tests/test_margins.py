"""Margins: from logits, of every record, in files; and what no attack can take."""

import numpy as np
import pytest
import torch

from miaprune import grid, margins, signals
from miaprune.data import splits
from miaprune.files import FileError
from miaprune.margins import DEV, TEST, TRAIN, UNSEEN
from miaprune.networks import models

N = 1797


@pytest.fixture(scope="module")
def model(digits):
    return models.build("fc", digits.input_shape, digits.classes, 3)


def test_a_margin_gives_back_the_posterior_and_is_exact_where_that_is_0_or_1():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 5, (200, 7)))
    labels = torch.from_numpy(rng.integers(0, 7, 200))
    found = margins.of_logits(logits, labels)
    expected = torch.softmax(logits, 1)[torch.arange(200), labels]
    torch.testing.assert_close(torch.sigmoid(found), expected)
    saturated = torch.tensor([[1000.0, 0.0, 0.0], [-500.0, 500.0, 0.0]])
    torch.testing.assert_close(margins.of_logits(saturated, torch.tensor([0, 0])), torch.tensor([999.30685, -1000.0]))


def test_every_record_has_its_margin_whoever_measured_it(digits, model):
    split = splits.victim_split(N, 7)
    own, all_of_them = np.full(N, np.nan, np.float32), np.full(N, np.nan, np.float32)
    measured = signals.measure(model, digits, split, 2, 1e-3, 0, "victim", own)
    asked = np.concatenate([split.train, split.test])
    assert np.isfinite(own[asked]).all() and np.isnan(np.delete(own, asked)).all()
    np.testing.assert_allclose(1 / (1 + np.exp(-own[asked].astype("f8"))), measured.confidence, rtol=1e-4, atol=1e-7)
    margins.fill(model, digits, own)
    margins.fill(model, digits, all_of_them)
    np.testing.assert_allclose(own, all_of_them, rtol=1e-4, atol=1e-5)


def test_signals_are_the_same_with_margins_or_without(digits, model):
    split, own = splits.victim_split(N, 7), np.full(N, np.nan, np.float32)
    with_margins, without = (signals.measure(model, digits, split, 2, 1e-3, 0, "x", m) for m in (own, None))
    for name in ("posteriors", "sensitivities"):
        np.testing.assert_array_equal(getattr(with_margins, name), getattr(without, name))


def test_parts_are_those_of_the_splits():
    parts = margins.parts_of(100, 7, 7)
    for i in range(7):
        split = splits.of_role(grid.reference(i), 100, 7)
        for part, records in ((TRAIN, split.train), (DEV, split.dev), (TEST, split.test)):
            assert set(np.flatnonzero(parts[i] == part)) == set(records)
    victims = splits.victim_split(100, 7)
    assert (parts[:, np.concatenate([victims.train, victims.dev, victims.test])] == UNSEEN).all()


def saved(path, roles, n=100, **other):
    rng = np.random.default_rng(0)
    margins.save(path, {role: rng.normal(size=n).astype("f4") for role in roles} | other, {})
    return path


def test_a_setting_of_seven_references_is_read_from_two_files(tmp_path):
    first = saved(tmp_path / "a", grid.ROLES)
    more = saved(tmp_path / "b", grid.in_chunk("5-6"))
    found = margins.load([first, more], 7, 7)
    assert found.references.shape == found.parts.shape == (7, 100)
    split = splits.victim_split(100, 7)
    np.testing.assert_array_equal(found.records, np.concatenate([split.train, split.test]))
    assert found.out[:, found.records].all(), "every reference is OUT for every record of the victim"


def test_chunks_are_all_references_beyond_the_shadows():
    assert [grid.chunks(n) for n in (5, 6, 13, 14, 21)] == [
        [], ["5-12"], ["5-12"], ["5-12", "13-20"], ["5-12", "13-20"]
    ]  # fmt: skip
    assert [role for chunk in grid.chunks(32) for role in grid.in_chunk(chunk)] == [
        f"reference_{i}" for i in range(5, 37)
    ]


@pytest.mark.parametrize(
    ("roles", "other", "said"),
    [
        (grid.ROLES[:-1], {}, "lacks margins of shadow_4"),
        (grid.ROLES, {"shadow_2": np.zeros(99, np.float32)}, "shadow_2: not the margins of 100 records"),
        (grid.ROLES, {"shadow_2": np.full(100, np.nan, np.float32)}, "shadow_2: not the margins of 100 records"),
        (grid.ROLES, {"victim": np.append(np.zeros(99), np.inf).astype("f4")}, "victim: not the margins of 100"),
        (grid.ROLES, {"victim": np.zeros((), np.float32)}, "victim: not the margins of 1 records"),
    ],
)  # fmt: skip
def test_margins_that_no_attack_can_take_are_named(tmp_path, roles, other, said):
    path = saved(tmp_path / "margins.safetensors", roles, **other)
    with pytest.raises(FileError, match=rf"margins\.safetensors: {said}.*delete it and run again"):
        margins.load([path], 7, 5)


def test_the_file_that_is_at_fault_is_named(tmp_path):
    first = saved(tmp_path / "a", grid.ROLES)
    more = saved(tmp_path / "b", grid.in_chunk("5-6"), n=99)
    with pytest.raises(FileError, match="b: reference_5: not the margins of 100 records"):
        margins.load([first, more], 7, 7)
    another, last = (saved(tmp_path / name, grid.in_chunk("13-20")) for name in "cd")
    with pytest.raises(FileError, match="c: lacks margins of reference_5; delete it"):
        margins.load([first, another, last], 7, 21)


def test_margins_of_a_diverged_model_are_refused_where_they_are_made(digits):
    model = models.build("fc", digits.input_shape, digits.classes, 3)
    with torch.no_grad():
        next(model.parameters())[0, 0] = torch.inf
    for known in (np.nan, np.inf):  # measured here, or with the signals
        with pytest.raises(ValueError, match=r"reference_7: \d+ of 1797 margins .* did its training diverge\?"):
            margins.fill(model, digits, np.full(N, known, np.float32), "reference_7")


def test_margins_of_fewer_models_than_the_run_has_are_named(tmp_path):
    with pytest.raises(FileError, match="lacks margins of reference_5"):
        margins.load([saved(tmp_path / "margins.safetensors", grid.ROLES)], 7, 6)
