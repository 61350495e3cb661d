"""Our workflow as a module of a larger one: its own configuration and results, its rules under a prefix or not."""

import pytest
import yaml
from runner import ROOT, small_config, snakemake

pytestmark = pytest.mark.workflow

LARGER = """
configfile: "config.yaml"

module mia:
    snakefile: config["miaprune"] + "/Snakefile"
    config: config["mia"]

use rule * from mia{prefix}

rule count:
    input: "privacy/digits/fc/l1_0.5/conf.json"
    output: "count.txt"
    shell: "grep -c auc {{input}} > {{output}}"
"""


def larger(folder, prefix, *arguments):
    """Run the larger workflow in a folder of its own."""
    only = {key: small_config()[key] for key in ("datasets", "models", "pruners", "sparsities", "training")}
    only |= {"results_dir": "privacy", "data_dir": "privacy_data", "defenses": [], "transfer": "none"}
    only |= {"attacks": ["conf"], "finetuning": only["training"]}
    (folder / "config.yaml").write_text(yaml.safe_dump({"miaprune": str(ROOT), "mia": only}))
    (folder / "Snakefile").write_text(LARGER.format(prefix=prefix))
    return snakemake(["--cores", "2", "--nocolor", *arguments], folder)


def test_a_rule_of_the_larger_workflow_takes_our_results(tmp_path):
    done = larger(tmp_path, " as mia_*", "count", "mia_all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "count.txt").read_text().strip() != "0"
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.yaml", "Snakefile", ".snakemake", "privacy", "privacy_data", "count.txt"
    }  # fmt: skip
    assert (tmp_path / "privacy/summary.txt").exists() and not list(tmp_path.rglob("*.unfinished"))


def test_without_a_prefix_all_is_ours_and_a_wrong_configuration_is_one_line(tmp_path):
    done = larger(tmp_path, "", "all", "--dry-run")
    assert done.returncode == 0 and "privacy/digits/fc/l1_0.5/conf.json" in done.stdout + done.stderr
    (tmp_path / "config.yaml").write_text((tmp_path / "config.yaml").read_text().replace("fc", "fcc"))
    done = snakemake(["-n", "all"], tmp_path)
    assert done.returncode != 0
    assert "unknown model 'fcc': did you mean 'fc'?" in done.stderr
