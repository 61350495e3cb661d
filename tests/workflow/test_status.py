"""The status of a grid, from files that tests lay out as a run leaves them; real runs are in tests/workflow/."""

import base64
import contextlib
import os
import subprocess
import sys
import time

import pytest
import runner
import status
import yaml
from runner import ROOT
from status import Results

from miaprune import grid

BLOCK = {
    "datasets": ["digits"],
    "models": ["fc"],
    "pruners": ["l1"],
    "sparsities": [0.5, 0.7],
    "parts": {"all": {}},
    "defenses": [{"defense": "ppb", "strengths": [4], "part": "all", "adversaries": ["adaptive", "unaware"]}],
    "transfer": "all",
    "controls": "none",
}
ATTACKS = ["samia", "conf"]
GRID = grid.attacked(grid.settings(BLOCK), BLOCK)
CELLS = status.cells(GRID, ATTACKS)
JOBS = [job for cell in CELLS for job in cell.jobs]
TRACEBACK = "Traceback (most recent call last):"
ATTEMPT = "2026-11-24 08:37:56 started on node7, process 12, SLURM job 9"
BENCHMARK = "s\th:m:s\tmax_rss\n{}\t0:00:01\t-\n"


def stem(job):
    return f"{job.folder}/{job.step}"


def job(name):
    return next(job for job in JOBS if stem(job) == name)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


