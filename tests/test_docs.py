"""The README and the pages in docs/ name what is there; the two generated ones are whole."""

import json
import re
import shutil
import subprocess
import sys

import configuration
import pytest
import yaml
from needs import DATASET_COST, DEFENSE_COST, MODEL_COST, megabytes, minutes
from runner import ROOT

import miaprune
from miaprune import grid

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
SCHEMA = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
GENERATED = {"docs/configuration.md"}


@pytest.fixture
def page():
    """The generated page of the configuration."""
    pytest.importorskip("mkdocs")
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import hooks

        return hooks.configuration_page()
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_the_readme_is_two_screens():
    assert len(PAGES["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files(name):
    for link in re.findall(r"\[[^\]\"]*\]\(([^)#\s]+)[^)]*\)", PAGES[name]):
        if not link.startswith("http"):
            target = (ROOT / name).parent / link
            there = target.resolve().relative_to(ROOT.resolve()).as_posix()
            assert target.exists() or there in GENERATED, link


@pytest.mark.parametrize("name", PAGES)
def test_files_of_the_repository_are_called_by_their_names(name):
    for path in re.findall(r"`((?:miaprune|workflow|benchmarks|profiles|docs)/[^`{}*\s]+)`", PAGES[name]):
        assert (ROOT / path).exists() or (ROOT / "miaprune" / path).exists(), path


@pytest.mark.parametrize("name", PAGES)
def test_commands_name_cells_and_keys_that_exist(name):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    commands = re.sub(r"\\\n\s*", "", PAGES[name])
    cells = re.findall(r"results/\w+/\w+/(?:original|\w+_[\d.]+)/\w+\.json", commands)
    if (
        name != "docs/extending.md"
    ):  # its names are registered by its own code, which workflow/test_runs_with_extensions.py runs
        configuration.check_targets(cells, "results", "data", config["attacks"], config["seeds"][0], [])
    for line in re.findall(r"snakemake .*--config (.*)", commands):
        for key in re.findall(r"(?:^|[\s'\"])(\w+)=", line):
            assert key in SCHEMA["properties"], line


def test_every_key_of_the_configuration_is_described():
    def nodes(node, name):
        yield name, node
        for key, inner in node.get("properties", {}).items():
            if isinstance(inner, dict):
                yield from nodes(inner, f"{name}.{key}")
        for inner in (node.get("items"), node.get("additionalProperties")):
            if isinstance(inner, dict) and "properties" in inner:
                yield from nodes(inner | {"description": "a block"}, f"{name}[]")

    inside = {name: node for name, node in SCHEMA["$defs"].items() if name != "list"}
    found = [*nodes(SCHEMA, "")]
    found += [each for name, node in inside.items() for each in nodes(node | {"description": "a block"}, name)]
    assert len(found) > 60
    assert [name for name, node in found if not node.get("description")] == []


def test_the_configuration_s_page_has_every_key_with_its_default(page):
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", page, flags=re.M))
    blocks = set(re.findall(r"^## `(\w+)`$", page, flags=re.M))
    assert set(SCHEMA["properties"]) <= set(rows) | blocks
    assert rows["device"].startswith("`auto` or `cpu` or `cuda` | `auto` |")
    assert "paper: `sgd`; fast: `adamw`" in rows["NAME.optimizer"]
    assert all(row.split(" | ")[2] for row in rows.values())


def test_every_public_name_is_on_the_page_from_python():
    text = PAGES["docs/python.md"]
    there = set(re.findall(r"^::: miaprune\.(\w+)$", text, flags=re.M)) | set(
        re.findall(r"\{ #miaprune\.(\w+) \}", text)
    )
    assert there == set(miaprune.__all__)


def test_every_attack_pruner_and_defence_is_in_the_method():
    for name in (*grid.ATTACKS, *grid.PRUNERS, *grid.DEFENSES, *grid.MODELS, *grid.DATASETS):
        assert f"`{name}`" in PAGES["docs/method.md"], name


def submission(*names, unaware=False):
    """A row of what a setting's submission asks for: minutes, GB, CPUs."""
    attacks = ["samia", "nn", "cheap", "reference", *["score"] * unaware]  # side by side
    time = minutes("finetuning", names) + minutes("signals", names) + max(minutes(each, names) for each in attacks)
    time += minutes("score", names)  # every record's
    memory = max(megabytes("finetuning", names), sum(megabytes(each, names) for each in attacks))
    return f"| {time} | {memory // 1000} | {len(attacks)} |"


def test_what_jobs_ask_for_is_what_the_page_says():
    text = PAGES["docs/cluster.md"]
    for names, unaware in ((("cifar10", "resnet18"), False), (("cifar10", "resnet18", "adv"), True),
                           (("svhn", "densenet121"), False)):  # fmt: skip
        assert submission(*names, unaware=unaware) in text, names
    assert f"(`dp`: {submission('cifar10', 'resnet18', 'dp').split()[1]} minutes)" in text
    assert f"(with `ppb`: {submission('svhn', 'densenet121', 'ppb').split()[1]} minutes)" in text
    assert f"| {minutes('training', ('svhn', 'densenet121'))} | 8 | 2 |" in text


def test_every_cost_is_of_a_name_that_jobs_ask_by():
    """By the parts of their paths, and what stands before a number there."""
    for costs, names in ((DATASET_COST, grid.DATASETS), (MODEL_COST, grid.MODELS), (DEFENSE_COST, grid.DEFENSES)):
        assert costs.keys() <= names.keys()


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("miaprune", "benchmarks", "workflow", "config.yaml", "mkdocs.yml", "CHANGELOG.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"], cwd=tmp_path, capture_output=True, text=True
    )  # with --quiet there is no warning, and nothing is strict
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("configuration.html", "python.html", "benchmarks/gpu.html", "CHANGELOG.html"):
        assert (tmp_path / "site" / page).exists()
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(r'(?:src|<link[^>]* href)="(https?:[^"]*)"', page.read_text())
        assert [url for url in fetched if "canonical" not in url] == [], page
