"""Signals against their definition, record by record."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import make_signals
from torch import nn

from miaprune import signals
from miaprune.data import splits
from miaprune.files import FileError
from miaprune.networks import models

SPLIT = splits.victim_split(1797, 7)


def test_posteriors_and_sensitivities_are_their_definitions(digits):
    model = models.build("cnn", digits.input_shape, digits.classes, seed=0)
    s = signals.measure(model, digits, SPLIT, draws=3, epsilon=1e-3, seed=5)
    index = np.concatenate([SPLIT.train, SPLIT.test])
    assert len(s) == 403 + 405
    np.testing.assert_array_equal(s.labels, digits.labels[index])
    np.testing.assert_array_equal(s.members, np.isin(index, SPLIT.train))
    x = digits.batch(torch.from_numpy(index))
    generator = torch.Generator().manual_seed(5)  # one batch: the noise is drawn in the same order
    model = model.eval().double()
    with torch.no_grad():
        p = model(x.double()).softmax(1)
        moved = [model(x.double() + 1e-3 * torch.randn(x.shape, generator=generator)).softmax(1) for _ in range(3)]
    expected = sum((q - p).abs() for q in moved) / 3e-3
    np.testing.assert_allclose(s.posteriors, p, atol=1e-6)
    # float32 posteriors are good to 6e-8, and the definition divides by 1e-3
    np.testing.assert_allclose(s.sensitivities, expected, atol=5e-4)


def test_sensitivity_of_a_linear_model_grows_as_its_weights(digits):
    """softmax is linear for small logits: doubling a tiny weight doubles every sensitivity."""

    def mean_sensitivity(scale):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        nn.init.constant_(model[1].bias, 0)
        with torch.no_grad():
            model[1].weight.copy_(scale * torch.randn(10, 64, generator=torch.Generator().manual_seed(0)))
        return signals.measure(model, digits, SPLIT, 10, 1e-3, 1).sensitivities.mean()

    assert mean_sensitivity(0.02) == pytest.approx(2 * mean_sensitivity(0.01), rel=0.05)


def test_a_network_that_changes_its_input_is_measured_as_one_that_does_not(digits):
    plain = nn.Sequential(nn.Threshold(0.1, 0.0), nn.Flatten(), nn.Linear(64, 10))
    in_place = nn.Sequential(nn.Threshold(0.1, 0.0, inplace=True), *plain[1:])
    first, second = (signals.measure(model, digits, SPLIT, 3, 0.1, 1) for model in (plain, in_place))
    np.testing.assert_array_equal(first.sensitivities, second.sensitivities)


def test_save_and_load_give_the_same_signals(tmp_path):
    path, roles = tmp_path / "signals.safetensors", ("victim", "shadow_0", "shadow_1")
    given = {role: make_signals(10, 4, seed) for seed, role in enumerate(roles)}
    signals.save(path, given, {"victim": {"epoch": 3}})
    for role in roles:
        loaded = signals.load(path, role)
        for field in signals.Signals.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(loaded, field), getattr(given[role], field))
            assert getattr(loaded, field).dtype == getattr(given[role], field).dtype
    pooled = signals.load_shadows(path, 2)
    np.testing.assert_array_equal(pooled.labels, np.r_[given["shadow_0"].labels, given["shadow_1"].labels])


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "signals.safetensors"
    signals.save(path, {"victim": make_signals(10, 4, 0)}, {})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FileError, match="damaged"):
        signals.load(path, "victim")


def test_a_file_without_a_models_signals_is_refused(tmp_path):
    path = tmp_path / "signals.safetensors"
    signals.save(path, {"victim": make_signals(10, 4, 0)}, {})
    with pytest.raises(FileError, match="lacks signals of shadow_0"):
        signals.load_shadows(path, 1)


def test_more_than_256_classes_are_kept(tmp_path):
    s = make_signals(600, 300, 0)
    s.labels[:300] = np.arange(300)
    signals.save(tmp_path / "signals", {"victim": s}, {})
    loaded = signals.load(tmp_path / "signals", "victim")
    np.testing.assert_array_equal(loaded.labels, s.labels)
    assert loaded.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("posteriors", np.nan, "2 of 10 records have posteriors that are no probabilities"),
        ("posteriors", np.inf, "2 of 10 records have posteriors that are no probabilities"),
        ("posteriors", -0.1, "2 of 10 records have posteriors that are no probabilities"),
        ("posteriors", 0.3, "2 of 10 records have posteriors that are no probabilities"),
        ("sensitivities", np.nan, "2 of 10 records have sensitivities that are negative or no finite numbers"),
        ("sensitivities", np.inf, "2 of 10 records have sensitivities that are negative or no finite numbers"),
        ("sensitivities", -1, "2 of 10 records have sensitivities that are negative or no finite numbers"),
        ("labels", 4, "2 of 10 records have labels outside 0..3"),
    ],
)
def test_values_that_no_attack_can_take_are_refused_where_they_are_read(field, value, message, tmp_path):
    path, s = tmp_path / "signals.safetensors", make_signals(10, 4, 0)
    getattr(s, field)[[3, 8]] = value
    signals.save(path, {"victim": make_signals(10, 4, 1), "shadow_0": s}, {})
    signals.load(path, "victim")
    with pytest.raises(FileError) as error:
        signals.load_shadows(path, 1)
    assert str(error.value) == f"{path}: shadow_0: {message}; delete it and run again"


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("labels", lambda a: a[:-1], r"shapes that do not agree: posteriors \[10, 4\].*labels \[9\]"),
        ("members", lambda a: a[:-1], "shapes that do not agree"),
        ("posteriors", lambda a: a[:-1], "shapes that do not agree"),
        ("sensitivities", lambda a: a[:, :-1], "shapes that do not agree"),
        ("labels", lambda a: a + 0.5, "labels are float64"),
        ("members", lambda a: a.astype(int), "members int64; they must be integers and bool"),
        ("posteriors", np.log, "10 of 10 records have posteriors that are no probabilities"),
        ("labels", lambda a: a + 1, r"\d of 10 records have labels outside 0\.\.3"),
        ("posteriors", torch.from_numpy, "posteriors are Tensor; they must be a NumPy array"),
        ("labels", list, "labels are list; they must be a NumPy array"),
    ],
)
def test_signals_of_the_wrong_form_are_named_where_they_are_made(field, change, message):
    s = make_signals(10, 4, 0)
    with pytest.raises(ValueError, match=message):
        replace(s, **{field: change(getattr(s, field))})


def test_labels_of_any_integers_are_taken_as_attacks_take_them():
    s = make_signals(10, 4, 0)
    converted = replace(s, labels=s.labels.astype(np.uint8))
    assert converted.labels.dtype == np.int64
    np.testing.assert_array_equal(converted.confidence, s.confidence)


def test_a_diverged_model_is_refused_where_it_is_measured(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    nn.init.zeros_(model[1].weight)
    with torch.no_grad():
        model[1].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"shadow_2: 808 of 808 records have posteriors.*lower learning rate"):
        signals.measure(model, digits, SPLIT, 1, 1e-3, 1, "shadow_2")


def test_confidence_and_correctness_read_the_true_class():
    s = make_signals(20, 4, 0)
    for i in range(20):
        assert s.confidence[i] == s.posteriors[i, s.labels[i]]
        assert s.correct[i] == (s.posteriors[i].argmax() == s.labels[i])


@pytest.mark.gpu
def test_signals_on_a_gpu_are_true_float32(digits, monkeypatch):
    """TF32's 10-bit mantissa would move posteriors by 1e-4 and drown the sensitivities."""
    model = models.build("resnet18", (1, 8, 8), 10, seed=0)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    cpu = signals.measure(model, digits, SPLIT, 10, 1e-3, 1)
    gpu = signals.measure(model.cuda(), digits.to("cuda"), SPLIT, 10, 1e-3, 1)
    np.testing.assert_allclose(gpu.posteriors, cpu.posteriors, atol=2e-5)
    assert gpu.sensitivities.mean() == pytest.approx(cpu.sensitivities.mean(), rel=0.05)
