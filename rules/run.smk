# What happens around a run: locks and jobs that a killed one left, what its files look like, what became of its jobs.
import contextlib
import fcntl
import gc
import getpass
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from multiprocessing import connection, get_context, resource_tracker
from pathlib import Path

import psutil
from snakemake.benchmark import benchmarked
from snakemake.common.workdir_handler import WorkdirHandler
from snakemake.dag import DAG
from snakemake.exceptions import WorkflowError
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.script import PythonScript
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from miaprune import grid, resume
from miaprune.config import ConfigError, check_device, check_files
from miaprune.job import run_fork


def forget_stale_lock():
    """Remove what a killed Snakemake left of its lock on this folder; return our own, held, and whether no other run is alive.

    Snakemake's lock is a file that outlives a kill -9; the kernel's lock does not, and tells whether anybody runs. Some
    file systems keep it to one machine: so a lock file that a run on another machine may have left stands.
    """
    folder, here = Path(".snakemake"), platform.node()
    folder.mkdir(exist_ok=True)
    alive = open(folder / "alive", "a+")
    alone = False
    try:
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alive.seek(0)
            locks = list(folder.glob("locks/*.lock"))
            if not locks or alive.read() in ("", here):
                for lock in locks:
                    lock.unlink()
                alive.truncate(0)
                alive.write(here)
                alive.flush()
                alone = True
        except BlockingIOError:
            pass  # somebody runs here: Snakemake's own lock stands
        fcntl.flock(alive, fcntl.LOCK_SH)
    except OSError:
        pass  # a file system without such locks: as if somebody ran
    return alive, alone


def started_in():
    """The folder that Snakemake was started in: it has changed to --directory since, and keeps in one object whence."""
    (handler,) = (thing for thing in gc.get_objects() if type(thing) is WorkdirHandler)
    return handler.olddir or Path.cwd()


STOPPED = threading.Event()
"""Set when the run is told to stop at once."""


