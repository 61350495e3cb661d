"""A configuration is what the code uses, however it is written; what cannot run is refused in one line."""

import contextlib
import math

import configuration
import numpy as np
import pytest
import yaml
from configuration import ConfigError
from runner import ROOT
from snakemake.cli import parse_config
from snakemake.utils import update_config

from miaprune import grid
from miaprune.files import FileError, save_tensors
from miaprune.grid import GridError

PAPER = yaml.safe_load((ROOT / "config.yaml").read_text())
PPB = {"defense": "ppb", "strengths": [4], "part": "all", "adversaries": ["adaptive"]}


def read(*arguments, **config):
    """The configuration of a run with ``config`` in a file of its own and these ``--config`` arguments."""
    update_config(config, parse_config(arguments))
    configuration.read(config)
    return config


def test_what_is_left_out_is_as_in_the_repositorys_file():
    assert read() == read(**PAPER) == PAPER
    changed = read(training={"epochs": {"table": 3}}, seeds=[8])
    assert changed.pop("seeds") == [8] and changed["training"]["epochs"] == {"image": 100, "table": 3}
    # what a job records of its parameters is in one order, whoever's file names them
    assert [*changed["training"]] == [*PAPER["training"]] and changed["finetuning"] == PAPER["finetuning"]


@pytest.mark.parametrize(
    ("written", "path", "value"),
    [
        ("training: {batch_size: 1.28e+2}", ["training", "batch_size"], 128),
        ("signals: {draws: 10.0}", ["signals", "draws"], 10),
        ("training: {learning_rate: 1e-3}", ["training", "learning_rate"], 0.001),  # to YAML a text
        ("seeds: [8.0]", ["seeds"], [8]),
        ("keep_checkpoints: 'false'", ["keep_checkpoints"], False),
        (
            "attack_recipes: {paper: {milestones: ['50', 75.0]}}",
            ["attack_recipes", "paper", "milestones"],
            [50, 75],
        ),
        ("results_dir: results/../out/", ["results_dir"], "out"),
        ("data_dir: ./data", ["data_dir"], "data"),
        ("own_datasets: {half: {of: digits, records: '900'}}", ["own_datasets", "half", "records"], 900),
    ],
)
@pytest.mark.usefixtures("catalogue")
def test_a_value_is_what_the_schema_says_however_it_is_written(written, path, value):
    found = read(**yaml.safe_load(written))
    for key in path:
        found = found[key]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("argument", "path", "value"),
    [
        ("training={learning_rate: 0.002}", ["training", "learning_rate"], 0.002),
        ("training={epochs: {image: 3}}", ["training", "epochs", "image"], 3),
        ("keep_checkpoints=false", ["keep_checkpoints"], False),
        ("results_dir=..", ["results_dir"], ".."),
    ],
)
def test_values_on_the_command_line_are_those_of_a_file(argument, path, value):
    found = read(argument)
    for key in path:
        found = found[key]
    assert found == value and type(found) is type(value)


def test_numbers_within_a_defence_come_from_the_command_line_too():
    config = read(
        "datasets=[digits]", "models=[fc]", "sparsities=['0.50', 0.7]", "transfer=none", "controls=none",
        "parts={half: {sparsities: [0.5]}}",
        "defenses=[{defense: ppb, strengths: [4.0], part: half, adversaries: [adaptive]}]",
    )  # fmt: skip
    attacked = grid.attacked(grid.settings(config), config)
    assert [grid.folder(*each).removeprefix("digits/fc/") for each in attacked] == [
        "original", "l1_0.5", "l1_0.7", "l1_0.5/ppb_4",
    ]  # fmt: skip


def test_options_of_a_users_defence_are_what_yaml_makes_of_them():
    options = {"hard": "false", "share": "1e-3", "steps": "7", "kind": "soft", "deep": {"on": "true"}}
    meant = configuration._meant({"smooth": options}, {"additionalProperties": {"type": "object"}}, {})
    assert meant == {"smooth": {"hard": False, "share": 1e-3, "steps": 7, "kind": "soft", "deep": {"on": True}}}
    assert isinstance(meant["smooth"]["steps"], int)


