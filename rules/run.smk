# What happens before a run and after it: the checks of its files and devices, and what failed.
import sys
from pathlib import Path

from miaprune import grid, resume
from miaprune.config import ConfigError, check_device, check_files


def say_what_failed():
    """End with a line for each job that failed or was cut short: its setting, and the log to read."""
    if not workflow.scheduler.failed:  # the run was stopped
        return
    failed = [job for failed in workflow.scheduler.failed for job in (failed.jobs if failed.is_group() else [failed])]
    begun = [job for job in failed if any(Path(f"{log}.unfinished").exists() for log in job.log)]
    print(f"\n{len(workflow.scheduler.failed)} failed; the same command tries again. Read:", file=sys.stderr)
    for job in begun or failed:
        print(f"  {job.rule.name} {'/'.join(job.wildcards)}: {job.log[0]}", file=sys.stderr)


onsuccess:
    resume.forget_finished(RESULTS)


onerror:
    resume.forget_finished(RESULTS)
    say_what_failed()


onstart:
    needed = list(workflow.dag.needrun_jobs())
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