def squeue(*options):
    """What SLURM's queue holds of this user's jobs: a line each, of ids and of what else ``options`` ask for."""
    command = ["squeue", "--noheader", f"--user={getpass.getuser()}", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")
    return done.stdout.splitlines()


def cancel_until_gone(left):
    """Cancel the jobs that ``left()`` finds in SLURM's queue until it finds none: a busy controller may not hear it at once."""
    while not STOPPED.is_set():
        with contextlib.suppress(subprocess.CalledProcessError):  # no answer: they may still be there
            if not (jobs := left()):
                return
            subprocess.run(["scancel", *jobs])
        STOPPED.wait(2)


def end_jobs_of_a_dead_run(needed):
    """Cancel what a killed Snakemake left in SLURM's queue for this folder, and wait until it is gone.

    Otherwise it would write the files that this run's jobs write. Training keeps its state, so little is lost. If
    another run is alive here, which then makes other files, only jobs that were submitted for the ``needed`` ones.
    Then plan anew: such a job may have written or removed files since this run was planned.
    """
    here = str(Path.cwd())
    submitted = set()  # a small file for each job: read only where it matters
    if not ALONE:
        submitted = {slurm_id for job in needed for slurm_id in workflow.persistence.external_jobids(job)}

    def left():
        # %Z, the working directory, comes last: it may hold spaces
        jobs = (line.split(maxsplit=2) for line in squeue("--format=%A %j %Z"))
        return [
            slurm_id
            for slurm_id, name, folder in jobs
            if name.startswith("miaprune_")
            and folder == here
            and (ALONE or slurm_id in submitted)
            and slurm_id != os.environ.get("SLURM_JOB_ID")  # this run itself
        ]

    if jobs := left():
        print(f"cancelling SLURM jobs of an earlier run that was killed here: {', '.join(jobs)}", file=sys.stderr)
        cancel_until_gone(left)
        sys.stdout.flush()
        workflow.persistence.unlock()  # a process that is replaced doesn't leave Snakemake's `with`
        os.chdir(started_in())  # its arguments are relative to it
        os.execv(sys.executable, sys.orig_argv)


def reevaluate_once(scheduler, delay):
    """Let Snakemake's scheduler look again after ``delay`` seconds, once.

    Snakemake 9 starts a timer whenever it has looked while jobs are ready, and looks again whenever one fires: every job
    that ends adds one more such circle, and a run of 540 jobs took 22 % of a core after half of them.
    """

    def fire():
        scheduler.reevaluation_due = False
        scheduler._open_jobs.release()

    if not getattr(scheduler, "reevaluation_due", False):
        scheduler.reevaluation_due = True
        timer = threading.Timer(delay, fire)
        timer.daemon = True
        timer.start()


def forget_when_finished(finish):
    """Snakemake's ``finish``, which also removes what the finished jobs kept: it would keep temporary checkpoints' space."""

    async def finish_and_forget(dag, job, *args, **options):
        news = await finish(dag, job, *args, **options)
        if not workflow.dryrun:
            for each in job.jobs if job.is_group() else [job]:
                if each.rule.name in ("train", "prune", "defend"):
                    resume.forget_outputs(RESULTS, each.output)
        return news

    return finish_and_forget


def keep_what_starts_from_originals(needed):
    """Snakemake's ``is_needed_tempfile``, for which no other targets exist than this run's.

    But without originals, what a later run makes of them would start with another training, and as that is newer than
    every setting of theirs, all of these would be made again.
    """

    def needed_by_any(dag, job, file, *args, **options):
        return needed(dag, job, file, *args, **options) or (
            job.rule.name == "train"
            and any(not any(map(os.path.exists, files)) for files in made_from_originals(*job.wildcards))
        )

    return needed_by_any


# One process imports torch, its forks run the scripts. Edits of the library do not reach a run that has begun.
FORKS = get_context("forkserver")
FORKING = threading.Lock()
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"  # no threads in the process that forks; jobs set torch's own number
# All of a run's processes import the library that this one has, and nothing that happens to lie in the working folder.
PATHS = [str(Path(resume.__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
os.environ.update(PYTHONSAFEPATH="1", PYTHONPATH=os.pathsep.join(dict.fromkeys(filter(None, PATHS))))
# What bin/snakemake runs, by a name that tells multiprocessing that no fork need run it again.
sys.modules["__main__"].__spec__ = importlib.util.find_spec("snakemake.__main__")


execute_script = PythonScript.execute_script


@cache
def networks_to_import():
    """torchvision's networks if a job of this run needs them: imported job by job, they cost each 2 s and more."""
    planned = {part for job in workflow.dag.needrun_jobs() for value in job.wildcards for part in value.split("/")}
    return ["torchvision.models"] if planned & set(grid.TORCHVISION_MODELS) else []


def run_in_fork(script, file, edit=False):
    """Snakemake's ``execute_script``, but in a fork of one process that has imported what the scripts import.

    Importing torch and ending a process that did takes 1.5 s of CPU, once now for all jobs of a run or a submission.
    """
    if len(tempfile.gettempdir()) > 70:  # that process's socket lies there, and the system allows it 107 characters
        return execute_script(script, file, edit)
    with FORKING:  # multiprocessing looks after all its processes whenever one starts or ends
        resource_tracker.ensure_running()  # it resets the signal mask when it starts
        FORKS.set_forkserver_preload(["miaprune.imports", *networks_to_import()])  # heeded when that process starts
        # SLURM tells all processes of a submission to stop: the forks may end their work, so the server has to stay
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            job = FORKS.Process(target=run_fork, args=(file,))
            job.start()
        except EOFError:
            raise WorkflowError("the process that imports what the jobs share has ended; why, it says above") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    started = time.time()
    with contextlib.ExitStack() as stack:
        if script.bench_record:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already
                stack.enter_context(benchmarked(job.pid, script.bench_record))
        connection.wait([job.sentinel])
    if script.bench_record and script.bench_record.running_time is None:
        script.bench_record.running_time = time.time() - started
    with FORKING:
        job.join()
    if job.exitcode:  # 255 also if the process that forks was killed
        raise subprocess.CalledProcessError(job.exitcode, file)


PATCHED = {DAG: ("is_needed_tempfile", "finish"), JobScheduler: ("_schedule_reevalutation", "exit_gracefully")}
for owner, name in ((owner, name) for owner, names in PATCHED.items() for name in names):
    if not hasattr(owner, name):
        sys.exit(f"error: this Snakemake has no {owner.__name__}.{name}; use the version in requirements.lock")
PythonScript.execute_script = run_in_fork
DAG.is_needed_tempfile = keep_what_starts_from_originals(DAG.is_needed_tempfile)
if "SLURM_JOB_ID" in os.environ and workflow.remote_exec:
    # What SLURM tells to stop it ends itself, a while later. A preempted submission that by then has done all its jobs
    # has succeeded; by itself Snakemake would start no further job, and fail.
    JobScheduler.exit_gracefully = lambda *_: None
if workflow.is_main_process:
    DAG.finish = forget_when_finished(DAG.finish)
    ALIVE, ALONE = forget_stale_lock()
    JobScheduler._schedule_reevalutation = reevaluate_once


def without_by_whom(query):
    """The SLURM plugin's query for its jobs' states, with sacct's "CANCELLED by 0" as the "CANCELLED" that it looks for.

    Otherwise it takes a cancelled job for one that still runs, and waits for ever.
    """

    async def asked(*arguments):
        if STOPPED.is_set():  # nothing is known, and no time to be lost by asking
            return {}, 0.0
        states, seconds = await query(*arguments)
        return states and {job: state.split()[0] for job, state in states.items() if state}, seconds

    return asked


NOT_NOW = ("Unable to contact slurm controller", "MaxSubmitJob", "GrpSubmitJob")
"""What sbatch says if the controller is not there, and if an association or a QOS takes no more jobs for the moment."""

NOT_ANSWERED = ("Socket timed out", "Zero Bytes were transmitted or received")
"""What it says if a busy controller has not answered in time, and may have taken the job all the same."""


def take_back(run, comment):
    """Cancel what SLURM has taken of the run's submission with this comment, by which the plugin says what it is to do."""

    def left():
        jobs = (line.partition(" ") for line in squeue(f"--name={run}", "--format=%A %k"))
        return [slurm_id for slurm_id, _, found in jobs if found == comment]

    cancel_until_gone(left)


def submitted_later(give_up):
    """The SLURM plugin's report of a failed submission, but for one that SLURM does not take just now.

    That is made again after a while: a failure would use up the job's attempts within seconds.
    """

    def reported(executor, job_info, message):
        comment = re.search(r" --comment ('[^']*'|\S+)", message)
        unanswered = comment and any(reason in message for reason in NOT_ANSWERED)
        if unanswered or any(reason in message for reason in NOT_NOW):
            print(f"SLURM takes no job just now, trying again: {message.splitlines()[0]}", file=sys.stderr)
            if not STOPPED.wait(20):
                if unanswered:  # or two jobs would write the same files
                    take_back(executor.run_uuid, comment[1].strip("'"))
                with contextlib.suppress(RuntimeError):  # the run is at its end
                    executor._job_submission_executor.submit(executor.run_job, job_info.job)
                    return
        give_up(executor, job_info, message)

    return reported


def saying_why(print_error):
    """Snakemake's report of a failed job, with the SLURM plugin's reason, which it leaves out where the job is a group."""

    def printed(executor, job_info, msg=None, **about):
        if job_info.job.is_group() and msg:
            reason = " ".join(msg.partition("\n    sbatch call:")[0].split())
            print(f"{job_info.job.groupid}: {reason}", file=sys.stderr)
        print_error(executor, job_info, msg, **about)

    return printed


def reported_of_groups(run_job):
    """The SLURM plugin's ``run_job``, whose report of what went wrong itself fails for a group: the run would wait for ever."""

    def run(executor, job):
        try:
            run_job(executor, job)
        except Exception as error:
            message = f"not submitted: {error.__context__ or error}"
            executor._report_job_error_threadsafe(SubmittedJobInfo(job), message)

    return run


def cancelled_by_name(cancel):
    """The SLURM plugin's ``cancel_jobs``, which also cancels the submissions that wait, and those that it doesn't know.

    While it asks for states, its list of jobs is empty; and that may take a day.
    """

    def cancel_all(executor, jobs):
        STOPPED.set()
        executor._job_submission_executor.shutdown(wait=False, cancel_futures=True)
        cancel(executor, jobs)
        subprocess.run(["scancel", f"--name={executor.run_uuid}", f"--user={getpass.getuser()}"])

    return cancel_all


def say_what_failed():
    """End with a line for each job that failed or was cut short: its setting, and the log to read."""
    if not workflow.scheduler.failed:  # the run was stopped
        return
    failed = [job for failed in workflow.scheduler.failed for job in (failed.jobs if failed.is_group() else [failed])]
    begun = [job for job in failed if any(Path(f"{log}.unfinished").exists() for log in job.log)]
    print(f"\n{len(workflow.scheduler.failed)} failed; the same command tries again. Read:", file=sys.stderr)
    for job in begun or failed:
        print(f"  {job.rule.name} {'/'.join(job.wildcards)}: {job.log[0]}", file=sys.stderr)


def forget_finished():
    """Forget what is kept of finished jobs, unless another run is alive here: its groups may yet fail, and need it."""
    try:
        fcntl.flock(ALIVE, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    except OSError:
        pass  # a file system without such locks
    resume.forget_finished(RESULTS)


onsuccess:
    forget_finished()


onerror:
    forget_finished()
    say_what_failed()


onstart:
    needed = list(workflow.dag.needrun_jobs())
    if SLURM := workflow.executor_plugin.name == "slurm":
        import snakemake_executor_plugin_slurm as plugin

        plugin.query_job_status = without_by_whom(plugin.query_job_status)
        plugin.Executor._report_job_error_threadsafe = submitted_later(plugin.Executor._report_job_error_threadsafe)
        plugin.Executor.print_job_error = saying_why(plugin.Executor.print_job_error)
        plugin.Executor.run_job = reported_of_groups(plugin.Executor.run_job)
        plugin.Executor.cancel_jobs = cancelled_by_name(plugin.Executor.cancel_jobs)
    if shutil.which("squeue"):
        try:
            end_jobs_of_a_dead_run(needed)
        except subprocess.CalledProcessError as error:
            if SLURM:
                sys.exit(f"error: SLURM does not answer: {error.stderr.strip()}")
    try:
        if workflow.local_exec:
            for device in {job.params.get("device") for job in needed}:
                check_device(device)
        check_files(
            RESULTS,
            DATA,
            [job.wildcards.dataset for job in needed if job.rule.name == "prepare"],
            {str(file) for job in needed for file in job.input}
            - {str(file) for job in needed for file in job.output},
            config["seed"],
        )
    except (ConfigError, grid.GridError, OSError) as error:
        sys.exit(f"error: {error}")