@pytest.mark.parametrize("data_dir", ["data", "."])
def test_a_target_is_checked_where_results_lie_in_the_data_folder(data_dir):
    with pytest.raises(GridError, match="unknown attack 'samiaa'"):
        check("data/results/digits/fc/l1_0.5/samiaa.json", results_dir="data/results", data_dir=data_dir)
    check("data/digits/digits.safetensors", results_dir="data/results", data_dir=data_dir)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"datasets": ["digits", "cifar11"]}, "unknown dataset 'cifar11': did you mean 'cifar10'?"),
        ({"datasets": [["digits"]]}, "datasets.0: ['digits'] is not of type 'string', 'number'"),
        ({"results_dir": "r{x}"}, "results_dir: 'r{x}' does not match"),
        ({"models": ["resnet"]}, "unknown model 'resnet': did you mean 'resnet18'?"),
        ({"pruners": ["l1_structure"]}, "did you mean 'l1_structured'?"),
        ({"attacks": ["samia", "confidence"]}, "unknown attack 'confidence'"),
        ({"sparsities": [0.5, 1]}, "sparsity '1' must be a number above 0 and below 1"),
        ({"sparsities": [0]}, "sparsity '0' must be"),
        ({"sparsities": ["half"]}, "sparsity 'half' must be"),
        ({"sparsitys": [0.5]}, "did you mean 'sparsities'?"),
        ({"pruners": ["l1", "two_four"], "sparsities": [0.7]}, "none of the sparsities ['0.7'] is one of two_four"),
        ({"datasets": ["digits"], "models": ["resnet18"]}, "none of the models ['resnet18'] takes digits"),
        ({"attacks": ["samia", "samia"]}, "attacks: ['samia', 'samia'] has non-unique elements"),
        ({"transfer": "everything"}, "unknown part 'everything'"),
        ({"defenses": [PPB | {"defense": "pbb"}]}, "unknown defense 'pbb': did you mean 'ppb'?"),
        ({"defenses": [PPB | {"strengths": [-1]}]}, "strength '-1' of defense ppb must be a number from 0 to 1e9"),
        ({"defenses": [PPB | {"part": "most"}]}, "unknown part 'most'"),
        ({"sparsities": [0.5], "parts": {"all": {"sparsities": [0.55]}}}, "part all picks no setting"),
        ({"training": {"epoch": 5}}, "did you mean 'epochs'?"),
        ({"training": {"epochs": {"image": -1}}}, "training.epochs.image: -1 is less than the minimum of 1"),
        ({"training": {"batch_size": 128.5}}, "training.batch_size: 128.5 is not of type 'integer'"),
        ({"attack_recipe": "papr"}, "did you mean 'paper'?"),
        ({"device": "gpu"}, "device: 'gpu' is not one of"),
        ({"training": {"learning_rate": math.nan}}, "the configuration.training.learning_rate: nan is not of type"),
        ({"save_state_every": math.inf}, "the configuration.save_state_every: inf is not of type 'number'"),
        ({"results_dir": "~/results"}, "~/results: results_dir is taken literally; write the path in full"),
        ({"results_dir": __file__}, "cannot write results_dir there, it is no folder"),
        ({"seeds": ["seven"]}, "seeds.0: 'seven' is not of type 'integer'"),
        ({"seeds": []}, "seeds: [] should be non-empty"),
        ({"seeds": [7, 8, 7]}, "seeds: [7, 8, 7] has non-unique elements"),
        ({"seeds": [-1]}, "seeds.0: -1 is less than the minimum of 0"),
        ({"seeds": 8}, "seeds: 8 is not of type 'array'"),
        ({"seed": 8}, "unknown key in the configuration: 'seed': did you mean 'seeds'?"),
        ({"controls": "sweeps"}, "unknown part 'sweeps': did you mean 'sweep'?"),
        ({"references": 4}, "references: 4 is less than the minimum of 5"),
        ({"references": 257}, "references: 257 is greater than the maximum of 256"),
        ({"references": "many"}, "references: 'many' is not of type 'integer'"),
        ({"references": 7.5}, "references: 7.5 is not of type 'integer'"),
        ({"training": 5}, "training: 5 is not of type 'object'"),
        ({"extensions": ["lab.txt"]}, "extensions.0: 'lab.txt' does not match"),
        ({"extensions": "my_lab.py"}, "extensions: 'my_lab.py' is not of type 'array'"),
        ({"extensions": ["lab.py"]}, "extensions: lab.py: cannot be read (No such file or directory)"),
        ({"own_datasets": {"mine": {"off": "digits"}}}, "own_datasets.mine: 'off': did you mean 'of'?"),
        ({"own_datasets": {"mine": {"of": "digits", "records": 15}}}, "records: 15 is less than the minimum of 16"),
        ({"own_datasets": {"mine": {"file": "a.xlsx", "kind": "table"}}}, "file: 'a.xlsx' does not match"),
        ({"own_datasets": {"svhn": {"of": "digits", "records": 90}}}, "dataset 'svhn' exists already"),
        ({"defense_options": {"pbb": {}}}, "unknown defense in defense_options: 'pbb': did you mean 'ppb'?"),
    ],
)
@pytest.mark.usefixtures("catalogue")
def test_a_configuration_that_cannot_run(config, message):
    with pytest.raises((ConfigError, GridError)) as refusal:
        read(**config)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_working_folder_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    configuration.check_place()
    monkeypatch.setattr("configuration.os.access", lambda path, mode: False)
    with pytest.raises(ConfigError) as refusal:
        configuration.check_place()
    assert str(refusal.value).startswith(f"{tmp_path}: cannot write here; start in a folder of yours with --snakefile ")


