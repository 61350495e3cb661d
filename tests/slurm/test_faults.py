"""One run after another on the cluster in which everything goes wrong that does, and what comes out in the end."""

import itertools
import os
import re
import signal
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from cluster import ClusterError, wait_for
from oncluster import OnCluster, results
from runner import small_config

POISONED = "digits/fc/l1_0.9"
# Added to the folder's copy of the library: a setting that always fails.
FAILING = """

_healthy = l1


def l1(model, sparsity):
    import pathlib

    if sparsity == 0.9 and pathlib.Path("poisoned").exists():
        raise ValueError("poisoned")
    _healthy(model, sparsity)
"""
# And a fine-tuning that saves its state in its third epoch and goes no further while the file `held` is there: however
# fast the machine, a fault finds it at work. It takes too much memory if it is told to.
HOLDING = """

_step, _steps = Slot.step, 0


def _holding(self, state):
    from pathlib import Path

    global _steps
    _steps += 1
    _step(self, state)
    held, hungry = Path("held"), Path(f"hungry.{os.environ.get('SLURM_JOB_ID')}")
    if _steps == 10 and "original" not in self.path.parts and held.exists():
        self.states.save()
        logger.info("held")
        while held.exists():
            if self.states.told:
                _step(self, state)
            if hungry.exists():
                memory = bytearray(int(hungry.read_text()) << 20)
            time.sleep(0.1)


Slot.step = _holding
"""
LONG = 600  # seconds that a loaded machine may take over a step of this story


TARGETS = ("attacks", "defenses")


def config():
    """Four settings and a defended one, fine-tuned for longer than all attempts together are let go on."""
    small = small_config() | {"sparsities": [0.5, 0.6, 0.7, 0.9], "attacks": ["conf"]}
    small["parts"] = {"one": {"sparsities": [0.7]}}
    small["defenses"] = [{"defense": "ppb", "strengths": [4], "part": "one", "adversaries": ["adaptive", "unaware"]}]
    small["finetuning"] = small["finetuning"] | {"epochs": {"image": 50, "table": 2}, "patience": 50}
    return small


@dataclass
class Story:
    """What was done to the run, and what it said."""

    on: OnCluster
    struck: dict = field(default_factory=dict)  # fault: SLURM's numbers of the jobs that it befell
    strikes: dict = field(default_factory=lambda: defaultdict(int))  # by setting
    output: dict = field(default_factory=dict)  # of the runs, by name
    drained: tuple = ()

    def held(self):
        """The running jobs that are held in fine-tuning, the least struck first: (SLURM's number, setting)."""
        lines = self.on.cluster.run("squeue", "-h", "-t", "R", "-o", "%A %Z %k").splitlines()
        jobs = []
        for line in lines:
            job, folder, comment = line.split(maxsplit=2)
            setting = re.match(r"rule_(.*?)_attack_.*prune_(?:scores_)?signals", comment)
            if folder == str(self.on.folder) and setting and " held\n" in self.attempt(job, setting[1]):
                jobs.append((job, setting[1]))
        return sorted(jobs, key=lambda job: self.strikes[job[1]])

    def attempt(self, job, setting):
        """What the log of an unfinished fine-tuning says of this job since it last started."""
        log = self.on.folder / "results/logs" / setting / "prune.log.unfinished"
        _, started, said = (log.read_text() if log.exists() else "").rpartition(f"SLURM job {job}\n")
        return said if started else ""

    def victims(self, fault, count=1, but=()):
        """Wait for held jobs, and choose as many for a fault."""

        def enough():
            found = [(job, setting) for job, setting in self.held() if job not in but]
            return len(found) >= count and found

        jobs = wait_for(enough, f"{fault}: nobody to befall", LONG)
        for _, setting in jobs[:count]:
            self.strikes[setting] += 1
        self.struck[fault] = [job for job, _ in jobs[:count]]
        return self.struck[fault]

    def script(self, job):
        """The process of the job's script, as its log has it."""
        for log in self.on.folder.glob("results/logs/**/prune.log.unfinished"):
            if found := re.findall(rf", process (\d+), SLURM job {job}$", log.read_text(), flags=re.M):
                return int(found[-1])
        return None

    def state(self, job):
        return {row["State"].split()[0] for row in self.on.jobs() if row["JobIDRaw"] == job}

    def wait_for_state(self, job, states):
        wait_for(lambda: self.state(job) & states, f"job {job} does not become {states}", LONG)


