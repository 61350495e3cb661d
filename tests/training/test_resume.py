"""An interrupted training goes on to the very bytes of an undisturbed one, or starts anew and says why."""

import logging
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from job import slurm_ends_it, states_of

from miaprune import files, grid
from miaprune.data import splits
from miaprune.networks import models, pruning
from miaprune.training import defenses, resume
from miaprune.training import loop as training
from miaprune.training.loop import train
from miaprune.training.objectives import CrossEntropy
from miaprune.training.resume import Slot, States
from miaprune.training.stopping import Stopped
from miaprune.training.together import in_turn

# Quick to its best dev accuracy, so that early stopping ends it.
RECIPE = {"epochs": 12, "learning_rate": 1e-2, "weight_decay": 5e-4, "batch_size": 64, "patience": 1}
SPLIT = splits.victim_split(1797, 7)
CPU = torch.device("cpu")
STEPS = math.ceil(len(SPLIT.train) / RECIPE["batch_size"])  # in an epoch: 7
OPTIONS = {
    None: {},
    "ppb": {},
    "adv": {"inference_steps": 2, "inference_lr": 1e-3},
    "dp": {"clip": 1.0, "delta": 1e-5, "chunk": 64},
}
CASES = [  # dropout; batch norm; their masks; the objectives' own draws and models
    ("fc", None, None), ("cnn", None, None), ("cnn", "slim", None), ("cnn", "l1", "ppb"), ("fc", "l1", "adv"),
    ("cnn", "l1_structured", "adv"), ("fc", "l1", "dp"), ("cnn", "slim", "dp"),
]  # fmt: skip


class StopsAt(Slot):
    """A slot whose job is told to stop at one of its steps (1 is the first)."""

    def __init__(self, slot, stop_at):
        super().__init__(slot.states, slot.path)
        self.left = stop_at

    def step(self, state):
        self.left -= 1
        if self.left == 0:
            self.states.told = "SIGTERM"
        super().step(state)


def states_in(folder, every=math.inf, **fits):
    return States(folder / "states", every, fits)


def trained(folder, data, case, slot=None, recipe=RECIPE, split=SPLIT, seed=1, initial=0):
    """Train as the scripts do; returns the bytes of the checkpoint, and its facts."""
    name, pruner, defense = case
    model = models.build(name, data.input_shape, data.classes, seed=initial).to(data.inputs.device)
    if pruner:
        pruning.PRUNERS[pruner](model, 0.5)
    defended = defense and defenses.build(defense, 1.0, OPTIONS[defense], data, split, recipe, seed)
    training = train(model, data, split, recipe, defended or CrossEntropy(), seed, slot)
    (facts,) = in_turn([training], data.inputs.device)
    files.save_tensors(folder / "checkpoint", pruning.finalise(model).state_dict(), facts)
    return (folder / "checkpoint").read_bytes(), facts


def stopped(folder, data, case, stop_at, **options):
    with pytest.raises(Stopped, match=r"stopped by SIGTERM, state saved in .*states"):
        trained(folder, data, case, StopsAt(states_in(folder).slot("victim"), stop_at), **options)
    assert [path.name for path in (folder / "states").iterdir()] == ["victim.state.safetensors"]


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_training_ends_with_the_bytes_of_an_undisturbed_one(digits, tmp_path, case, caplog):
    caplog.set_level(logging.INFO)
    undisturbed, facts = trained(tmp_path, digits, case)
    in_last = STEPS * (facts["epochs_run"] - 1) + 3
    if case[2] != "dp":
        assert facts["epoch"] < facts["epochs_run"] < RECIPE["epochs"], "early stopping ended it"
    for stop_at, where in (
        (STEPS + 3, "in epoch 2, after step 3"),
        (2 * STEPS, f"in epoch 2, after step {STEPS}"),
        (in_last, f"in epoch {facts['epochs_run']}, after step 3"),
    ):
        stopped(tmp_path, digits, case, stop_at)
        caplog.clear()
        states = states_in(tmp_path)
        again, same_facts = trained(tmp_path, digits, case, states.slot("victim"))
        assert f"resumes {where}" in caplog.text
        assert (again, same_facts) == (undisturbed, facts)
        resume.forget(tmp_path / "states")
        assert not (tmp_path / "states").exists()


