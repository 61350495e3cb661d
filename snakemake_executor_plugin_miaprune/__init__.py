"""Snakemake's SLURM plugin, with what it does not survive mended by inheritance: ``executor: miaprune``.

Its settings are the official plugin's, with another prefix (``--miaprune-requeue``). Each method below mends what its
docstring names, and can go when the issues that it names are closed; docs/slurm_faults.md has them in one table.
"""

from __future__ import annotations

import contextlib
import getpass
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_slurm as slurm
from snakemake_executor_plugin_slurm.job_status_query import (
    query_job_status,
    query_job_status_sacct,
    query_job_status_squeue,
)
from snakemake_executor_plugin_slurm.utils import get_job_wildcards
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

# Snakemake looks for these two beside `Executor`.
ExecutorSettings = slurm.ExecutorSettings
common_settings = slurm.common_settings

FAILED = {"BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT"}
"""The states of a job that will not run again. One whose node failed, or that was preempted, SLURM may requeue."""

NOT_NOW = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted or received",
    "Unexpected message received",
    "MaxSubmitJob",
    "GrpSubmitJob",
)
"""What sbatch says if the controller is away or too busy, and if a QOS or an account takes no more jobs for now."""

SECONDS_UNTIL_AGAIN = 20

OF_A_RUN = re.compile(r"(\d+) ([\w-]+_)?[0-9a-f-]{36} (?P<folder>.*)")
"""A job in the queue: its number, its run's name (the setting ``jobname-prefix`` and a UUID), its working directory."""


