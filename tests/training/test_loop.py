"""The training loop: what it keeps, when it stops, and that one seed fixes it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from miaprune import devices as gpu
from miaprune import grid
from miaprune.data import splits
from miaprune.networks import models, pruning
from miaprune.training import loop as training
from miaprune.training import together
from miaprune.training.loop import train
from miaprune.training.objectives import CrossEntropy
from miaprune.training.together import in_turn, train_roles

RECIPE = {"epochs": 8, "learning_rate": 1e-3, "weight_decay": 5e-4, "batch_size": 64, "patience": 5}
SPLIT = splits.victim_split(1797, 7)


def run(digits, recipe=RECIPE, seed=1, name="fc", prune=None, objective=None):
    model = models.build(name, digits.input_shape, digits.classes, seed=0).to(digits.inputs.device)
    if prune:
        records = digits.batch(torch.from_numpy(SPLIT.train[: pruning.CALIBRATION]))
        pruning.prune(prune, model, 0.5, records)
    training = train(model, digits, SPLIT, recipe, objective or CrossEntropy(), seed)
    return model, in_turn([training], digits.inputs.device)[0]


@pytest.mark.parametrize("name", ["fc", "cnn"])
def test_same_seed_same_bytes_and_another_seed_others(digits, name):
    a, b, c = (run(digits, RECIPE | {"epochs": 2}, seed, name)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2])])
def test_no_batch_of_several_is_a_single_record(n, sizes):
    """A batch norm takes none."""
    batches = list(CrossEntropy().batches(torch.arange(n), 4, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in batches] == sizes
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(batches), order)


def test_it_learns_and_reports_the_accuracy_of_the_weights_it_keeps(digits):
    model, facts = run(digits, RECIPE | {"epochs": 30})
    for part in ("train", "dev", "test"):
        index = torch.from_numpy(getattr(SPLIT, part))
        predicted = model.eval()(digits.batch(index)).argmax(1)
        assert facts[f"{part}_accuracy"] == (predicted == digits.labels[index]).double().mean().item()
    assert facts["test_accuracy"] > 0.85


def test_a_training_that_diverges_fails_there_and_not_in_an_attack(digits):
    with pytest.raises(FloatingPointError, match="diverged"):
        run(digits, RECIPE | {"epochs": 1, "learning_rate": 1e38})


def test_of_several_roles_the_log_names_the_one_that_learns_nothing(digits, caplog):
    roles = ("victim", "shadow_0")
    networks = {role: models.build("fc", digits.input_shape, digits.classes, seed=0) for role in roles}
    parts = {role: splits.of_role(role, 1797, 7) for role in roles}
    recipe = RECIPE | {"epochs": 1, "learning_rate": 0.0}
    train_roles(networks, digits, parts, recipe, dict.fromkeys(roles, CrossEntropy()), dict.fromkeys(roles, 1))
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.split(":")[:2] for line in warned] == [[role, " has learnt nothing"] for role in roles]


def test_best_dev_weights_are_kept_and_patience_stops(digits, monkeypatch):
    """Scripted dev accuracies: the best is epoch 3, and 3 worse epochs (patience 2) end it at epoch 6."""
    scripted = iter([0.1, 0.2, 0.5, 0.4, 0.5, 0.3, 0.7, 0.8, 0.9])
    states, of_the_kept = [], {"train": 0.7, "dev": 0.8, "test": 0.9}

    def accuracy(model, data, index, between):
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(scripted)

    monkeypatch.setattr(training, "accuracy", accuracy)
    facts = run(digits, RECIPE | {"epochs": 20, "patience": 2})[1]
    assert facts.pop("majority_accuracy") < 0.2 and facts.pop("learnt")
    assert facts == {"epoch": 3, "epochs_run": 6} | {f"{part}_accuracy": value for part, value in of_the_kept.items()}
    assert len(states) == 6 + 3
    assert all(torch.equal(states[6][k], states[2][k]) for k in states[2]), "the weights of epoch 3 are kept"
    assert not torch.equal(states[5]["1.weight"], states[2]["1.weight"])


@pytest.mark.parametrize(
    ("part", "more", "learnt"),
    [("test", 0, False), ("test", 1, False), ("test", 4, True), ("train", 1, False), ("train", 4, True)],
)
def test_a_model_as_good_as_a_constant_answer_has_learnt_nothing(digits, monkeypatch, part, more, learnt):
    """Up to 1.645 standard errors better: that is what a constant answer reaches by chance one time in twenty.

    One that knows its members and nothing else has learnt what leaks.
    """

    def accuracy(_, __, index, ___):
        labels = digits.labels[index]
        guess = (labels == labels.mode().values).double().mean().item()
        here = len(index) == len(getattr(SPLIT, part))
        return guess + here * more * (guess * (1 - guess) / len(labels)) ** 0.5

    monkeypatch.setattr(training, "accuracy", accuracy)
    assert run(digits, RECIPE | {"epochs": 1})[1]["learnt"] is learnt


def test_epochs_are_bounded(digits):
    assert run(digits, RECIPE | {"epochs": 3, "patience": 100})[1]["epochs_run"] == 3


@pytest.mark.parametrize("pruner", pruning.PRUNERS)
def test_fine_tuning_keeps_pruned_weights_at_zero(digits, pruner):
    model, _ = run(digits, RECIPE | {"epochs": 2}, name="cnn", prune=pruner)
    masks = pruning.masks(model)
    state = pruning.finalise(model).state_dict()
    assert masks
    for name, mask in masks.items():
        assert not state[name][mask == 0].any()
        assert state[name][mask == 1].all()


def test_the_global_generator_is_left_alone(digits):
    before = torch.get_rng_state()
    run(digits, RECIPE | {"epochs": 1})
    assert torch.equal(before, torch.get_rng_state())


def posteriors(model, data):
    """What a model says of all records, to compare in place of weights.

    Before a batch norm a bias' gradient is rounding noise, which Adam scales up.
    """
    with torch.no_grad():
        return model.eval()(data.batch(torch.arange(len(data), device=data.inputs.device))).softmax(1)


@pytest.mark.gpu
def test_training_on_a_gpu_reaches_the_same_accuracy(digits):
    cpu = run(digits, RECIPE | {"epochs": 30}, name="cnn")[1]
    gpu = run(digits.to("cuda"), RECIPE | {"epochs": 30}, name="cnn")[1]
    # other kernels, other rounding: equal within 4 standard errors of an accuracy on 405 records
    assert gpu["test_accuracy"] == pytest.approx(cpu["test_accuracy"], abs=4 * 0.5 / 405**0.5)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["fc", "cnn"])
def test_tricks_on_a_gpu_leave_the_accuracy(digits, precision, name, monkeypatch):
    data, recipe = digits.to("cuda"), RECIPE | {"epochs": 30}
    quick = run(data, recipe | {"precision": precision}, name=name)[1]
    monkeypatch.setattr(training, "Captured", lambda step: step)
    without = run(data, recipe | {"precision": "float32"}, name=name)[1]
    assert quick["test_accuracy"] == pytest.approx(without["test_accuracy"], abs=4 * 0.5 / 405**0.5)


@pytest.mark.gpu
@pytest.mark.parametrize("prune", [None, "l1"])
@pytest.mark.parametrize("name", ["fc", "cnn"])
def test_captured_steps_are_the_steps(digits, name, prune, monkeypatch):
    """Without dropout, in float32, the smaller last batches captured too: the same posteriors but for rounding."""
    data, found = digits.to("cuda"), []
    for captured in (training.Captured, lambda step: step):
        monkeypatch.setattr(training, "Captured", captured)
        model = models.build(name, data.input_shape, data.classes, 0).to("cuda")
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if prune:
            pruning.PRUNERS[prune](model, 0.5)
        under_way = train(model, data, SPLIT, RECIPE | {"epochs": 5}, CrossEntropy(), 0)
        (facts,) = in_turn([under_way], data.inputs.device)
        found.append((posteriors(model, data), facts["epoch"]))
    (replayed, epoch), (eager, same_epoch) = found
    assert epoch == same_epoch
    torch.testing.assert_close(replayed, eager, rtol=0, atol=1e-2)


@pytest.mark.gpu
def test_replays_draw_their_dropout_anew():
    ones, seen, batch = torch.ones(1000, device="cuda"), torch.zeros(1000, device="cuda"), torch.zeros(4, device="cuda")
    step = gpu.Captured(lambda _: seen.copy_(F.dropout(ones, 0.5)))
    masks = []
    for _ in range(gpu.WARM_UP + 3):
        step(batch)
        masks.append(seen.clone())
    assert len({tuple(mask.tolist()) for mask in masks}) == len(masks)


@pytest.mark.gpu
@pytest.mark.parametrize("prune", [None, "l1"])
def test_models_side_by_side_on_a_gpu_are_those_that_run_alone(digits, prune, monkeypatch):
    """Captured, each on its stream: over epochs of unequal batches and evaluations, the same but for rounding."""
    data, found = digits.to("cuda"), []
    parts = {role: splits.of_role(role, len(data), 7) for role in grid.ROLES}
    seeds = {role: seed for seed, role in enumerate(grid.ROLES)}
    states = SimpleNamespace(slot=lambda name: None)
    for beside in (False, True):
        for module in (training, together):
            monkeypatch.setattr(module, "captured", lambda *_, beside=beside: beside)
        trained = {role: models.build("cnn", data.input_shape, data.classes, seed) for role, seed in seeds.items()}
        for model in trained.values():
            model.to("cuda")
            if prune:
                pruning.PRUNERS[prune](model, 0.5)
        objectives = dict.fromkeys(grid.ROLES, CrossEntropy())
        facts = train_roles(trained, data, parts, RECIPE | {"epochs": 3}, objectives, seeds, states)
        found.append(([posteriors(m, data) for m in trained.values()], [one["epoch"] for one in facts.values()]))
    (alone, epochs), (beside, same_epochs) = found
    assert epochs == same_epochs
    for a, b in zip(alone, beside, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-2)


def test_steps_are_captured_where_all_that_is_trained_allows_it():
    class Alone(CrossEntropy):
        by_loss = False

    on_gpu, on_cpu = torch.device("cuda"), torch.device("cpu")
    assert training.captured([CrossEntropy()], on_gpu)
    assert not training.captured([CrossEntropy(), Alone()], on_gpu)
    assert not training.captured([CrossEntropy()], on_cpu)
