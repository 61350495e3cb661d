"""Each fault of SLURM's plugin that ours survives, without a cluster: SLURM's commands are small scripts here."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake_executor_plugin_slurm as slurm
import yaml
from runner import ROOT
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from snakemake_executor_plugin_miaprune import Executor, ExecutorSettings, common_settings

RUN = "miaprune_00000000-1111-2222-3333-444444444444"
COMMANDS = {  # a line of the file `queue` is a job: its number, its run, its comment, its state, its folder
    "squeue": """
if [ -e away ]; then echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; fi
case "$*" in
  *'%A %j %Z'*) awk -F'|' '{ print $1, $2, $5 }' queue ;;
  *'%A %k'*) awk -F'|' '{ print $1, $3 }' queue ;;
  *'%i|%T'*) awk -F'|' '{ print $1 "|" $4 }' queue ;;
esac
""",
    "sacct": "if [ -e no_accounting ]; then exit 1; fi\ncat accounting\n",
    # It takes the job, and then says what the file `answer` holds: an error if that begins so.
    "sbatch": """
while [ $# -gt 0 ]; do
  case "$1" in --job-name) run=$2 ;; --comment) comment=$2 ;; esac
  shift
done
echo "7|$run|$comment|PENDING|" >> queue
if grep -q '^sbatch: error' answer; then cat answer >&2; exit 1; fi
cat answer
""",
    "scancel": """
echo "$*" >> cancelled
if [ -e busy ]; then rm busy; echo 'scancel: error: Socket timed out' >&2; exit 1; fi
for job; do grep -v "^$job|" queue > left; mv left queue; done
""",
}


class Impatient(threading.Event):
    """An event that nobody waits for."""

    def wait(self, timeout=None):
        return self.is_set()


class Recorder:
    """Stands for a logger: what it was told, by level."""

    def __init__(self):
        self.said = []

    def __getattr__(self, level):
        return lambda message, **_: self.said.append((level, message))

    def of(self, level):
        return [message for each, message in self.said if each == level]


class Resources(SimpleNamespace):
    def get(self, name, default=None):
        return getattr(self, name, default)


class Job:
    """A job; or a group, which has neither a rule nor wildcards."""

    def __init__(self, name, group=False, **more):
        self.name, self.groupid, self._group, self.errors = name, name, group, []
        self.jobid, self.threads, self.resources = 1, 1, Resources()
        vars(self).update(more)

    def is_group(self):
        return self._group

    def log_error(self, msg=None, **about):
        self.errors.append(msg)


class Reporting(Executor):
    """Our executor, with what it reports and submits kept, and no Snakemake around it."""

    def __init__(self, folder):
        self.reported, self.submitted = [], []
        self.logger, self.stopped, self.run_uuid = Recorder(), Impatient(), RUN
        self.workflow = SimpleNamespace(
            executor_settings=SimpleNamespace(
                keep_successful_logs=False, requeue=True, qos=None, reservation=None, pass_command_as_script=False
            ),
            execution_settings=SimpleNamespace(lock=True),
            persistence=SimpleNamespace(path=folder / ".snakemake"),
            workdir_init=str(folder),
        )
        self.slurm_logdir = folder / "slurm_logs"
        self.status_rate_limiter = nullcontext()
        self._main_event_loop, self._submitted_job_clusters, self._failed_nodes = None, set(), set()
        self._job_submission_executor = SimpleNamespace(submit=lambda run, job: self.submitted.append(job))

    def get_account_arg(self, job):
        yield ""

    def get_partition_arg(self, job):
        return ""

    def format_job_exec(self, job):
        return "true"

    def report_job_submission(self, job_info):
        self.reported.append((job_info.external_jobid, "submitted"))

    def report_job_success(self, job_info):
        self.reported.append((job_info.external_jobid, "done"))

    def report_job_error(self, job_info, msg=None, **about):
        self.reported.append((job_info.external_jobid or job_info.job.name, msg))

    def check(self, *numbers):
        """Ask once for jobs of these numbers; returns those that are said to go on."""
        jobs = [SubmittedJobInfo(Job(n), n, {"slurm_logfile": self.slurm_logdir / f"{n}.log"}) for n in numbers]

        async def ask():
            return [job.external_jobid async for job in self.check_active_jobs(jobs)]

        return asyncio.run(ask())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder in which SLURM's commands are ours, and the queue and accounting are empty."""
    (tmp_path / "bin").mkdir()
    for name, script in COMMANDS.items():
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n" + script)
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("queue", "accounting", "cancelled"):
        (tmp_path / name).touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def executor(folder):
    return Reporting(folder)