def tell(story):
    on, cluster = story.on, story.on.cluster
    (on.folder / "poisoned").touch()
    (on.folder / "held").touch()

    killed = on.start(*TARGETS, log="killed.log")
    story.victims("its Snakemake killed", 2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    story.output["locked"] = on.run(*TARGETS, log="locked.log")
    assert on.run("--unlock", log="unlock.log")[0] == 0
    run = on.start(*TARGETS)
    wait_for(lambda: "has been submitted" in on.said(), "nothing submitted", LONG)  # the dead run's jobs are gone

    (cancelled,) = story.victims("cancelled")
    cluster.run("scancel", cancelled)
    (job,) = story.victims("killed")
    os.kill(wait_for(lambda: story.script(job), "no script"), signal.SIGKILL)
    story.wait_for_state(job, {"FAILED"})
    wait_for(lambda: on.submitted_again(cancelled), "the cancelled job is not submitted again", LONG)

    (job,) = story.victims("over its memory")
    asked = next(int(row["ReqMem"].rstrip("M")) for row in on.jobs() if row["JobIDRaw"] == job)
    run.send_signal(signal.SIGSTOP)  # it is to learn of this only when it cannot submit the job again
    (on.folder / f"hungry.{job}").write_text(str(asked))  # and it has some already
    story.wait_for_state(job, {"FAILED", "OUT_OF_MEMORY", "CANCELLED"})

    story.victims("slurmctld and slurmdbd restarted")
    for daemon in ("slurmctld", "slurmdbd"):
        cluster.stop_daemon(daemon)
    run.send_signal(signal.SIGCONT)
    before = cluster.asked()
    wait_for(lambda: cluster.asked() > before + 2, "Snakemake does not ask for its jobs", LONG)
    cluster.start_daemon("slurmdbd")
    wait_for(lambda: "takes no job just now" in on.said(), "no submission put off", LONG)
    cluster.start_daemon("slurmctld")

    story.victims("preempted")
    urgent = cluster.run("sbatch", "--parsable", "-p", "urgent", "--gres=gpu:2", "-o", "/dev/null", "--wrap", "sleep 1")
    wait_for(
        lambda: "COMPLETED" in cluster.run("sacct", "-Xn", "-j", urgent.strip(), "-o", "State"), "urgent job", LONG
    )

    (job,) = story.victims("over its time limit")
    os.kill(wait_for(lambda: story.script(job), "no script"), signal.SIGSTOP)  # hangs
    cluster.run("scontrol", "update", f"jobid={job}", "timelimit=1")
    story.victims("drained", but=[job])
    node = cluster.run("sinfo", "-hN", "-o", "%N").split()[0]
    since = cluster.run("date", "+%Y-%m-%dT%H:%M:%S").strip()
    cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    (on.folder / "held").unlink()
    wait_for(lambda: not cluster.run("squeue", "-h", "-t", "R,CG").strip(), "node not drained", LONG)
    story.drained = since, cluster.run("date", "+%Y-%m-%dT%H:%M:%S").strip()
    cluster.run("scontrol", "update", f"nodename={node}", "state=resume")

    story.output["status"] = run.wait()
    story.output["run"] = on.said()
    story.output["without the poisoned"] = results(on.folder)

    (on.folder / "poisoned").unlink()
    (on.folder / "held").touch()
    for fault in ("unanswered", "unreadable"):
        (cluster.folder / fault).touch()
    again = on.start(*TARGETS, log="again.log")
    wait_for(lambda: "takes no job just now" in on.said("again.log"), "not refused", LONG)
    taken = (cluster.folder / "taken").read_text().strip()
    story.struck["taken without an answer"] = [taken]
    story.wait_for_state(taken, {"CANCELLED"})  # before it can end by itself
    (on.folder / "held").unlink()
    story.output["status again"] = again.wait()
    story.output["again"] = on.said("again.log")


@pytest.fixture(scope="module")
def story(on_cluster, undisturbed):
    on = on_cluster(config())
    on.add("networks/pruning", FAILING)
    on.add("training/resume", HOLDING)
    story = Story(on)
    try:
        tell(story)
    except ClusterError as error:
        log = on.folder / "run.log"
        error.add_note(f"Snakemake said last:\n{log.read_text()[-3000:] if log.exists() else 'nothing'}")
        raise
    return story


@pytest.fixture(scope="module")
def undisturbed(locally):
    return locally(config(), *TARGETS)


def test_all_others_finish_and_the_summary_names_the_poisoned_setting_and_its_log(story, undisturbed):
    assert story.output["status"] == 1
    end = story.output["run"].rpartition("the same command tries again")[2]
    assert re.findall(r"^  (results/logs/\S+)$", end, flags=re.M) == [f"results/logs/{POISONED}/prune.log"]
    attacks = {name for name in undisturbed() if re.fullmatch(r"digits/.*\.json", name)}
    healthy = {name for name in attacks if POISONED not in name}
    assert healthy and healthy == {
        n for n in story.output["without the poisoned"] if re.fullmatch(r"digits/.*\.json", n)
    }


def test_the_same_command_finishes_with_an_undisturbed_runs_bytes(story, undisturbed):
    assert story.output["status again"] == 0, story.output["again"]
    found, expected = results(story.on.folder), undisturbed()
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def test_after_a_kill_snakemake_says_that_the_folder_is_locked_and_how_to_go_on(story):
    status, output = story.output["locked"]
    assert status != 0 and "--unlock" in output


@pytest.mark.parametrize(
    "fault, states",
    [
        ("its Snakemake killed", {"CANCELLED"}),
        ("cancelled", {"CANCELLED"}),
        ("killed", {"FAILED"}),
        ("over its time limit", {"TIMEOUT"}),
        ("over its memory", {"FAILED", "OUT_OF_MEMORY", "CANCELLED"}),
    ],
)
def test_a_fault_ends_its_job_and_another_goes_on_from_its_state(story, fault, states):
    jobs = story.on.jobs()
    for number in story.struck[fault]:
        *_, struck = [job for job in jobs if job["JobIDRaw"] == number]  # it may have been preempted before
        assert struck["State"].split()[0] in states
        later = [j for j in jobs if j["Comment"] == struck["Comment"] and int(j["JobIDRaw"]) > int(number)]
        assert later and later[-1]["State"] == "COMPLETED"
        assert all(job["Start"] >= struck["End"] for job in later)
        setting = re.match(r"rule_(.*?)_attack", struck["Comment"])[1]
        log = (story.on.folder / f"results/logs/{setting}/prune.log").read_text()
        assert "resumes in epoch" in log or "finished by an earlier attempt" in log
        if fault != "its Snakemake killed":
            says = rf"^{setting}: SLURM-job '{number}' failed, SLURM status is: '({'|'.join(states)})'"
            assert re.search(says, story.output["run"], flags=re.M)
    if fault == "over its memory":
        assert int(later[0]["ReqMem"].rstrip("M")) > int(struck["ReqMem"].rstrip("M"))


def test_a_job_that_was_taken_without_an_answer_is_cancelled_before_it_is_submitted_again(story):
    (number,) = story.struck["taken without an answer"]
    taken, *others = [job for job in story.on.jobs() if int(job["JobIDRaw"]) >= int(number)]
    (later,) = [job for job in others if job["Comment"] == taken["Comment"]]
    assert taken["JobIDRaw"] == number and taken["State"].split()[0] == "CANCELLED"
    assert later["State"] == "COMPLETED" and later["Start"] >= taken["End"]
    assert "Socket timed out" in story.output["again"]


def test_a_submission_that_fails_within_the_plugin_is_a_failed_attempt(story):
    assert len(re.findall(r"Not submitted: .*Thank you", story.output["again"])) == 1


def test_a_preempted_job_is_requeued_and_not_submitted_again(story):
    (number,) = story.struck["preempted"]
    states = [job["State"] for job in story.on.jobs() if job["JobIDRaw"] == number]
    assert states in (
        ["PREEMPTED", "COMPLETED"],
        ["PREEMPTED", "TIMEOUT"],
    )  # the fault that comes next may befall it too


def test_a_restart_of_the_daemons_loses_no_job(story):
    (number,) = story.struck["slurmctld and slurmdbd restarted"]
    states = [job["State"].split()[0] for job in story.on.jobs() if job["JobIDRaw"] == number]
    also = {"TIMEOUT"} if number in story.struck["over its time limit"] else set()
    assert states and set(states) <= {"COMPLETED", "PREEMPTED"} | also  # preemption takes all GPUs, and so both jobs


def test_nothing_starts_on_a_drained_node_and_what_runs_there_ends(story):
    since, until = story.drained
    assert not [job for job in story.on.jobs() if since < job["Start"] < until]
    (number,) = story.struck["drained"]
    assert story.state(number) <= {"COMPLETED", "PREEMPTED"}


def test_no_setting_was_ever_run_by_two_jobs_at_a_time(story):
    attempts = defaultdict(list)
    for job in story.on.jobs():
        if "None" not in job["Start"] and "Unknown" not in job["Start"]:
            attempts[job["Comment"]].append((job["Start"], job["End"]))
    assert len(attempts) > 6  # those settings, the original and the data
    for spans in attempts.values():
        spans.sort()
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
