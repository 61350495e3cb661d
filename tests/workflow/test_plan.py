"""What Snakemake plans: the paper's grid exactly, of a change only its consequences, and in which submissions."""

import copy
import re
from collections import Counter

import pytest
import yaml
from runner import ROOT, Workflow

from miaprune import grid

ORIGINAL, CELL = "results/digits/fc/original", "results/digits/fc/l1_0.5"
CROSSED = ("attacks", "defenses", "transfer")


@pytest.fixture
def change(finished):
    """The finished run with a copy of its configuration, to be changed and planned."""
    return Workflow(finished.folder, copy.deepcopy(finished.config))


@pytest.fixture(scope="module")
def crossed(finished, tmp_path_factory):
    """A finished run of two sparsities, each attacked with the other's shadows, one of them defended.

    By two families of attacks that are quick to fit.
    """
    done = finished.copy(tmp_path_factory.mktemp("crossed"))
    done.config |= {"sparsities": [0.5, 0.8], "transfer": "all", "attacks": ["rmia", "conf"]}
    done.config["parts"]["one"] = {"sparsities": [0.5]}
    ppb = {"defense": "ppb", "strengths": [4], "part": "one", "adversaries": ["adaptive", "unaware"]}
    done.config["defenses"] = [ppb]
    process = done.run(*CROSSED)
    assert process.returncode == 0, process.stdout + process.stderr
    assert done.plan(*CROSSED) == []
    return done


@pytest.fixture
def damage(crossed, tmp_path):
    """A copy of that run, to lose files."""
    return crossed.copy(tmp_path)