class Run:
    """Lays out what Snakemake and its jobs leave in a working folder."""

    def __init__(self, folder):
        self.folder = folder
        self.clock = 1_000_000

    def write(self, path, text=""):
        """A file, newer than all before it."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.clock += 1
        os.utime(file, (self.clock, self.clock))

    def finish(self, *jobs, seconds=10.0):
        for done in jobs:
            self.write(f"results/logs/{stem(done)}.log", "epoch 1/2\n")
            for output in done.outputs:
                self.write(f"results/{output}")
            self.write(f"results/benchmarks/{stem(done)}.tsv", BENCHMARK.format(seconds))

    def remove(self, *jobs):
        for removed in jobs:
            for output in removed.outputs:
                (self.folder / "results" / output).unlink()

    def mark(self, *jobs):
        """Mark outputs as Snakemake does."""
        for started in jobs:
            for output in started.outputs:
                name = base64.urlsafe_b64encode(f"results/{output}".encode()).decode()
                *folders, last = [name[i : i + 254] for i in range(0, len(name), 254)]
                self.write(f".snakemake/incomplete/{'/'.join([*('@' + f for f in folders), last])}", "{}")

    @contextlib.contextmanager
    def alive(self):
        """Lock the folder as a running Snakemake does, for a with block."""
        self.write(".snakemake/locks/0.output.lock")
        yield
        (self.folder / ".snakemake/locks/0.output.lock").unlink()

    @property
    def results(self):
        return Results("results", self.folder)

    def states(self):
        return status.states(CELLS, self.results)

    def report(self):
        return status.report(GRID, ATTACKS, self.results)


def row(report, name):
    """The counts of a line of the table: done, running, failed and missing, for each group of columns."""
    line = next(line for line in report.splitlines() if line.startswith(name))
    groups = line[25:].split("|")
    return [[int(n.replace(".", "0")) for n in group.split()] for group in groups[:-1]], groups[-1].strip()


def test_nothing_was_run(run):
    counts, left = row(run.report(), "digits")
    assert counts == [[0, 0, 0, 3], [0, 0, 0, 2], [0, 0, 0, 4]] and left == "unknown"
    assert f"{len(JOBS)} of {len(JOBS)} jobs left: unknown" in run.report()
    assert not list(run.folder.iterdir()), "nothing is written"


def test_all_is_done(run):
    run.finish(*JOBS)
    assert row(run.report(), "digits") == ([[3, 0, 0, 0], [2, 0, 0, 0], [4, 0, 0, 0]], "-")
    assert f"All {len(JOBS)} jobs are done." in run.report()


def test_a_cell_needs_every_attack_that_was_asked_for(run):
    run.finish(*JOBS)
    run.remove(job("digits/fc/l1_0.5/attack_samia"))
    assert row(run.report(), "digits")[0][0] == [2, 0, 0, 1]
    assert row(status.report(GRID, ["conf"], run.results), "digits")[0][0] == [3, 0, 0, 0]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (f"epoch 1/2\n{TRACEBACK}\n  File x, line 1\n    y\nValueError: bad\n  more\n", "ValueError: bad"),
        ("epoch 1/2\nerror: no space left\n", "error: no space left"),
        ("epoch 1/2\n", "cancelled or killed (by a signal, for its memory or its time)? Its log ends: epoch 1/2"),
        ("", "Its log ends: (empty)"),
        (f"epoch 9/9\n{ATTEMPT}\n", f"Its log ends: {ATTEMPT}"),
        (f"{TRACEBACK}\nKeyError: first\n{ATTEMPT}\nepoch 9/9\n", "Its log ends: epoch 9/9"),
        (f"{TRACEBACK}\nKeyError: first\n{ATTEMPT}\n{TRACEBACK}\nOSError: second\n", "OSError: second"),
        ("x" * 100_000 + f"\n{TRACEBACK}\n  File\nOSError: late\n", "OSError: late"),
        (f"{TRACEBACK}\nKeyError: first\n{TRACEBACK}\nOSError: second\n", "OSError: second"),
    ],
)
def test_a_failed_job_is_named_with_its_error_and_its_log(run, log, said):
    failed = job("digits/fc/l1_0.5/prune")
    run.write(f"results/logs/{stem(failed)}.log", log)
    assert run.states()[failed] == "failed"
    first, second, third = run.report().splitlines()[:3]
    assert first == "failed: prune of digits/fc/l1_0.5" and said in second
    assert third.strip() == "results/logs/digits/fc/l1_0.5/prune.log"
    assert row(run.report(), "digits")[0] == [[0, 0, 1, 2], [0, 0, 0, 2], [0, 0, 0, 4]]


def test_a_job_that_failed_after_it_had_once_succeeded(run):
    run.finish(*JOBS)
    again = job("digits/fc/l1_0.5/attack_samia")
    run.remove(again)
    assert run.states()[again] == "missing", "its outputs were removed, it did not fail"
    run.write(f"results/logs/{stem(again)}.log", "killed")
    assert run.states()[again] == "failed"


def test_what_a_living_snakemake_has_marked_is_running(run):
    run.finish(job("digits/fc/original/train"))
    started = [job("digits/fc/l1_0.5/prune"), job("digits/fc/l1_0.5/signals")]
    run.mark(*started)
    run.write("results/logs/digits/fc/l1_0.5/prune.log", "epoch 1/2")
    with run.alive():
        assert [run.states()[j] for j in started] == ["running", "running"]
        assert row(run.report(), "digits")[0][0] == [0, 1, 0, 2]
        assert "have not begun" not in run.report()
    # once it was killed, the same marks tell what it had under way
    assert [run.states()[j] for j in started] == ["interrupted", "interrupted"]
    assert "2 jobs were under way when Snakemake was stopped" in run.report()


def test_running_settings_of_which_no_job_has_begun(run):
    first, second = job("digits/fc/l1_0.5/prune"), job("digits/fc/original/train")
    run.write("results/logs/digits/fc/l1_0.5/prune.log", "an earlier attempt")
    run.mark(first, second)
    with run.alive():
        assert [run.states()[j] for j in (first, second)] == ["running", "running"]
        assert "2 of the 2 that run have not begun" in run.report()
        run.write("results/logs/digits/fc/l1_0.5/prune.log", "epoch 1/2")
        assert "1 of the 2 that run have not begun" in run.report()


def test_half_written_outputs_are_not_done(run):
    started = job("digits/fc/l1_0.5/prune")
    run.finish(started)
    run.mark(started)
    assert run.states()[started] == "interrupted"
    assert row(run.report(), "digits")[0][0] == [0, 0, 0, 3]


def test_marks_of_another_results_folder_do_not_count(run):
    run.mark(job("digits/fc/l1_0.5/prune"))
    with run.alive():
        other = Results("elsewhere", run.folder)
        assert "running" not in status.states(CELLS, other).values()


def test_foreign_files_among_the_marks(run):
    run.write(".snakemake/incomplete/migration_underway")
    run.write(".snakemake/incomplete/!!")
    with run.alive():
        assert set(run.states().values()) == {"missing"}


def test_checkpoints_removed_to_save_space_are_not_missed_until_they_are_needed(run):
    run.finish(*JOBS)
    run.remove(job("digits/fc/l1_0.5/prune"))
    assert set(run.states().values()) == {"done"}
    run.remove(job("digits/fc/l1_0.5/signals"))
    missing = {stem(j) for j, state in run.states().items() if state == "missing"}
    assert missing == {"digits/fc/l1_0.5/prune", "digits/fc/l1_0.5/signals"}


def test_further_references_are_counted_where_an_attack_needs_them(run):
    def report(attacks, references):
        return status.report(GRID, attacks, run.results, references)

    cells = status.cells(GRID, [*ATTACKS, "lira"], 21)
    run.finish(*(j for cell in status.cells(GRID, [*ATTACKS, "lira"], 13) for j in cell.jobs))
    assert "jobs are done" in report(ATTACKS, 256) and "jobs are done" in report([*ATTACKS, "lira"], 13)
    assert row(report([*ATTACKS, "lira"], 21), "digits") == ([[0, 0, 0, 3], [0, 0, 0, 2], [4, 0, 0, 0]], "1.7 min")
    pruned = next(j for cell in cells for j in cell.jobs if stem(j) == "digits/fc/l1_0.5/references/5-12/prune")
    run.remove(pruned)
    assert status.states(cells, run.results)[pruned] == "done", "its margins are there"
    run.write("results/logs/digits/fc/l1_0.5/references/13-20/prune.log", "killed")
    assert report([*ATTACKS, "lira"], 21).startswith("failed: prune of references of digits/fc/l1_0.5\n")


def test_further_references_belong_to_the_matched_adversary():
    victim = grid.Setting.parse("digits/fc/l1_0.5/ppb_4")
    unaware, matched = status.cells([(victim, "unaware"), (victim, "matched")], ["lira"], 13)
    assert not [j for j in unaware.jobs if "references" in stem(j)]
    assert len([j for j in matched.jobs if "references" in stem(j)]) == 2
    (alone,) = status.cells([(victim, "unaware")], ["lira"], 13)
    assert not [j for j in alone.jobs if "references" in stem(j)], "no job makes them then"


def test_results_of_networks_that_learnt_nothing_are_named(run):
    run.finish(*JOBS)
    assert "learnt nothing" not in run.report()
    run.write("results/digits/fc/l1_0.5/samia.json", '{"trained": false, "failed": ["attack"]}')
    assert "failed, because a network learnt nothing (attack): results/digits/fc/l1_0.5/samia.json" in run.report()
    for name in ("samia", "conf"):
        run.write(f"results/digits/fc/l1_0.5/{name}.json", '{"trained": false, "failed": ["victim", "shadow_2"]}')
    (line,) = (line for line in run.report().splitlines() if "learnt nothing" in line)
    assert line.endswith("(victim, shadow_2): results/digits/fc/l1_0.5/{samia,conf}.json")


def test_the_time_left_is_the_mean_of_jobs_of_the_same_kind(run):
    run.finish(*JOBS, seconds=10)
    first, second = job("digits/fc/l1_0.5/prune"), job("digits/fc/l1_0.7/prune")
    run.finish(first, seconds=100)
    run.remove(second, job("digits/fc/l1_0.7/signals"))
    run.remove(job("digits/fc/l1_0.7/ppb_4/prune"), job("digits/fc/l1_0.7/ppb_4/signals"))
    # pruning 100 s; two signals and a defended pruning 10 s each: a defence's pruning is a kind of its own
    assert row(run.report(), "digits")[1] == "2.2 min"
    assert "4 of" in run.report() and "Without" not in run.report()


def test_the_time_left_falls_back_on_other_models_but_not_on_other_datasets(run):
    block = BLOCK | {"datasets": ["digits", "location"], "models": ["fc", "cnn"], "defenses": [], "transfer": "none"}
    attacked = grid.attacked(grid.settings(block), block)
    run.finish(*(j for j in JOBS if j.victim.pruner is None), seconds=60)
    report = status.report(attacked, ATTACKS, run.results)
    # What fc's finished jobs say of cnn: a minute for each that is no pruning; of location nothing.
    assert row(report, "digits       cnn")[1] == "13 min+" and row(report, "location")[1] == "unknown"
    assert "of which no job of their kind and data set has finished" in report


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s\th:m:s\n",
        "s\th:m:s\nNA\t-\n",
        "s\nnan\n",
        "s\ninf\n",
        "h:m:s\n0:01\n",
        "s\ta\n1\t2\t3\n",
        "\x00\xff",
    ],
)
def test_a_damaged_benchmark_file_is_left_out(run, text):
    run.finish(*JOBS, seconds=10)
    run.write("results/benchmarks/digits/fc/l1_0.5/prune.tsv", text)
    assert run.results.seconds(job("digits/fc/l1_0.5/prune")) is None
    run.remove(job("digits/fc/l1_0.7/prune"), job("digits/fc/l1_0.7/signals"))
    assert row(run.report(), "digits")[1] == "10 s+"


def test_a_read_only_folder(run):
    run.finish(*JOBS[:4])
    run.write(".snakemake/locks/0.output.lock")
    paths = [run.folder, *run.folder.rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in paths}
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert "jobs left" in run.report()
    finally:
        for path in paths:
            path.chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in [run.folder, *run.folder.rglob("*")]} == before


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1.0 min"), (3599, "60 min"), (3600 * 30, "30 h"), (86400 * 3, "3.0 d")],
)
def test_durations(seconds, text):
    assert status.duration(seconds) == text


ALONE = ("defenses=[]", "transfer=none", "controls=none")


def test_the_command_reads_the_configuration_as_snakemake_does(tmp_path):
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    done = runner.status("--config", "datasets=[location]", "sparsities=[0.50]", *ALONE, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "total")[0] == [[0, 0, 0, 2]]
    for victim in ("original", "l1_0.5"):
        folder = tmp_path / f"elsewhere/location/fc/{victim}"
        folder.mkdir(parents=True)
        tensors = (*grid.ROLES, "signals", "margins", "scores")
        for name in (*(f"{a}.json" for a in grid.ATTACKS), *(f"{name}.safetensors" for name in tensors)):
            (folder / name).touch()
    arguments = ["datasets=[location]", "sparsities=[0.50]", *ALONE, "results_dir=elsewhere"]
    done = runner.status("--directory", str(tmp_path), "--config", *arguments)
    assert row(done.stdout, "total")[0] == [[2, 0, 0, 0]]


def test_a_file_of_ones_own_extends_config_yaml(tmp_path):
    (tmp_path / "mine.yaml").write_text("sparsities: [0.5]\ndefenses: []\ntransfer: none\ncontrols: none\n")
    done = runner.status("--configfile", str(tmp_path / "mine.yaml"), "--config", "datasets=[location]")
    assert row(done.stdout, "total")[0] == [[0, 0, 0, 2]], done.stderr


def test_the_demo_is_another_grid():
    assert row(runner.status("demo").stdout, "total")[0][0] != row(runner.status().stdout, "total")[0][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--configfile", "nowhere.yaml"], "error: nowhere.yaml: cannot be read (No such file or directory)\n"),
        (["--config", "datasets=[digit]"], "did you mean 'digits'?"),
        (["--config", "seed"], "Invalid config definition"),
        (["--config", "results=x"], "unknown key in the configuration: 'results': did you mean 'results_dir'?"),
    ],
)
def test_a_configuration_that_cannot_be_read(arguments, message):
    done = runner.status(*arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr


def test_the_papers_grid_takes_a_moment(tmp_path):
    """The paper's grid with all but one job per cell finished: it takes about 0.3 s on an idle core."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    attacked = grid.attacked(grid.settings(config), config)
    paper = status.cells(attacked, config["attacks"])
    assert sum(len(cell.jobs) for cell in paper) > 2700
    run = Run(tmp_path)
    run.finish(*(job for cell in paper for job in cell.jobs[:-1]))
    started = time.process_time()
    report = status.report(attacked, config["attacks"], run.results)
    assert time.process_time() - started < 3
    assert row(report, "total")[0][0][3] == 270


def test_no_torch_is_imported():
    code = "import sys, status; sys.exit(bool({'torch', 'numpy', 'pandas', 'snakemake'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "workflow").returncode == 0