@pytest.mark.parametrize("case", [CASES[1], CASES[4], CASES[6]])
@pytest.mark.parametrize("evaluation", [2, -3])
def test_a_job_told_to_stop_in_an_evaluation_stops_there(digits, tmp_path, case, evaluation, monkeypatch):
    """In the second batch of the first dev accuracy; in one of the last of the test accuracy of the weights kept.

    The next attempt is told so in its second batch, and the third goes on from what that one saved.
    """
    monkeypatch.setattr(training, "EVALUATION_BATCH", 19)
    passes, states, tell = [], states_in(tmp_path), None

    def batch(data, index):
        if len(index) == 19:  # no batch of training has that size
            passes.append(len(passes) + 1)
            if passes[-1] == tell:
                states.told = "SIGTERM"
        return reads(data, index)

    reads = type(digits).batch
    monkeypatch.setattr(type(digits), "batch", batch)
    undisturbed = trained(tmp_path, digits, case)
    for tell in (evaluation if evaluation > 0 else passes[evaluation], 2):
        passes.clear()
        states = states_in(tmp_path)
        with pytest.raises(Stopped):
            trained(tmp_path, digits, case, states.slot("victim"))
        assert len(passes) == tell
    passes.clear()
    tell = None
    assert trained(tmp_path, digits, case, states_in(tmp_path).slot("victim")) == undisturbed
    if evaluation < 0:  # a GPU's dev accuracy of the weights kept might be another now, and the training go on
        assert len(passes) == sum(len(part) // 19 for part in (SPLIT.train, SPLIT.dev, SPLIT.test))


def test_stopped_again_and_again(digits, tmp_path):
    case = ("fc", "l1", "adv")
    for stop_at in (1, 1, STEPS - 2, STEPS):
        stopped(tmp_path, digits, case, stop_at)
    again, _ = trained(tmp_path, digits, case, states_in(tmp_path).slot("victim"))
    assert again == trained(tmp_path, digits, case)[0]


def test_saving_at_every_step_changes_nothing(digits, tmp_path, monkeypatch):
    written = []

    def save(path, tensors, about):
        written.append(about["finished"])
        files.save_tensors(path, tensors, about)

    monkeypatch.setattr(resume, "save_tensors", save)
    saved, facts = trained(tmp_path, digits, CASES[0], states_in(tmp_path, every=0).slot("victim"))
    assert written == [False] * (STEPS * facts["epochs_run"]) + [True]
    assert saved == trained(tmp_path, digits, CASES[0])[0]


def test_a_signal_lets_the_step_end_and_its_state_be_saved(digits, tmp_path):
    steps = []

    class Interrupted(CrossEntropy):
        def backward(self, model, x, y):
            steps.append(len(x))
            if len(steps) == STEPS + 2:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)  # SLURM may send it twice
            super().backward(model, x, y)

    before = signal.getsignal(signal.SIGTERM)
    model = models.build("fc", digits.input_shape, digits.classes, seed=0)
    with pytest.raises(Stopped, match="SIGTERM"), states_in(tmp_path).stoppable() as states:
        in_turn([train(model, digits, SPLIT, RECIPE, Interrupted(), 1, states.slot("victim"))], CPU)
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(steps) == STEPS + 2
    saved = files.load_metadata(tmp_path / "states/victim.state.safetensors")["numbers"]
    assert (saved["epoch"], saved["step"]) == (2, 2)
    assert (
        trained(tmp_path, digits, ("fc", None, None), states_in(tmp_path).slot("victim"))[0]
        == (trained(tmp_path, digits, ("fc", None, None))[0])
    )