def queue(*jobs):
    Path("queue").write_text("".join("|".join(job) + "\n" for job in jobs))


def cancelled():
    return Path("cancelled").read_text().splitlines()


def test_snakemake_finds_the_plugin_with_the_official_ones_settings():
    plugin = ExecutorPluginRegistry().get_plugin("miaprune")
    assert plugin.executor is Executor and issubclass(Executor, slurm.Executor)
    assert plugin.common_settings is common_settings is slurm.common_settings
    assert plugin.settings_cls is ExecutorSettings is slurm.ExecutorSettings


def test_the_profile_names_the_plugin_and_settings_that_it_has():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert profile["executor"] == "miaprune"
    assert not [key for key in profile if key.startswith("slurm-")]
    used = {key.removeprefix("miaprune-").replace("-", "_") for key in profile if key.startswith("miaprune-")}
    assert used and used <= {field.name for field in fields(ExecutorSettings)}


def test_what_we_override_is_still_there():
    ours = {name for name in vars(Executor) if not name.startswith("__")}
    added = {"squeue", "cancel_until_gone", "end_jobs_of_a_dead_run", "take_back", "states"}
    assert {name for name in ours if not hasattr(slurm.Executor, name)} == added


# Asking for the jobs' states


def test_a_cancelled_job_has_failed_whoever_cancelled_it(executor):
    Path("accounting").write_text("7|CANCELLED by 0\n8|RUNNING\n")
    assert executor.check("7", "8") == ["8"]
    assert executor.reported == [("7", "SLURM-job '7' failed, SLURM status is: 'CANCELLED'.")]


def test_no_job_is_forgotten_while_nobody_answers(executor):
    Path("away").touch()
    Path("no_accounting").touch()
    assert executor.check("7", "8") == ["7", "8"]
    assert executor.reported == []


def test_the_queue_is_believed_while_accounting_is_away(executor):
    Path("no_accounting").touch()
    queue(("7", RUN, "", "COMPLETED", ""), ("8", RUN, "", "TIMEOUT", ""), ("9", RUN, "", "PENDING", ""))
    assert executor.check("7", "8", "9") == ["9"]
    assert executor.reported == [("7", "done"), ("8", "SLURM-job '8' failed, SLURM status is: 'TIMEOUT'.")]


def test_accounting_knows_what_the_queue_has_forgotten(executor):
    Path("accounting").write_text("7|COMPLETED\n")
    assert executor.check("7") == []
    assert executor.reported == [("7", "done")]


def test_a_requeued_job_goes_on_whatever_accounting_says_of_its_first_start(executor):
    Path("accounting").write_text("7|FAILED\n")
    queue(("7", RUN, "", "PENDING", ""))
    assert executor.check("7") == ["7"]


@pytest.mark.parametrize("state", ["UNKNOWN", "PREEMPTED", "COMPLETING", ""])
def test_a_state_that_is_no_end_is_not_taken_for_one(executor, state):
    queue(("7", RUN, "", state, ""))
    assert executor.check("7") == ["7"]
    assert executor.reported == []