def submissions(workflow, *arguments):
    """What a cluster would be asked to run, sorted: the groups, and the rules whose jobs are in none."""
    done = workflow.run("--profile", str(ROOT / "profiles/slurm"), "--dry-run", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = re.findall(r"^(?:\[.*\] Group job (\S+) .*|rule (\w+):)$", done.stdout + done.stderr, flags=re.M)
    here = [(ROOT / name).read_text() for name in ("Snakefile", "rules/report.smk")]  # targets, and localrule: True
    local = [*re.findall(r"^rule (\w+):", "\n".join(here), flags=re.M)]
    local += [f"{name}{scope}" for name in ("figures", "scored_records", "page") for scope in ("", "_demo")]
    return sorted(group or rule for group, rule in jobs if rule not in local)


def results(plan):
    """Planned files of settings: no tables, claims, figures."""
    return [file for file in plan if "/tables/" not in file and "/figures/" not in file and file.count("/") > 2]


def checkpoints(folder):
    return [f"{folder}/{role}.safetensors" for role in ("victim", *(f"shadow_{i}" for i in range(5)))]


def family(folder, name):
    """What the job of a family of attacks makes."""
    attacks = grid.families()[name]
    files = [f"{folder}/{a}.json" for a in attacks] + [f"{folder}/attackers/{a}.safetensors" for a in attacks]
    return [*files, f"{folder}/scores/{name}.safetensors"]


def measured(folder):
    """What attacks see."""
    return [f"{folder}/signals.safetensors", f"{folder}/margins.safetensors"]


def scored(folder, attacks=("samia", "conf")):
    """What an adversary makes who only scores, by default with samia and conf asked for."""
    return [*(f"{folder}/{attack}.json" for attack in attacks), f"{folder}/scores.safetensors"]


def setting(folder):
    """Everything that a setting attacked by samia and conf consists of."""
    attacked = [*family(folder, "samia"), *family(folder, "cheap"), f"{folder}/scores.safetensors"]
    return sorted([*checkpoints(folder), *measured(folder), *attacked])


def anew(name):
    """A family of attacks of both settings, and the scores that they are part of."""
    return sorted(
        file for folder in (CELL, ORIGINAL) for file in (*family(folder, name), f"{folder}/scores.safetensors")
    )


def test_the_papers_grid_is_15_originals_and_255_settings_with_every_attack(tmp_path):
    paper = Workflow(tmp_path, yaml.safe_load((ROOT / "config.yaml").read_text()))
    files = results(paper.plan("attacks"))
    assert len([f for f in files if f.endswith("original/victim.safetensors")]) == 15
    assert len([f for f in files if re.search(r"/l\d|/slim", f) and f.endswith("victim.safetensors")]) == 255
    attacks = Counter(f.rsplit("/", 1)[1] for f in files if f.endswith(".json"))
    assert attacks == {f"{attack}.json": 270 for attack in paper.config["attacks"]}


def test_what_jobs_ask_for_goes_by_data_set_model_and_defence(tmp_path):
    config = yaml.safe_load((ROOT / "config.yaml").read_text()) | {"transfer": "none"}
    workflow = Workflow(tmp_path, config)
    cells = (
        "cifar10/resnet18/l1_0.7",
        "cifar10/resnet18/l1_0.7/adv_1",
        "svhn/densenet121/slim_0.5",
        "location/fc/l1_0.5",
    )
    done = workflow.run("--dry-run", *(f"results/{cell}/samia.json" for cell in cells))
    assert done.returncode == 0, done.stderr
    # Jobs of a group are indented.
    jobs = re.findall(r"^ *rule (\w+):\n(.*?resources: .*?)$", done.stdout + done.stderr, flags=re.M | re.S)
    asked = {}
    for rule, text in jobs:
        for cell in re.findall(r"output: results/(.*?)/[^/,]*\.(?:safetensors|json)", text):
            asked[rule, cell] = int(re.search(r"runtime=(\d+)", text)[1])
    finetuning, _, deep, small = (asked["prune", cell] for cell in cells)
    assert asked["prune", cells[1]] == 8 * finetuning and deep == 8 * finetuning and small < finetuning
    samia = [asked["attack_samia", cell] for cell in cells]
    assert samia[0] == samia[1] and samia[2] == 2 * samia[0], "an attack sees no model"
    assert asked["train", "svhn/densenet121/original"] == 8 * asked["train", "cifar10/resnet18/original"]
    done = workflow.run("--dry-run", f"results/{cells[0]}/samia.json", "--config", "attack_recipe=paper")
    paper = re.search(r"rule attack_samia:\n.*?runtime=(\d+)", done.stdout + done.stderr, flags=re.S)
    assert int(paper[1]) == 10 * samia[0], "as many more epochs"


def test_a_finished_run_plans_nothing(finished):
    assert finished.plan("all") == []


def test_one_cell_plans_just_what_it_needs(workflow):
    plan = results(workflow.plan(f"{CELL}/samia.json"))
    assert plan == sorted([*checkpoints(ORIGINAL), *checkpoints(CELL), *measured(CELL), *family(CELL, "samia")])


def test_a_new_sparsity_plans_its_own_setting(change):
    change.config["sparsities"].append(0.8)
    assert results(change.plan("all")) == setting("results/digits/fc/l1_0.8")


def test_a_new_model_plans_its_own_settings(change):
    change.config["models"].append("cnn")
    assert results(change.plan("all")) == sorted(
        setting("results/digits/cnn/l1_0.5") + setting("results/digits/cnn/original")
    )


def test_a_new_family_of_attacks_is_planned_on_every_setting_and_nothing_else_is(change):
    change.config["attacks"] = ["conf", "nn_top3"]
    assert results(change.plan("all")) == anew("nn")


@pytest.mark.parametrize("attack", ["mentr", "blindmi"])
def test_another_attack_of_a_family_is_there_already(change, attack):
    change.config["attacks"].append(attack)
    plan = change.plan("all")
    assert results(plan) == [] and "results/tables/attacks.csv" in plan


def test_a_changed_attack_epoch_count_plans_that_attack_again(change):
    change.config["attack_recipes"][change.config["attack_recipe"]]["epochs"]["samia"] = 3
    assert results(change.plan("all")) == anew("samia")


def test_a_changed_pruning_epoch_count_plans_pruned_settings_only(change):
    change.config["finetuning"]["epochs"]["image"] = 3
    assert results(change.plan("all")) == setting(CELL)


def test_a_defense_plans_its_own_models_and_the_unaware_adversary_none(change):
    entry = {"defense": "ppb", "strengths": [4], "part": "all", "adversaries": ["adaptive", "unaware"]}
    change.config["defenses"] = [entry]
    unaware = scored(f"{CELL}/ppb_4/unaware")
    assert results(change.plan("defenses")) == sorted(setting(f"{CELL}/ppb_4") + unaware)


def test_a_new_attack_is_scored_by_those_who_only_score(crossed):
    """With all attacks in one job, as it takes less than starting two."""
    change = Workflow(crossed.folder, copy.deepcopy(crossed.config))
    change.config["attacks"].append("mentr")
    adversaries = (f"{CELL}/ppb_4/unaware", f"{CELL}/shadows_l1_0.8", "results/digits/fc/l1_0.8/shadows_l1_0.5")
    rescored = [file for folder in adversaries for file in scored(folder, ("rmia", "conf", "mentr"))]
    assert results(change.plan(*CROSSED)) == sorted(rescored)


def test_mismatched_adversaries_train_nothing_that_other_targets_need(change):
    change.config["sparsities"].append(0.8)
    change.config["transfer"] = "all"
    other = "results/digits/fc/l1_0.8"
    crossed = scored(f"{CELL}/shadows_l1_0.8") + scored(f"{other}/shadows_l1_0.5")
    trained = [file for file in setting(other) if not file.endswith("l1_0.8/scores.safetensors")]  # nobody reads them
    assert results(change.plan("transfer")) == sorted(trained + crossed)


def test_the_other_kinds_epoch_count_plans_nothing(change):
    change.config["finetuning"]["epochs"]["table"] = 3
    assert change.plan("all") == []


def test_another_seed_plans_everything_but_the_data(change):
    change.config["seeds"] = [8]
    plan = change.plan("all")
    assert {*checkpoints("results/digits/fc/original"), *checkpoints(CELL)} <= set(plan)
    assert "data/digits/digits.safetensors" not in plan


def test_a_further_seed_plans_only_that_seed_and_what_is_made_of_all(change):
    change.config["seeds"] = [7, 8]
    cells = setting("results/seed_8/digits/fc/l1_0.5") + setting("results/seed_8/digits/fc/original")
    assert set(cells) == {file for file in change.plan("all") if file.startswith("results/seed_8/")}
    assert [file for file in change.plan("attacks") if not file.startswith("results/seed_8/")] == []


def test_controls_plan_what_they_are_of_and_attacks_do_not_need_them(change):
    change.config |= {"controls": "all", "sparsities": [0.5]}
    assert change.plan("attacks") == []
    of = ("finetuned", "l1_0.5/untuned", "random_0.5")
    planned = [file for version in of for file in setting(f"results/digits/fc/{version}")]
    assert change.plan("controls") == sorted(planned)


def test_the_demo_is_a_submission_per_setting_and_few_more(workflow):
    demo = workflow.config["demo"]
    attacked = grid.attacked(grid.settings(*demo["grid"]), demo)
    settings = {victim for victim, _ in attacked}
    pairs = {f"{victim.dataset}/{victim.model}/mismatched" for victim, adversary in attacked if "shadows" in adversary}
    assert len(settings) == 10 and pairs == {"noisy_digits/fc/mismatched"}
    groups = {setting.path for setting in settings} | pairs
    assert submissions(workflow, "demo") == sorted([*groups, "prepare", "train"])


@pytest.mark.parametrize(
    ("lost", "submitted"),
    [
        (["rmia", "conf"], ["l1_0.8", "mismatched"]),  # fitted anew, they are scored anew
        (["ppb_4/rmia", "ppb_4/conf"], ["l1_0.5/ppb_4"]),
        (["ppb_4/rmia", "ppb_4/conf", "ppb_4/unaware/conf"], ["l1_0.5/ppb_4"]),
        (["ppb_4/unaware/rmia", "shadows_l1_0.8/conf"], ["l1_0.5/ppb_4", "mismatched"]),
    ],
)
def test_what_is_left_of_a_setting_is_one_submission(damage, lost, submitted):
    folder = damage.folder / (CELL if "/" in lost[0] else "results/digits/fc/l1_0.8")
    for name in lost:
        (folder / f"{name}.json").unlink()
    assert submissions(damage, *CROSSED) == [f"digits/fc/{group}" for group in submitted]