def test_an_optimisers_state_goes_on_laid_out_like_its_parameters():
    """As fused kernels demand of models in channels-last; files hold tensors by rows."""

    def steps(conv, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            conv(x).square().sum().backward()
            optimizer.step()

    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    whole, again = (torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last) for _ in range(2))
    first, second = (torch.optim.Adam(conv.parameters(), 1e-2, fused=True) for conv in (whole, again))
    assert resume.optimizer_state(first) == {}
    steps(whole, first, 3)
    again.load_state_dict(whole.state_dict())
    kept = {name: tensor.contiguous() for name, tensor in resume.optimizer_state(first).items()}
    resume.load_optimizer(second, kept)
    assert not kept["0/exp_avg"].is_contiguous(memory_format=torch.channels_last)
    assert second.state[again.weight]["exp_avg"].stride() == again.weight.stride()
    for conv, optimizer in ((whole, first), (again, second)):
        steps(conv, optimizer, 3)
    assert torch.equal(whole.weight, again.weight) and torch.equal(whole.bias, again.bias)


def test_a_short_training_writes_nothing(digits, tmp_path):
    states = states_in(tmp_path, every=240)
    trained(tmp_path, digits, CASES[0], states.slot("victim"))
    states.keep([str(tmp_path / "checkpoint")])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_states_are_saved_when_the_last_are_old_enough(digits, tmp_path, monkeypatch):
    """A clock that a step moves by a minute: every 4 steps, whatever the epochs, and not at a model's end."""
    clock, written = [0.0], []
    monkeypatch.setattr(resume.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(resume, "save_tensors", lambda path, tensors, about: written.append(clock[0]))
    states, recipe = states_in(tmp_path, every=240), RECIPE | {"epochs": 3, "patience": 3}

    class Minutes(CrossEntropy):
        def backward(self, model, x, y):
            clock[0] += 60
            super().backward(model, x, y)

    model = models.build("fc", digits.input_shape, digits.classes, seed=0)
    in_turn([train(model, digits, SPLIT, recipe, Minutes(), 1, states.slot("victim"))], CPU)
    assert written == [60.0 * step for step in range(4, 3 * STEPS + 1, 4)]


def test_finished_models_are_not_trained_again(digits, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cases = {"victim": ("fc", "l1", "dp"), "shadow_0": ("cnn", "slim", None), "shadow_1": ("fc", None, None)}
    undisturbed = {name: trained(tmp_path, digits, case) for name, case in cases.items()}
    states = states_in(tmp_path)
    assert trained(tmp_path, digits, cases["victim"], states.slot("victim")) == undisturbed["victim"]
    with pytest.raises(Stopped):
        trained(tmp_path, digits, cases["shadow_0"], StopsAt(states.slot("shadow_0"), STEPS + 1))
    names = {"victim.state.safetensors", "shadow_0.state.safetensors"}
    assert {path.name for path in (tmp_path / "states").iterdir()} == names

    states = states_in(tmp_path)
    caplog.clear()
    assert trained(tmp_path, digits, cases["victim"], states.slot("victim")) == undisturbed["victim"]
    assert caplog.messages == ["trained in an earlier attempt"]
    for name in ("shadow_0", "shadow_1"):
        assert trained(tmp_path, digits, cases[name], states.slot(name)) == undisturbed[name]


# --- several trainings in turn


def beside(folder, data, states, roles, stop_at=None):
    """Train models without dropout in turn, and tell the job to stop at the last one's step ``stop_at``."""
    models_of, trainings = {}, []
    for seed, (role, recipe) in enumerate(roles.items()):
        models_of[role] = models.build("cnn", data.input_shape, data.classes, seed)
        slot = states.slot(role)
        if stop_at and role == list(roles)[-1]:
            slot = StopsAt(slot, stop_at)
        split = splits.shadow_split(1797, 7, seed)
        trainings.append(train(models_of[role], data, split, recipe, CrossEntropy(), seed, slot, role))
    facts = in_turn(trainings, CPU)
    return [model.state_dict() for model in models_of.values()], facts


ROLES = {"victim": RECIPE | {"epochs": 2}, "shadow_0": RECIPE, "shadow_1": RECIPE | {"epochs": 4, "batch_size": 32}}


def test_trainings_in_turn_are_those_that_run_alone(digits, tmp_path, caplog):
    """Of other lengths and other numbers of steps; where there is no dropout, whose draws they share, to the byte."""
    caplog.set_level(logging.INFO)
    weights, facts = beside(tmp_path, digits, states_in(tmp_path), ROLES)
    for seed, (role, recipe) in enumerate(ROLES.items()):
        split = splits.shadow_split(1797, 7, seed)
        alone, same = trained(tmp_path, digits, ("cnn", None, None), None, recipe, split, seed, seed)
        files.save_tensors(tmp_path / "beside", weights[seed], facts[seed])
        assert (tmp_path / "beside").read_bytes() == alone and facts[seed] == same
        assert any(line.startswith(f"{role}: epoch 1/{recipe['epochs']}: dev accuracy") for line in caplog.messages)


@pytest.mark.parametrize("stop_at", [1, STEPS, 2 * STEPS + 2, 4 * STEPS])
def test_trainings_in_turn_stop_and_go_on_together(digits, tmp_path, caplog, stop_at):
    """None loses a step, whether it has ended, is in another epoch, or takes its first steps."""
    caplog.set_level(logging.INFO)
    undisturbed = beside(tmp_path, digits, states_in(tmp_path), ROLES)
    with pytest.raises(Stopped, match="state saved"):
        beside(tmp_path, digits, states_in(tmp_path), ROLES, stop_at)
    assert {path.name for path in (tmp_path / "states").iterdir()} == {f"{role}.state.safetensors" for role in ROLES}
    kept = [files.load_metadata(tmp_path / "states" / f"{role}.state.safetensors") for role in ROLES]
    assert [about["finished"] for about in kept[:2]] == [stop_at > 2 * STEPS, False]
    caplog.clear()
    weights, facts = beside(tmp_path, digits, states_in(tmp_path), ROLES)
    assert facts == undisturbed[1]
    for model, other in zip(weights, undisturbed[0], strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in model.items())
    assert sum(" resumes in epoch " in line or "earlier attempt" in line for line in caplog.messages) == 3


def test_the_states_of_all_in_turn_are_saved_when_due(digits, tmp_path, monkeypatch):
    """A step a minute, every 6 minutes: all of them, not each when its turn comes."""
    clock, written = [0.0], []
    monkeypatch.setattr(resume.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(
        resume, "save_tensors", lambda path, tensors, about: written.append((clock[0], path.name.split(".")[0]))
    )

    class Minutes(CrossEntropy):
        def backward(self, model, x, y):
            clock[0] += 60
            super().backward(model, x, y)

    monkeypatch.setattr(sys.modules[__name__], "CrossEntropy", Minutes)
    beside(tmp_path, digits, states_in(tmp_path, every=360), dict.fromkeys(ROLES, RECIPE | {"epochs": 2}))
    assert written[:6] == [(360.0 * i, role) for i in (1, 2) for role in ROLES]


# --- states that do not fit


@pytest.fixture
def job(tmp_path):
    """A job's identity, from the configuration and the files that it has."""
    inputs = [tmp_path / "inputs" / name for name in ("victim", "digits")]
    inputs[0].parent.mkdir()
    for path in inputs:
        path.write_text(path.name)
    params = {"recipe": RECIPE, "defense": OPTIONS["dp"], "seed": 7, "device": "auto"}
    setting = "digits/fc/l1_0.5/dp_1"

    script = tmp_path / "inputs/script"
    script.write_text("trains")

    def of(every=math.inf, setting=setting, device="cpu", **other):
        config = {"results_dir": str(tmp_path), "save_state_every": every}
        states = states_of(config, setting, (params | other).items(), inputs, torch.device(device), str(script))
        return States(tmp_path / "states", every, states.fits)

    of.inputs, of.script = inputs, script
    return of


def test_a_jobs_states_lie_below_its_results(job, tmp_path):
    config = {"results_dir": "here", "save_state_every": 7}
    states = states_of(config, "digits/fc/l1_0.5", [], [], torch.device("cpu"), __file__)
    assert (str(states.slot("victim").path), states.every) == (
        "here/states/digits/fc/l1_0.5/victim.state.safetensors",
        7,
    )


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": RECIPE | {"learning_rate": 2e-2}},
        {"defense": OPTIONS["dp"] | {"clip": 2.0}},
        {"seed": 8},
        {"setting": "digits/fc/l1_0.5/dp_2"},
        {"device": "cuda"},
        {"inputs": 0},
        {"inputs": 1},
        {"torch version": "2.0.0"},
        {"code": "another"},
        {"script": "another"},
    ],
)
def test_a_state_of_another_job_is_set_aside(digits, tmp_path, caplog, monkeypatch, job, other):
    case, path = ("fc", None, None), tmp_path / "states/victim.state.safetensors"
    with pytest.raises(Stopped):
        trained(tmp_path, digits, case, StopsAt(job().slot("victim"), STEPS + 3))
    state, (what, value) = path.read_bytes(), *other.items()
    if what == "inputs":
        job.inputs[value].write_text("replaced")
    elif what == "torch version":
        monkeypatch.setattr(torch, "__version__", value)
    elif what == "code":
        monkeypatch.setattr("job.TRAINING_CODE", ("grid.py",))
    elif what == "script":
        job.script.write_text(value)
    other = {} if what in ("inputs", "torch version", "code", "script") else other
    again, _ = trained(tmp_path, digits, case, job(**other).slot("victim"))
    assert again == trained(tmp_path, digits, case)[0], "trained from the start"
    differs = "code" if what == "script" else what
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"{path} is not used and set aside as victim.state.safetensors.unfit: it was saved with other {differs}"
    ]
    assert path.with_name("victim.state.safetensors.unfit").read_bytes() == state