@pytest.mark.parametrize("requeue, active", [(True, ["7"]), (False, [])])
def test_a_job_whose_node_failed_goes_on_if_slurm_requeues_it(executor, requeue, active):
    executor.workflow.executor_settings.requeue = requeue
    queue(("7", RUN, "", "NODE_FAIL", ""))
    assert executor.check("7") == active


def test_a_finished_jobs_log_goes_unless_it_is_to_be_kept(executor):
    executor.slurm_logdir.mkdir()
    logs = [executor.slurm_logdir / f"{number}.log" for number in (7, 8)]
    for log in logs:
        log.touch()
    queue(("7", RUN, "", "COMPLETED", ""))
    executor.check("7")
    executor.workflow.executor_settings.keep_successful_logs = True
    queue(("8", RUN, "", "COMPLETED", ""))
    executor.check("8")
    assert [log.exists() for log in logs] == [False, True]


# Submitting

NOT_TAKEN = "SLURM sbatch failed. The error message was 'sbatch: error: {}'.\n    sbatch call:\n        sbatch ..."


@pytest.mark.parametrize(
    "error",
    [
        "Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "Batch job submission failed: Socket timed out on send/recv operation",
        "QOSMaxSubmitJobPerUserLimit",
        "AssocGrpSubmitJobsLimit",
    ],
)
def test_a_submission_that_slurm_does_not_take_now_is_made_again(executor, error):
    job = Job("digits/fc/l1_0.5", group=True)
    executor._report_job_error_threadsafe(SubmittedJobInfo(job), NOT_TAKEN.format(error))
    assert executor.submitted == [job] and executor.reported == []
    assert error in executor.logger.of("warning")[0]


def test_a_submission_that_slurm_refuses_has_failed(executor):
    job, message = Job("digits/fc/l1_0.5", group=True), NOT_TAKEN.format("invalid partition specified: gpus")
    executor._report_job_error_threadsafe(SubmittedJobInfo(job), message)
    assert executor.submitted == [] and executor.reported == [(job.name, message)]


def test_a_stopped_run_submits_nothing_again(executor):
    executor.stopped.set()
    executor._report_job_error_threadsafe(SubmittedJobInfo(Job("a", group=True)), NOT_TAKEN.format("Socket timed out"))
    assert executor.submitted == [] and len(executor.reported) == 1


JOBS = [
    (Job("digits/fc/l1_0.5_prune", group=True), "rule_digits/fc/l1_0.5_prune"),
    (Job("train", wildcards=["digits", "fc"]), "rule_train_wildcards_digits_fc"),
    (Job("prepare", wildcards=[]), "rule_prepare"),
]


@pytest.mark.parametrize("job, comment", JOBS)
def test_a_job_that_slurm_takes_is_submitted(executor, job, comment):
    Path("answer").write_text("7\n")
    executor.run_job(job)
    assert executor.reported == [("7", "submitted")] and executor.submitted == []
    assert Path("queue").read_text() == f"7|{RUN}|{comment}|PENDING|\n"


