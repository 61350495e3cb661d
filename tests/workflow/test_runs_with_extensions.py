"""docs/extending.md does what it says: data, a network, a pruner, a defence and an attack of one's own, for real."""

import json
import re
import textwrap

import pytest
import yaml
from runner import ROOT, Workflow, small_config
from test_bad_input import refused

pytestmark = pytest.mark.workflow

PAGE = (ROOT / "docs/extending.md").read_text()
PYTHON, YAML = (re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, flags=re.M | re.S) for kind in ("python", "yaml"))
TABLE = "results/cancer/fc/l1_0.5/conf.json"
CELL = "results/scans/small_cnn/noisy_l1_0.5/smooth_0.1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A working folder in which the page's text has been followed, with two attacks and two epochs of everything."""
    folder = tmp_path_factory.mktemp("lab")
    csv, *code = PYTHON
    exec(csv.replace('"cancer.csv"', repr(str(folder / "cancer.csv"))))
    (folder / "my_lab.py").write_text("".join(code))
    config = small_config()
    for block in YAML[:3]:
        config |= yaml.safe_load(block)
    config["training"] |= {"epochs": config["finetuning"]["epochs"]}
    workflow = Workflow(folder, config | {"attacks": ["conf", "gap"], "sparsities": [0.5]})
    done = workflow.run(TABLE, f"{CELL}/unaware/gap.json", f"{CELL}/scores.safetensors")
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow


@pytest.fixture
def copy(lab, tmp_path):
    return lab.copy(tmp_path)


def test_results_name_the_users_file_at_every_stage(lab):
    result = json.loads((lab.folder / CELL / "unaware/gap.json").read_text())
    assert result["setting"]["pruner"] == "noisy_l1" and 0 < result["auc"] < 1
    stages = {name: about["extensions"] for name, about in result["provenance"].items() if name != "data"}
    assert {name: set(found) for name, found in stages.items()} == {
        "original": {"scans", "small_cnn"},
        "victim": {"small_cnn", "noisy_l1", "smooth"},
        "signals": {"small_cnn"},
        "attack": {"gap"},
    }
    (facts,) = {(each["path"], each["sha256"]) for found in stages.values() for each in found.values()}
    assert facts[0] == "my_lab.py" and len(facts[1]) == 64
    table = json.loads((lab.folder / TABLE).read_text())
    assert not any(table["provenance"][stage]["extensions"] for stage in stages)
    assert table["victim"]["sparsity"] == pytest.approx(0.5, abs=0.01)


def test_all_is_planned_with_the_names_in_every_list(lab):
    plan = lab.plan("all")
    assert {"results/tables/scans_defenses.csv", "results/figures/frontier_scans_small_cnn.pdf"} <= set(plan)
    assert not any("scans/fc" in file or "cancer/small_cnn" in file for file in plan)
    assert "small_cnn" in lab.status()


def test_a_changed_file_runs_again_what_its_names_are_in(copy):
    targets = TABLE, f"{CELL}/unaware/gap.json"
    assert copy.plan(*targets) == []
    lab = copy.folder / "my_lab.py"
    text = lab.read_text()
    lab.write_text(text)
    assert copy.plan(*targets) == [], "touched, not changed"
    lab.write_text(text + "\n# another\n")
    changed = copy.plan(*targets)
    assert "data/scans/scans.safetensors" in changed and f"{CELL}/victim.safetensors" in changed
    assert not any("cancer" in file for file in changed)


def test_a_changed_attack_in_a_file_of_its_own_trains_nothing(copy):
    code = (copy.folder / "my_lab.py").read_text()
    attack = code.index('@attack("gap")')
    head = "import numpy as np\nfrom miaprune import attack\n"
    (copy.folder / "attacks.py").write_text(head + code[attack:].replace('"gap"', '"gap2"'))
    copy.config |= {"extensions": ["my_lab.py", "attacks.py"], "attacks": ["conf", "gap2"]}
    target = f"{CELL}/gap2.json"
    made = [f"{CELL}/attackers/gap2.safetensors", target, f"{CELL}/scores/gap2.safetensors"]
    assert copy.plan(target) == sorted(made)
    assert copy.run(target).returncode == 0 and copy.plan(target) == []
    (copy.folder / "attacks.py").write_text((copy.folder / "attacks.py").read_text() + "# another\n")
    assert copy.plan(target) == sorted(made)


def test_another_part_of_a_file_prepares_anew(copy):
    copy.config["own_datasets"] = {"cancer": {"file": "cancer.csv", "kind": "table", "label": "target", "classes": 2}}
    assert "data/cancer/cancer.safetensors" in copy.plan(TABLE)


def test_a_file_with_a_fault_starts_nothing(workflow):
    workflow.config["extensions"] = ["my_lab.py"]
    message = refused(workflow, "all")
    assert "extensions: my_lab.py: cannot be read (No such file or directory)" in message
    (workflow.folder / "my_lab.py").write_text("1 / 0")
    assert refused(workflow, "all") == "error: my_lab.py, line 1: ZeroDivisionError: division by zero"
    workflow.config |= {"extensions": [], "own_datasets": {"mine": {"file": "mine.csv", "kind": "table"}}}
    assert "own_datasets.mine: mine.csv: no such file in " in refused(workflow, "all")


def test_code_that_raises_in_a_job_is_a_line_on_the_terminal_and_a_traceback_in_the_log(copy):
    code = """
        from miaprune import attack
        @attack("broken")
        class Broken:
            def fit(self, shadows): return {}
            def score(self, victim): return victim.confidences
    """
    (copy.folder / "attacks.py").write_text(textwrap.dedent(code))
    copy.config["extensions"] = ["my_lab.py", "attacks.py"]
    done = copy.run(f"{CELL}/broken.json")
    assert done.returncode != 0
    (line,) = {line for line in done.stderr.splitlines() if line.startswith("error: ")}
    log = f"results/logs/{CELL.removeprefix('results/')}/attack_broken.log"
    said = "attacks.py, line 6: AttributeError: 'Signals' object has no attribute 'confidences' (in broken)"
    assert line == f"error: {said} (details in {log})"
    assert "return victim.confidences" in (copy.folder / log).read_text()
    assert not (copy.folder / CELL / "broken.json").exists()