def test_a_state_of_the_same_job_is_used(digits, tmp_path, caplog, job):
    """Whatever the interval, and where another file of the same content stands in the input's place."""
    with pytest.raises(Stopped):
        trained(tmp_path, digits, ("fc", None, None), StopsAt(job().slot("victim"), STEPS + 3))
    job.inputs[0] = job.inputs[0].rename(tmp_path / "elsewhere")
    assert job(every=5).slot("victim").load() is not None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, -1])
def test_a_truncated_state_is_set_aside(digits, tmp_path, caplog, keep):
    case, path = ("cnn", None, None), tmp_path / "states/victim.state.safetensors"
    stopped(tmp_path, digits, case, STEPS + 3)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if keep == 0.5 else keep])
    again, _ = trained(tmp_path, digits, case, states_in(tmp_path).slot("victim"))
    assert "is not used and set aside" in caplog.text
    assert again == trained(tmp_path, digits, case)[0]


def test_no_damage_of_a_byte_is_taken_for_a_state(digits, tmp_path, caplog):
    """Anywhere in the file: the header, the numbers, the tensors."""
    stopped(tmp_path, digits, ("fc", None, None), STEPS + 3)
    path = tmp_path / "states/victim.state.safetensors"
    content = path.read_bytes()
    slot = states_in(tmp_path).slot("victim")
    assert slot.load() is not None
    numbers = content.index(b"numbers")  # of the metadata, which stands in the header
    for position in [
        *range(0, 2000, 61),
        *range(numbers, numbers + 80),
        *range(2000, len(content), len(content) // 40),
    ]:
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert slot.load() is None, f"byte {position}"


def test_a_file_that_is_no_state_is_set_aside(digits, tmp_path, caplog):
    path = tmp_path / "states/victim.state.safetensors"
    for about in ({}, {"fits": None}, {"fits": {}}, []):
        files.save_tensors(path, {"x": torch.ones(2)}, about)
        assert states_in(tmp_path).slot("victim").load() is None
        assert not path.exists()


# --- a scheduler that ends the job itself


def test_where_a_job_is_ended_by_others_a_signal_saves_and_training_goes_on(digits, tmp_path, caplog, monkeypatch):
    """Under SLURM, a job that fails in a preemption's grace time would not be requeued."""
    caplog.set_level(logging.INFO)
    case, states = ("fc", "l1", "adv"), states_in(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    states.goes_on = slurm_ends_it
    again, _ = trained(tmp_path, digits, case, StopsAt(states.slot("victim"), STEPS + 3))
    assert again == trained(tmp_path, digits, case)[0]
    assert f"SIGTERM: state saved in {tmp_path / 'states'}; going on until the job is ended" in caplog.messages
    # as after its SIGKILL
    again, _ = trained(tmp_path, digits, case, states_in(tmp_path).slot("victim"))
    assert "resumes in epoch 2, after step 3" in caplog.messages
    assert again == trained(tmp_path, digits, case)[0]


# --- outputs of a finished job


@pytest.fixture
def finished(tmp_path):
    """The outputs of a job that was long enough to have saved a state, and what it keeps."""
    outputs = [str(tmp_path / "results/digits/fc/original" / f"{role}.safetensors") for role in grid.ROLES]
    for i, output in enumerate(outputs):
        files.save_tensors(output, {"x": torch.full((1000,), i)}, {"i": i})
    folder = tmp_path / "results/states/digits/fc/original"
    states = States(folder, 240, {"seed": 7})
    states.go_on(states.slot("victim").path, lambda: resume.State({"x": torch.ones(3)}, {}))
    states.save()
    states.keep(outputs)
    return outputs, folder


def removed(outputs):
    """What Snakemake does if a job of the same group fails; their content, to compare."""
    contents = [Path(output).read_bytes() for output in outputs]
    for output in outputs:
        Path(output).unlink()
    return contents


def test_a_finished_jobs_outputs_are_kept_in_no_space_and_put_back(finished):
    outputs, folder = finished
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{r}.safetensors" for r in grid.ROLES), "outputs.json"]
    )
    assert all(Path(output).samefile(folder / Path(output).name) for output in outputs)
    for _ in range(2):
        contents = removed(outputs)
        assert States(folder, 240, {"seed": 7}).put_back(outputs)
        assert [Path(output).read_bytes() for output in outputs] == contents


def test_kept_outputs_are_forgotten_once_the_outputs_are_safe(finished, tmp_path):
    outputs, folder = finished
    Path(outputs[3]).unlink()
    resume.forget_finished(tmp_path / "results")
    assert (folder / "outputs.json").exists(), "one is missing: the job will run again"
    assert States(folder, 240, {"seed": 7}).put_back(outputs)
    resume.forget_finished(tmp_path / "results")
    assert not (tmp_path / "results/states").exists()
    assert all(Path(output).exists() for output in outputs)
    resume.forget_finished(tmp_path / "results")


def test_kept_outputs_are_forgotten_where_checkpoints_have_served_and_are_gone(finished, tmp_path):
    outputs, folder = finished
    removed(outputs)
    resume.forget_finished(tmp_path / "results")
    assert (folder / "outputs.json").exists(), "no margins: the group of jobs failed"
    Path(outputs[0]).with_name("margins.safetensors").touch()
    resume.forget_finished(tmp_path / "results")
    assert not (tmp_path / "results/states").exists()


@pytest.mark.parametrize("how", ["another job", "damaged", "cut", "missing", "list"])
def test_kept_outputs_that_do_not_fit_are_not_put_back(finished, caplog, how):
    outputs, folder = finished
    removed(outputs)
    kept, seed = folder / "shadow_2.safetensors", 7
    if how == "another job":
        seed = 8
    elif how == "damaged":
        kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    elif how == "cut":
        kept.write_bytes(kept.read_bytes()[:100])
    elif how == "missing":
        kept.unlink()
    else:
        (folder / "outputs.json").write_text("{")
    states = States(folder, 240, {"seed": seed})
    assert not states.put_back(outputs)
    assert not any(Path(output).exists() for output in outputs)
    assert "outputs.json is not used and set aside" in caplog.text
    assert (folder / "outputs.json.unfit").exists()
    # and the job that then runs, a short one, leaves nothing
    for output in outputs:
        files.save_tensors(output, {"x": torch.zeros(1)}, {})
    states.keep(outputs)
    assert not folder.exists()


def test_what_was_set_aside_goes_when_its_job_has_finished(finished):
    outputs, folder = finished
    states = States(folder, 240, {"seed": 8})
    assert not states.put_back(outputs)
    states.go_on(states.slot("victim").path, lambda: resume.State({"x": torch.ones(3)}, {}))
    states.save()
    assert (folder / "outputs.json.unfit").exists()
    states.keep(outputs)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*(Path(o).name for o in outputs), "outputs.json"])


