"""Bad input stops the run before any job starts: one clear line and a non-zero exit."""

import shutil
import subprocess

import pytest

from miaprune.files import load_metadata

CELL = "results/digits/fc/l1_0.5"


def refused(workflow, *arguments):
    """Run for real, check that no job started, and return the one line on the terminal."""
    done = workflow.run(*arguments)
    assert done.returncode != 0
    assert not list(workflow.folder.glob("results/**/*.log")), "a job started"
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


# The other cases of these two are in test_configuration.py, where each takes no Snakemake's start.
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/digits/fc/l1_0.5/samja.json", "unknown attack 'samja': did you mean 'samia'?"),
        ("results/digits/fc/two_four_0.7/samia.json", "two_four has one sparsity; write two_four_0.5"),
        ("results/tables/digits_defenses.csv", "config.yaml's grid has nothing for it; it has"),
    ],
)
def test_a_target_that_does_not_exist(workflow, target, message):
    assert message in refused(workflow, target)


def test_a_configuration_that_cannot_run(workflow):
    workflow.config["models"] = ["resnet18"]
    assert "none of the models ['resnet18'] takes digits" in refused(workflow, "all")


@pytest.mark.parametrize(
    "arguments",
    [
        ["results/tables/digits.csv", "--config", "results_dir=results/"],
        ["results/figures/samia_vs_others.pdf", "--config", "results_dir=./results"],
        ["x/samia_vs_others.pdf", "--config", "results_dir=x/../y"],
        ["--cleanup-metadata", "results/figures/of_another_grid.png"],
    ],
)
def test_what_only_looks_like_a_bad_target_is_left_to_snakemake(workflow, arguments):
    done = workflow.run("--dry-run", *arguments)
    assert "error: " not in done.stderr and "Traceback" not in done.stderr and "rules/common.smk" not in done.stderr
    assert (done.returncode == 0) == ("results/" in arguments[0]), done.stderr


def test_cuda_without_a_gpu(workflow, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    workflow.config["device"] = "cuda"
    assert "device: there is no GPU that CUDA can use on this machine; set it to auto or cpu" in refused(
        workflow, "all"
    )
    assert workflow.run("data/digits/digits.safetensors").returncode == 0, "which takes no GPU"


def test_a_damaged_archive(workflow):
    workflow.config |= {"datasets": ["location"]}
    archive = workflow.folder / "data/location/dataset_location.tgz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"\x1f\x8b truncated")
    message = refused(workflow, "all")
    assert str(archive.relative_to(workflow.folder)) in message and "damaged archive" in message


def test_a_truncated_checkpoint(finished, tmp_path):
    """The victim is cut short after it was made; an attack that needs its signals must say so at once."""
    broken = finished.copy(tmp_path)
    for old in (broken.folder / CELL).glob("*.json"):
        old.unlink()
    (broken.folder / CELL / "signals.safetensors").unlink()
    victim = broken.folder / CELL / "victim.safetensors"
    victim.write_bytes(victim.read_bytes()[:1000])
    done = broken.run(f"{CELL}/samia.json")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and f"{CELL}/victim.safetensors: damaged" in errors[0]
    assert not (broken.folder / CELL / "signals.safetensors").exists()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("seed", "results/digits/fc/original/shadow_0.safetensors: of seed 7, not 8; is it another run's?"),
        ("role", "results/digits/fc/original/victim.safetensors: of role shadow_0, not victim"),
        (
            "setting",
            "results/digits/fc/l1_0.5/signals.safetensors: of setting digits/fc/original, not digits/fc/l1_0.5",
        ),
    ],
)
def test_a_file_of_another_run_or_place_is_not_taken_for_ones_own(finished, tmp_path, what, message):
    """Where Snakemake has no record of who made what: a copied results folder, another checkout on the same one."""
    copy = finished.copy(tmp_path)
    shutil.rmtree(copy.folder / ".snakemake")
    for log in copy.folder.glob("results/**/*.log"):
        log.unlink()
    cell, original = copy.folder / CELL, copy.folder / "results/digits/fc/original"
    if what == "setting":
        shutil.copy(original / "signals.safetensors", cell)
        (cell / "conf.json").unlink()
    else:
        for old in (*cell.glob("*.safetensors"), *cell.glob("*.json")):
            old.unlink()
    if what == "role":
        shutil.copy(original / "shadow_0.safetensors", original / "victim.safetensors")
    if what == "seed":
        copy.config["seeds"] = [8]
    assert message in refused(copy, f"{CELL}/conf.json")


def test_a_fitted_attack_is_a_target(finished):
    assert finished.run(f"{CELL}/attackers/conf.safetensors").returncode == 0


def test_a_results_folder_that_is_a_file(workflow):
    (workflow.folder / "results").write_text("a file stands in the way")
    assert "results: cannot write results_dir there" in refused(workflow, "all")


@pytest.fixture
def small_disk(workflow):
    """A file system of its own for results, mounted with the options a test asks for."""
    folder = workflow.folder / "results"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a small file system needs root")

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def test_a_read_only_results_folder(workflow, small_disk):
    small_disk("ro")
    assert "results: cannot write results there (Read-only file system)" in refused(workflow, "all")


def test_no_space_left_at_the_start(workflow, small_disk):
    small_disk("size=64k")
    assert "results: cannot write results there (No space left on device)" in refused(workflow, "all")


def test_no_space_left_on_the_way(workflow, small_disk):
    """The job that fills the disk fails in one line and leaves no half-written file; with space it goes on."""
    small_disk("size=1100k")
    done = workflow.run(f"{CELL}/conf.json")
    assert done.returncode != 0
    assert any(line.startswith("error: ") and "o space left" in line for line in done.stderr.splitlines())
    files = [p for p in workflow.folder.rglob("results/**/*") if p.is_file() or p.name.endswith(".tmp")]
    for path in files:
        assert not path.name.endswith(".tmp")
        if path.suffix == ".safetensors":
            load_metadata(path)
    subprocess.run(["mount", "-o", "remount,size=64m", str(workflow.folder / "results")], check=True)
    assert workflow.run(f"{CELL}/conf.json").returncode == 0