class Executor(slurm.Executor):
    """The official plugin's executor; see the methods for what is different."""

    def __post_init__(self, test_mode: bool = False) -> None:
        self.stopped = threading.Event()
        super().__post_init__(test_mode)
        self.end_jobs_of_a_dead_run()

    def squeue(self, *options: str) -> list[str]:
        """What SLURM's queue holds of this user's jobs, a line each; CalledProcessError if it does not answer."""
        command = ["squeue", "--noheader", f"--user={getpass.getuser()}", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout.splitlines()

    def cancel_until_gone(self, left: Callable[[], list[str]]) -> None:
        """Cancel the jobs that ``left()`` finds in the queue until it finds none: a busy controller may not hear it."""
        while not self.stopped.is_set():
            with contextlib.suppress(subprocess.CalledProcessError):  # no answer: they may still be there
                if not (jobs := left()):
                    return
                subprocess.run(["scancel", *jobs], check=True, capture_output=True)
            self.stopped.wait(2)

    def end_jobs_of_a_dead_run(self) -> None:
        """Cancel what a killed Snakemake left in the queue for this folder, and wait until it is gone.

        Symptom: after a ``kill -9`` such jobs go on, and the next run submits jobs that write the same files.
        Upstream: snakemake #762, #877. Superfluous once Snakemake takes up, or ends, the jobs of a run that was killed.
        A run's jobs bear its name and folder. If Snakemake's locks say that another run is alive here, all jobs stay.
        """
        own = int(self.workflow.execution_settings.lock)  # one lock on outputs, or none with --nolock
        if len(list(Path(self.workflow.persistence.path, "locks").glob("*.output.lock"))) > own:
            return

        def left() -> list[str]:
            jobs = filter(None, map(OF_A_RUN.fullmatch, self.squeue("--format=%A %j %Z")))
            return [job[1] for job in jobs if job["folder"] == self.workflow.workdir_init]

        try:
            jobs = left()
        except (OSError, subprocess.CalledProcessError) as error:
            raise WorkflowError(f"SLURM does not answer: {getattr(error, 'stderr', error)}") from error
        if jobs:
            self.logger.warning(f"Cancelling SLURM jobs of an earlier run that was killed here: {', '.join(jobs)}")
            self.cancel_until_gone(left)

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit a job; whatever goes wrong is a failed attempt.

        Symptom: an error within the plugin's submission of a group, such as an answer of sbatch that it cannot read,
        raises AttributeError in its own handler, as a group has no ``rule``; nobody hears of it, and the run waits for
        ever. Upstream: no report found. Superfluous once that handler names a group by something that it has.
        """
        try:
            super().run_job(job)
        except Exception as error:
            self._report_job_error_threadsafe(SubmittedJobInfo(job), f"Not submitted: {error.__context__ or error}")

    def _report_job_error_threadsafe(self, job_info: SubmittedJobInfo, msg: str) -> None:
        """Report a failed submission, or make it again later if SLURM takes no job just now.

        Symptom: a busy controller, its restart or a limit of submitted jobs uses up a job's retries within seconds; and
        when the answer alone is lost, the next attempt is a second job that writes the same files. Upstream: plugin
        #313, snakemake #1789. Superfluous once the plugin waits, and asks the queue before it tries again.
        """
        if any(reason in msg for reason in NOT_NOW):
            said = msg.partition("\n")[0]
            self.logger.warning(f"SLURM takes no job just now: {said} Trying again in {SECONDS_UNTIL_AGAIN} s.")
            if not self.stopped.wait(SECONDS_UNTIL_AGAIN):
                self.take_back(job_info.job)
                self._job_submission_executor.submit(self.run_job, job_info.job)
                return
        super()._report_job_error_threadsafe(job_info, msg)

    def take_back(self, job: JobExecutorInterface) -> None:
        """Cancel what SLURM has taken of the job's submission all the same: its comment says which is the job's."""
        wildcards = get_job_wildcards(job)
        comment = f"rule_{job.name}" + (f"_wildcards_{wildcards}" if wildcards else "")

        def left() -> list[str]:
            jobs = (line.partition(" ") for line in self.squeue(f"--name={self.run_uuid}", "--format=%A %k"))
            return [number for number, _, found in jobs if found == comment]

        self.cancel_until_gone(left)

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """Report what has ended, and yield what has not, or of which nothing is known.

        Symptoms: when accounting is away for a while, the plugin forgets every job, and the run waits for ever; sacct's
        "CANCELLED by 0" it takes for a job that still runs, and waits for ever; UNKNOWN it takes for success. Upstream:
        plugin #207, #331 for the first. Its setting ``status-command: squeue`` helps against the second alone, and
        never learns of what ended while it could not ask, as the queue forgets a job after some minutes. Superfluous
        once the plugin asks both, and keeps what it has no answer for.
        """
        states = await self.states() if active_jobs else {}
        requeue = self.workflow.executor_settings.requeue
        for job_info in active_jobs:
            state = states.get(job_info.external_jobid, "")
            log: Path = job_info.aux["slurm_logfile"]
            if state == "COMPLETED":
                if not self.workflow.executor_settings.keep_successful_logs:
                    with contextlib.suppress(OSError):
                        log.unlink()
                self.report_job_success(job_info)
            elif state in FAILED or (state == "NODE_FAIL" and not requeue):
                said = f"SLURM-job '{job_info.external_jobid}' failed, SLURM status is: '{state}'."
                self.report_job_error(job_info, msg=said, aux_logs=[str(log)])
            else:
                yield job_info

    async def states(self) -> dict[str, str]:
        """The state of each of this run's jobs: the queue's word, or accounting's for what has left the queue."""
        known: dict[str, str] = {}
        for command in (query_job_status_sacct(self.run_uuid), query_job_status_squeue(self.run_uuid)):
            async with self.status_rate_limiter:
                answer, _ = await query_job_status(command, self.logger)
            # "CANCELLED by 0" is accounting's way to say by whom
            known |= {job: state.split()[0] for job, state in (answer or {}).items() if state}
        return known

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **about: Any) -> None:
        """Report a failed job, and say why also where it is a group.

        Symptom: of a group's failure Snakemake prints its jobs and not the plugin's message, ``TIMEOUT`` for instance,
        or what sbatch refused. Upstream: snakemake #4248. Superfluous once a group's error is printed with its message.
        """
        if job_info.job.is_group() and msg:
            reason = " ".join(msg.partition("\n    sbatch call:")[0].split())
            self.logger.error(f"{job_info.job.groupid}: {reason}")
        super().print_job_error(job_info, msg, **about)

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel all of this run's jobs, listed or not, and submit no more.

        Symptom: on Ctrl-C the plugin cancels the jobs on its list, which is empty while it asks for their states, and
        then submits those that wait to be submitted. Upstream: no report found; #397 is another way in which jobs stay.
        Superfluous once it stops submitting first, and cancels by the run's name.
        """
        self.stopped.set()
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        command = ["scancel", f"--name={self.run_uuid}", f"--user={getpass.getuser()}"]
        if self._submitted_job_clusters:
            command.append("--clusters=all")
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            self.logger.error(f"SLURM did not cancel this run's jobs; the next run here will: {done.stderr.strip()}")