def test_nothing_is_kept_where_there_are_no_hard_links(finished, monkeypatch):
    outputs, folder = finished

    def no_links(source, target):
        raise OSError("no hard links here")

    monkeypatch.setattr(resume.os, "link", no_links)
    states = States(folder, 240, {"seed": 7})
    states.go_on(states.slot("victim").path, lambda: resume.State({"x": torch.ones(3)}, {}))
    states.save()
    states.keep(outputs)
    assert not folder.exists()


def test_what_has_served_is_forgotten_without_torch():
    code = """import sys; from miaprune.training import resume
resume.forget_finished('nowhere'); assert 'torch' not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- a disk without space


@pytest.fixture
def small_files():
    """No file may grow beyond 1 kB: a write fails as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_training_goes_on_when_a_state_cannot_be_saved(digits, tmp_path, caplog, small_files):
    slot = states_in(tmp_path, every=0).slot("victim")
    model = models.build("fc", digits.input_shape, digits.classes, seed=0)
    small_files(1000)
    in_turn([train(model, digits, SPLIT, RECIPE, CrossEntropy(), 1, slot)], CPU)
    small_files(resource.RLIM_INFINITY)
    assert "state not saved" in caplog.text and "File too large" in caplog.text
    assert list((tmp_path / "states").iterdir()) == []
    undisturbed = models.build("fc", digits.input_shape, digits.classes, seed=0)
    in_turn([train(undisturbed, digits, SPLIT, RECIPE, CrossEntropy(), 1)], CPU)
    assert all(torch.equal(t, undisturbed.state_dict()[name]) for name, t in model.state_dict().items())