@pytest.mark.parametrize("job, comment", JOBS)
def test_what_a_busy_slurm_has_taken_all_the_same_is_cancelled_before_it_is_submitted_again(executor, job, comment):
    Path("answer").write_text("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    queue(("8", RUN, f"{comment}5", "RUNNING", ""))
    Path("busy").touch()  # and so scancel has to ask twice
    executor._job_submission_executor.submit = lambda run, job: executor.submitted.append(Path("queue").read_text())
    executor.run_job(job)
    assert cancelled() == ["7", "7"]
    assert executor.submitted == [f"8|{RUN}|{comment}5|RUNNING|\n"] and executor.reported == []


def test_an_error_within_a_groups_submission_is_a_failed_attempt(executor):
    Path("answer").write_text("Thank you.\n")
    executor.run_job(Job("digits/fc/l1_0.5", group=True))
    ((name, message),) = executor.reported
    assert name == "digits/fc/l1_0.5" and message.startswith("Not submitted: No valid SLURM job ID")


def test_the_official_plugin_loses_it():
    """If this fails, the plugin has mended it, and our `run_job` can go."""
    executor = SimpleNamespace(slurm_logdir=Path("/dev/null"), logger=Recorder(), reported=[])
    executor._report_job_error_threadsafe = lambda *about: executor.reported.append(about)
    with pytest.raises(AttributeError):
        slurm.Executor.run_job(executor, Job("digits/fc/l1_0.5", group=True))


# Reporting, cancelling


def test_of_a_failed_group_the_reason_is_said(executor):
    group, single = Job("digits/fc/l1_0.5", group=True), Job("train")
    reason = "SLURM sbatch failed. The error message was\n'invalid partition'.\n    sbatch call:\n        sbatch ..."
    executor.print_job_error(SubmittedJobInfo(group), reason)
    executor.print_job_error(SubmittedJobInfo(single), "TIMEOUT")
    assert executor.logger.of("error") == [
        "digits/fc/l1_0.5: SLURM sbatch failed. The error message was 'invalid partition'."
    ]
    assert "invalid partition" in group.errors[0] and "TIMEOUT" in single.errors[0]  # as without us


def test_ctrl_c_cancels_by_the_runs_name_and_submits_no_more(executor):
    begun, go_on, submitted = threading.Event(), threading.Event(), []

    def submit(job):
        begun.set()
        go_on.wait(10)
        submitted.append(job)

    executor._job_submission_executor = ThreadPoolExecutor(max_workers=1)
    for job in "ab":
        executor._job_submission_executor.submit(submit, job)
    begun.wait(10)
    threading.Timer(0.1, go_on.set).start()
    executor.cancel_jobs([])  # as the list is while it asks for states
    assert submitted == ["a"] and executor.stopped.is_set()
    ((name, _),) = [line.split() for line in cancelled()]
    assert name == f"--name={RUN}"


# What a dead run has left


def dead_runs_queue(folder):
    queue(
        ("7", RUN, "", "RUNNING", str(folder)),
        ("8", RUN, "", "RUNNING", f"{folder}/another one"),
        ("9", "miaprune_study", "", "RUNNING", str(folder)),  # Snakemake itself, in a job
        ("6", "", "", "RUNNING", str(folder)),
        ("10", RUN.removeprefix("miaprune_"), "", "PENDING", str(folder)),  # a run without a prefix
    )


def locks(folder, *names):
    (folder / ".snakemake/locks").mkdir(parents=True)
    for name in names:
        (folder / ".snakemake/locks" / name).touch()


def test_a_dead_runs_jobs_are_cancelled_until_they_are_gone(executor, folder):
    dead_runs_queue(folder)
    Path("busy").touch()
    locks(folder, "0.input.lock", "0.output.lock")
    executor.end_jobs_of_a_dead_run()
    assert cancelled() == ["7 10", "7 10"]
    assert [line[0] for line in Path("queue").read_text().splitlines()] == ["8", "9", "6"]


@pytest.mark.parametrize("lock, names", [(True, ["0.output.lock", "1.output.lock"]), (False, ["0.output.lock"])])
def test_a_live_runs_jobs_are_left_alone(executor, folder, lock, names):
    dead_runs_queue(folder)
    executor.workflow.execution_settings.lock = lock
    locks(folder, *names)
    executor.end_jobs_of_a_dead_run()
    assert cancelled() == []


def test_a_run_does_not_start_while_slurm_does_not_answer(executor):
    Path("away").touch()
    with pytest.raises(WorkflowError, match=r"SLURM does not answer: .*Unable to contact"):
        executor.end_jobs_of_a_dead_run()


def test_a_run_does_not_start_where_there_is_no_slurm(executor, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(WorkflowError, match=r"SLURM does not answer: .*squeue"):
        executor.end_jobs_of_a_dead_run()
