"""A job's log and its end: what the terminal, the log and the exit status say, also when a signal ends it."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from job import card, logged, running

from miaprune.training.stopping import span

SEES_JOB = {"PYTHONPATH": str(Path(__file__).parents[2] / "workflow/scripts")}
JOB = """
import signal, sys, time
from pathlib import Path
from job import logged
signal.signal(signal.SIGINT, signal.{sigint})
with logged(sys.argv[1]):
"""


def job(folder, body, sigint="default_int_handler", **environment):
    """Start a process that runs ``body`` as a job, whatever this one was started to do at Ctrl-C."""
    code = JOB.format(sigint=sigint) + textwrap.indent(textwrap.dedent(body), "    ")
    variables = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"} | SEES_JOB | environment
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "job.log")],
        stderr=subprocess.PIPE, text=True, env=variables, cwd=folder,
    )  # fmt: skip


def ended(process):
    _, error = process.communicate(timeout=120)
    return process.returncode, error


def told(process, folder, number):
    """Send the signal once the job is ready for it."""
    while not (folder / "ready").exists():
        assert process.poll() is None
    process.send_signal(number)
    return ended(process)


WRITES = """
    from miaprune.files import whole
    print("at work")
    with whole("output") as temporary:
        temporary.write_text("half")
        Path("ready").touch()
        for _ in range(20 * int(Path("seconds").read_text())):
            time.sleep(0.05)  # Python hears a signal that comes just before a sleep after it only
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_told_to_stop_fails_in_one_line_and_clears_up(tmp_path, number):
    (tmp_path / "seconds").write_text("100")
    status, error = told(job(tmp_path, WRITES), tmp_path, number)
    assert status == 1
    assert error == f"error: stopped by {number.name} (details in {tmp_path / 'job.log'})\n"
    log = (tmp_path / "job.log").read_text()
    assert f"stopped by {number.name} after 0:00:" in log and "Traceback" not in log
    assert {path.name for path in tmp_path.iterdir()} == {"ready", "seconds", "job.log", "job.log.unfinished"}


def test_under_slurm_a_job_goes_on_at_sigterm(tmp_path):
    (tmp_path / "seconds").write_text("1")
    status, error = told(job(tmp_path, WRITES, SLURM_JOB_ID="123"), tmp_path, signal.SIGTERM)
    assert (status, error) == (0, "")
    assert (tmp_path / "output").read_text() == "half"
    assert "SLURM job 123" in (tmp_path / "job.log").read_text()


def test_under_slurm_ctrl_c_stops(tmp_path):
    (tmp_path / "seconds").write_text("100")
    assert told(job(tmp_path, WRITES, SLURM_JOB_ID="123"), tmp_path, signal.SIGINT)[0] == 1


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As by nohup, and in the background of a script."""
    (tmp_path / "seconds").write_text("1")
    process = job(tmp_path, WRITES, sigint="SIG_IGN")
    assert told(process, tmp_path, signal.SIGINT) == (0, "")


def test_a_log_starts_with_the_attempts_that_did_not_finish(tmp_path):
    """Snakemake removes it each time; an attempt may be killed, fail, or finish."""
    log = tmp_path / "job.log"
    process = job(tmp_path, "print('first'); Path('ready').touch(); time.sleep(100)")
    assert told(process, tmp_path, signal.SIGKILL) == (-signal.SIGKILL, "")
    log.unlink()
    assert ended(job(tmp_path, "print('second'); raise ValueError('no good')")) == (
        1, f"error: no good (details in {log})\n",
    )  # fmt: skip
    assert "ValueError: no good" in log.read_text()
    log.unlink()
    assert ended(job(tmp_path, "print('third')")) == (0, "")
    lines = [line.split(" ", 2)[2] if line.startswith("20") else line for line in log.read_text().splitlines()]
    story = [line.split(" after ")[0].split(" on ")[0] for line in lines if not line.startswith(("  ", "Traceback"))]
    assert story == [
        "started", "first", "started", "second", "failed", "ValueError: no good", "started", "third", "finished",
    ]  # fmt: skip
    assert not (tmp_path / "job.log.unfinished").exists()
    log.unlink()
    assert ended(job(tmp_path, "print('anew')"))[0] == 0
    assert "third" not in log.read_text()


def test_a_job_waits_for_an_earlier_attempt_that_outlived_its_snakemake(tmp_path):
    log = tmp_path / "job.log"
    first = job(tmp_path, "Path('ready').touch(); time.sleep(4); Path('output').write_text('first')")
    while not (tmp_path / "ready").exists():
        assert first.poll() is None
    log.unlink()  # as Snakemake does before it runs the job again
    second = job(tmp_path, "Path('output').write_text(Path('output').read_text() + ', second')")
    assert ended(second) == ended(first) == (0, "")
    assert (tmp_path / "output").read_text() == "first, second"
    assert f"process {second.pid} waits: an earlier attempt still runs" in log.read_text()


def test_without_hard_links_a_log_is_the_last_attempts(tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError("no hard links here")

    monkeypatch.setattr("job.os.link", no_links)
    for text in ("first", "second"):
        with pytest.raises(SystemExit), logged(tmp_path / "job.log"):
            print(text)
            raise ValueError
    assert "first" not in (tmp_path / "job.log").read_text() and "second" in (tmp_path / "job.log").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["job.log"]


def test_logged_leaves_the_process_as_it_was(tmp_path):
    logger = logging.getLogger("miaprune")

    def settings():
        return [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)], logger.handlers[:], logger.level

    before = settings()
    with logged(tmp_path / "job.log"):
        assert settings() != before
    assert settings() == before


def test_spans():
    assert [span(s) for s in (0.4, 61, 7325.0, 90000)] == ["0:00:00", "0:01:01", "2:02:05", "1 day, 1:00:00"]


def holder(folder, names=("0", "1")):
    """A process that holds a place on a card until it is killed; returns it and the card's index."""
    code = (
        "import pathlib, sys, time; from job import card\n"
        f"with card({names!r}, pathlib.Path(sys.argv[1])) as index: print(index, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | SEES_JOB)
    return process, int(process.stdout.readline())


def test_jobs_take_the_least_occupied_card_and_a_killed_ones_place_is_free_again(tmp_path):
    holders = [holder(tmp_path) for _ in range(4)]
    try:
        assert [index for _, index in holders] == [0, 1, 0, 1]  # two each, only when both have one
        holders[1][0].kill()
        holders[1][0].wait()
        with card(("0", "1"), tmp_path) as index:
            assert index == 1
            with card(("0", "1"), tmp_path) as another:
                assert another == 0  # a third on one of them
    finally:
        for process, _ in holders:
            process.kill()
            process.wait()


def test_a_job_whose_card_torch_cannot_use_fails_and_does_not_take_days_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("job.keep_freed_memory", lambda: None)
    log = tmp_path / "job.log"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    message = r"cannot use the GPU that this job was given \(CUDA_VISIBLE_DEVICES=1\)"
    with pytest.raises(SystemExit, match=message), running(log, 1, "auto"):
        pytest.fail("it ran")
    with running(log, 1, "cpu") as device:
        assert device.type == "cpu"
    for none in ("", "-1", "NoDevFiles", "none"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        with running(log, 1, "auto") as device:
            assert device.type == "cpu"
    assert "computes on cpu, " in log.read_text()