def test_a_stop_without_space_keeps_the_older_state_and_says_so(digits, tmp_path, small_files):
    case, path = ("fc", None, None), tmp_path / "states/victim.state.safetensors"
    stopped(tmp_path, digits, case, 3)
    older = path.read_bytes()
    small_files(1000)
    with pytest.raises(Stopped, match="stopped by SIGTERM, state not saved"):
        trained(tmp_path, digits, case, StopsAt(states_in(tmp_path).slot("victim"), STEPS))
    small_files(resource.RLIM_INFINITY)
    assert path.read_bytes() == older
    assert trained(tmp_path, digits, case, states_in(tmp_path).slot("victim"))[0] == trained(tmp_path, digits, case)[0]


@pytest.mark.gpu
def test_dropout_of_a_resumed_training_on_a_gpu_is_drawn_from_where_it_was(digits, tmp_path):
    data, case = digits.to("cuda"), ("fc", "l1", "dp")
    undisturbed, _ = trained(tmp_path, data, case)
    stopped(tmp_path, data, case, STEPS + 3)
    assert trained(tmp_path, data, case, states_in(tmp_path).slot("victim"))[0] == undisturbed


def test_the_log_is_a_screenful_a_model(digits, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = models.build("fc", digits.input_shape, digits.classes, seed=0)
    recipe = RECIPE | {"epochs": 90, "patience": 90}
    in_turn([train(model, digits, SPLIT, recipe, CrossEntropy(), 1, more=2)], CPU)
    assert 20 < len(caplog.messages) < 40
    assert caplog.messages[0].startswith("epoch 1/90: dev accuracy 0.")
    assert " s/epoch, " in caplog.text and " records/s, at most 0:0" in caplog.text
    assert caplog.messages[-1].startswith("epoch 90/90") and "at most 0:00:00 left" in caplog.messages[-1]


def test_time_left_is_that_of_every_epoch_that_may_come():
    line = training._speed(pace=60.0, records=300, left=10, after=2 * 50)
    assert line == "; 60 s/epoch, 5 records/s, at most 0:10:00 left, 1:50:00 with the other models"
    assert training._speed(60.0, 300, 10, 0).endswith("at most 0:10:00 left")