@pytest.mark.parametrize("folder", ["a b", "it's", 'say "hi"', "mia(1)", "$mia", "a\nb"])
def test_a_python_that_snakemake_starts_no_job_with(monkeypatch, folder):
    monkeypatch.setattr("sys.executable", "/größe-1.2~/u\u0308/@me/bin/python")
    configuration.check_place()
    monkeypatch.setattr("sys.executable", f"/home/{folder}/.venv/bin/python")
    with pytest.raises(ConfigError, match="Snakemake starts no job with a Python whose path has spaces or quotes"):
        configuration.check_place()


REPORTS = ["results/tables/digits.csv", "results/figures/samia_vs_others.png", "results/demo/tables/digits.csv"]


def check(target, results_dir="results", data_dir="data", reports=REPORTS):
    configuration.check_targets([target], results_dir, data_dir, ["samia", "conf"], 7, reports)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/digit/fc/l1_0.5/samia.json", "unknown dataset 'digit': did you mean 'digits'?"),
        ("results/digits/fcc/l1_0.5/samia.json", "unknown model 'fcc': did you mean 'fc'?"),
        ("results/digits/fc/l11_0.5/samia.json", "unknown pruner 'l11': did you mean 'l1'?"),
        ("results/digits/fc/l1_0.5/samja.json", "unknown attack 'samja': did you mean 'samia'?"),
        ("results/location/resnet18/l1_0.5/samia.json", "model resnet18 does not take location; use fc"),
        ("results/digits/fc/slim_0.5/samia.json", "pruner slim does not apply to model fc"),
        ("results/digits/fc/two_four_0.7/samia.json", "pruner two_four has one sparsity; write two_four_0.5"),
        ("results/location/resnet18/random_0.7/samia.json", "model resnet18 does not take location; use fc"),
        (
            "results/seed_7/digits/fc/l1_0.5/conf.json",
            "7 is the first of config.yaml's seeds, whose results lie in results/digits/fc/l1_0.5/conf.json",
        ),
        ("results/seed_08/digits/fc/l1_0.5/conf.json", "seed_08 is no seed's folder; write seed_8, a whole number"),
        ("results/seed_2000000000/digits/fc/l1_0.5/conf.json", "is no seed's folder"),
        ("results/seed_8/digits/fc/l1_0.5/confd.json", "unknown attack 'confd': did you mean 'conf'?"),
        ("results/digits/fc/finetuned_0.5/conf.json", "finetuned is not pruned and has no sparsity; write finetuned"),
        ("results/digits/fc/finetuned/untuned/conf.json", "untuned is what was pruned and not fine-tuned"),
        ("results/digits/fc/original/untuned/conf.json", "untuned is what was pruned and not fine-tuned"),
        ("results/digits/fc/finetuned/ppb_4/conf.json", "defences act in fine-tuning of pruned models"),
        ("results/digits/fc/l1_0.5/untuned/ppb_4/conf.json", "is no setting"),
        (
            "results/digits/fc/l1_0.5/untuned/shadows_l1_0.7/conf.json",
            "a mismatched adversary's victim is undefended",
        ),
        ("results/digits/fc/finetuned/shadows_l1_0.7/conf.json", "a mismatched adversary's victim is undefended"),
        ("results/digits/fc/l1_0.5/shadows_finetuned/conf.json", "a mismatched adversary's victim is undefended"),
        ("results/digits/fc/l1_0/samia.json", "sparsity '0' must be a number above 0 and below 1"),
        ("results/digits/fc/l1_1/samia.json", "sparsity '1' must be"),
        ("results/digits/fc/l1_high/samia.json", "sparsity 'high' must be"),
        ("results/digits/fc/l1_0.50/samia.json", "'0.50' has one name in paths; write 0.5"),
        ("results/digits/fc/l1_0.5/victm.safetensors", "did you mean 'victim'?"),
        ("results/digits/fc/l1_0.5/pbb_4/samia.json", "unknown defense 'pbb': did you mean 'ppb'?"),
        ("results/digits/fc/l1_0.5/dp_0/samia.json", "strength '0' of defense dp must be a number from 1e-06 to 1e9"),
        ("results/digits/fc/l1_0.5/ppb_-1/samia.json", "strength '-1' of defense ppb must be a number from 0 to 1e9"),
        ("results/digits/fc/l1_0.5/unaware/samia.json", "only a defended victim has an unaware adversary"),
        ("results/digits/fc/l1_0.5/shadows_l1_0.5/samia.json", "victim is undefended and pruned otherwise than it"),
        ("results/digits/fc/l1_0.5", "name a file of a setting: results/digits/fc/l1_0.5/samia.json"),
        ("results/digits/fc/l1_0.5//", "name a file of a setting: results/digits/fc/l1_0.5/samia.json"),
        (
            "results/digits/fc/l1_0.5/scores/",
            "name a file of a setting: results/digits/fc/l1_0.5/scores/samia.safetensors",
        ),
        ("results/digits/fc/l1_0.5/attackers/samia.json", "write results/digits/fc/l1_0.5/attackers/samia.safetensors"),
        ("results/digits/fc/l1_0.5/scores/cheap.json", "write results/digits/fc/l1_0.5/scores/cheap.safetensors"),
        (
            "results/digits/fc/l1_0.5/scores/conf.safetensors",
            "unknown file 'conf': valid are samia, nn, cheap, reference",
        ),
        ("results/digits/fc/l1_0.7/shadows_l1_0.9/scores/cheap.safetensors", "this adversary has results only"),
        ("results/digits/fc/l1_0.5/attackers/samja.safetensors", "unknown file 'samja': did you mean 'samia'?"),
        ("results/digits/fc/l1_0.7/shadows_l1_0.9/nn.json", "nn is not among config.yaml's attacks; extend them"),
        ("results/digits/fc/l1_0.7/shadows_l1_0.9/victim.safetensors", "this adversary has results only"),
        ("results/figures/samia_vs_other.png", "config.yaml's grid has nothing for it; it has"),
        ("results/demo/tables/location.csv", "config.yaml's grid has nothing for it; it has"),
        (
            "results/digits/fc/l1_0.5/references/6-13/margins.safetensors",
            "no job makes these references; write 5-12, 13-20, ... 253-260",
        ),
        (
            "results/digits/fc/l1_0.5/references/5-12/victim.safetensors",
            "unknown file 'victim.safetensors': did you mean",
        ),
        (
            "results/digits/fc/l1_0.5/references/5-12/lira.json",
            "unknown file 'lira.json': valid are models.safetensors",
        ),
        ("results/digits/fc/references/5-12/margins.safetensors", "'digits/fc' is no setting"),
        ("results/digits/fc/l1_0.5/ppb_4/unaware/references/5-12/models.safetensors", "is no setting: write"),
        (f"{ROOT}/results/digits/fc/l1_0.5/samia.json", "written: results/digits/fc/l1_0.5/samia.json"),
        (f"{ROOT}/x/../results/tables/digits.csv", "written: results/tables/digits.csv"),
    ],
)
def test_a_target_that_does_not_exist(target, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(GridError) as refusal:
        check(target)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_figures_that_there_are_stand_in_their_own_order():
    reports = [f"results/figures/{name}.png" for name in "fcbeda"]
    with pytest.raises(GridError) as refusal:
        check("results/figures/x.png", reports=reports)
    assert str(refusal.value).endswith(f"it has {', '.join(f'figures/{name}.png' for name in 'fcbeda')}")


ORIGIN = {"setting": "digits/fc/l1_0.5", "seed": 7}
UNAWARE = ORIGIN | {"setting": "digits/fc/l1_0.5/ppb_4", "adversary": "unaware"}


@pytest.mark.parametrize(
    ("name", "about", "message"),
    [
        ("signals", {"victim": ORIGIN | {"role": "victim"}}, None),
        ("signals", ORIGIN | {"role": "victim"}, "not the file of this name that miaprune writes"),  # a checkpoint
        ("signals", [ORIGIN], "damaged or not written by miaprune"),
        ("references/5-12/margins", {"reference_5": ORIGIN | {"seed": 8}}, "of seed 8, not 7"),
        ("references/5-12/margins", {"reference_5": ORIGIN}, "lacks margins of reference_6; delete it"),
        ("attackers/samia", ORIGIN | {"attack": "nn"}, "of attack nn, not samia"),
        ("scores/samia", ORIGIN, None),
        ("scores/cheap", ORIGIN | {"seed": 8}, "of seed 8, not 7"),
        ("scores", ORIGIN | {"seed": 8}, "of seed 8, not 7"),
        ("ppb_4/unaware/scores", UNAWARE, None),
        ("ppb_4/unaware/scores/nn", UNAWARE | {"adversary": "matched"}, "of adversary matched, not unaware"),
        ("scores/nn", ORIGIN | {"setting": "digits/fc/l1_0.7"}, r"of setting digits/fc/l1_0\.7, not digits/fc/l1_0\.5"),
    ],
)
def test_a_file_of_another_origin_is_refused_before_any_job_starts(name, about, message, tmp_path):
    path = tmp_path / f"digits/fc/l1_0.5/{name}.safetensors"
    save_tensors(path, {"x": np.ones(3)}, about)
    refused = pytest.raises(FileError, match=rf"{path.name}: {message}") if message else contextlib.nullcontext()
    with refused:
        configuration.check_files(str(tmp_path), "data", [], [str(path)], 7)


@pytest.mark.parametrize(
    ("target", "folders"),
    [
        ("all", {}),
        ("all", {"results_dir": ".."}),
        ("all", {"results_dir": "../../.."}),
        ("./digits/fc/l1_0.5/conf.json", {"results_dir": "."}),
        ("../results/digits/fc/l1_0.5/conf.json", {"results_dir": "../results"}),
        ("data/digits/digits.safetensors", {"results_dir": "."}),
        ("results/digits/fc/l1_0.55/conf.json", {}),
        ("results/digits/fc/l1_0.5/ppb_4/unaware/conf.json", {}),
        ("results/digits/fc/l1_0.5/shadows_l1_0.55/conf.json", {}),
        ("results/digits/fc/l1_0.5/attackers/nn.safetensors", {}),
        ("results/digits/fc/original/references/5-12/models.safetensors", {}),
        ("results/digits/fc/l1_0.5/ppb_4/references/253-260/margins.safetensors", {}),
        ("results/digits/fc/l1_0.5/scores/cheap.safetensors", {}),
        ("results/tables/digits.csv", {}),
        ("x/../results/tables/digits.csv", {}),
        ("../other/figures/mine.png", {}),
    ],
)
def test_what_is_no_bad_target_of_ours_is_left_to_snakemake(target, folders):
    check(target, **folders)


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "defense smooth needs 'share'; give it in defense_options.smooth"),
        ({"shaer": 1, "share": 1}, "unknown option in defense_options.smooth: 'shaer': did you mean 'share'?"),
        ({"share": 1}, None),
    ],
)
def test_the_options_of_a_users_defence_are_its_parameters(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "from miaprune import defense\n@defense('smooth')\ndef smooth(strength, batch_size, share, more=0): ..."
    (tmp_path / "my_lab.py").write_text(code)
    config = {"extensions": ["./my_lab.py"], "defenses": [PPB | {"defense": "smooth"}]}
    config["defense_options"] = {"smooth": options}
    with pytest.raises((ConfigError, GridError)) if message else contextlib.nullcontext() as refusal:
        assert read(**config)["extensions"] == ["my_lab.py"]
    assert refusal is None or str(refusal.value).startswith(message)
