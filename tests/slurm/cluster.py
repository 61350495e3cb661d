"""A whole SLURM cluster of one node on this machine, in a folder of its own and on loopback ports of its own.

    eval "$(python tests/slurm/cluster.py up FOLDER)"   # waits until jobs can run; then sbatch, squeue, ... use it
    python tests/slurm/cluster.py down FOLDER

`up` starts munge, MariaDB, slurmdbd, slurmctld and slurmd.
Nothing outside FOLDER is read or written, and only processes that `up` started are stopped. The node has two GPUs as
far as SLURM can tell: two plain files. Debian: apt-get install slurm-wlm slurmdbd munge mariadb-server.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacctmgr")
DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd")  # in the order in which they start
READY_SECONDS = 120  # a loaded machine is slow, not broken
CPUS, MEMORY_MB, GPUS = 8, 32000, 2  # what SLURM is told, whatever the machine has

SLURM_CONF = """
ClusterName=miaprune
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld_port}
SlurmdPort={slurmd_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job waits for cred_expire: 2 minutes if it is not said.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid.own
SlurmdPidFile={folder}/slurmd.pid.own
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ReturnToService=2
MpiDefault=none
# No control groups needed.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
# A job that holds more memory than it asked for is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd_port}
# How to reach munge when talking to slurmdbd.
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait={kill_wait}
OverTimeLimit=0
# What has ended stays known to squeue for as long as the tests may ask.
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES PriorityTier=1 DefMemPerCPU=1000 MaxTime=UNLIMITED GraceTime={kill_wait}
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF DefMemPerCPU=1000 MaxTime=UNLIMITED
"""

SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={slurmdbd_port}
SlurmUser={user}
PidFile={folder}/slurmdbd.pid.own
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadbd_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""

KILL_WAIT = 10  # seconds between SIGTERM and SIGKILL


class ClusterError(RuntimeError):
    """The cluster did not come up, or a command on it failed."""


def missing():
    """The programs of SLURM that this machine lacks."""
    return [program for program in PROGRAMS if shutil.which(program, path=search_path()) is None]


def search_path():
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def free_ports(count):
    """That many loopback ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(condition, what, seconds=READY_SECONDS, every=0.5):
    """Wait until ``condition()`` is true and return its value; raise after ``seconds``."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise ClusterError(f"{what}: not within {seconds} s")
        time.sleep(every)
    return value


class Cluster:
    """The cluster whose files lie in ``folder``; `start` and `stop` may be called from different processes."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()

    @property
    def environment(self):
        """What commands on this cluster need in their environment."""
        return os.environ | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder}/bin:{search_path()}",
        }

    def run(self, *command, check=True):
        """Run a SLURM command on this cluster; returns what it printed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self):
        """Write the configuration, start every daemon and wait until the node takes jobs."""
        if lacking := missing():
            raise ClusterError(f"not installed: {', '.join(lacking)}")
        for name in (".", "state", "spool", "database"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self.configure()
        try:
            for daemon in DAEMONS:
                self.start_daemon(daemon)
            self.run("sacctmgr", "-i", "add", "account", "tests")
            self.run("sacctmgr", "-i", "add", "user", getpass.getuser(), "account=tests")
            wait_for(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T", check=False), "slurmd: no idle node")
        except BaseException:
            self.stop()
            raise
        return self

    def configure(self):
        names = ("mariadbd_port", "slurmdbd_port", "slurmctld_port", "slurmd_port")
        values = dict(zip(names, map(str, free_ports(len(names))), strict=True)) | {
            "folder": self.folder, "host": socket.gethostname().split(".")[0], "user": getpass.getuser(),
            "cpus": CPUS, "memory": MEMORY_MB, "gpus": GPUS, "kill_wait": KILL_WAIT,
        }  # fmt: skip
        cards = [self.folder / f"gpu{i}" for i in range(GPUS)]
        for card in cards:
            card.touch()
        files = {
            "slurm.conf": SLURM_CONF.format(**values),
            "slurmdbd.conf": SLURMDBD_CONF.format(**values),
            "gres.conf": "".join(f"Name=gpu File={card}\n" for card in cards),
            "mariadbd_port": values["mariadbd_port"],
            "slurmdbd_port": values["slurmdbd_port"],
        }
        for name, text in files.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o600 if name == "slurmdbd.conf" else 0o644)
        (self.folder / "bin").mkdir(exist_ok=True)
        own = {name: shutil.which(name, path=search_path()) for name in ("srun", "sacct", "sbatch")}
        scripts = {  # in front of SLURM's own
            # Snakemake's executor clears SLURM_* before it calls srun, and so would lose SLURM_CONF.
            "srun": f"SLURM_CONF={self.folder}/slurm.conf",
            "sacct": f"echo >> {self.folder}/asked;",
            # As of a busy controller, which takes the next job, but whose answer does not arrive; or none can be read.
            "sbatch": f'if rm {self.folder}/unanswered 2> /dev/null; then {own["sbatch"]} "$@" > {self.folder}/taken; '
            "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1;"
            f"fi; if rm {self.folder}/unreadable 2> /dev/null; then echo 'Thank you.'; exit 0; fi;",
        }
        for name, first in scripts.items():
            script = self.folder / "bin" / name
            script.write_text(f'#!/bin/sh\n{first} exec {own[name]} "$@"\n')
            script.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)

    def start_daemon(self, name):
        """Start one daemon and wait until it answers."""
        folder = self.folder
        commands = {
            "munged": ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key",
                       f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid.own",
                       f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"],
            "mariadbd": ["mariadbd", "--no-defaults", f"--datadir={folder}/database", "--bind-address=127.0.0.1",
                         f"--port={self.read('mariadbd_port')}", f"--socket={folder}/mariadb.socket",
                         f"--pid-file={folder}/mariadbd.pid.own", f"--user={getpass.getuser()}",
                         "--innodb-buffer-pool-size=64M"],
            "slurmdbd": ["slurmdbd", "-D"],
            "slurmctld": ["slurmctld", "-D", "-i"],
            "slurmd": ["slurmd", "-D"],
        }  # fmt: skip
        ready = {
            "munged": lambda: (folder / "munge.socket").exists(),
            "mariadbd": self.database_answers,
            "slurmdbd": lambda: (
                self.listens("slurmdbd_port") and self.run("sacctmgr", "-n", "list", "cluster") is not None
            ),
            "slurmctld": lambda: "is UP" in self.run("scontrol", "ping", check=False),
            "slurmd": lambda: (folder / "slurmd.pid.own").exists(),
        }
        if name == "mariadbd" and not (folder / "database/mysql").exists():
            self.run("mariadb-install-db", "--no-defaults", f"--datadir={folder}/database", "--skip-test-db",
                     f"--user={getpass.getuser()}", "--auth-root-authentication-method=normal")  # fmt: skip
        environment = self.environment | ({"SLURM_CONF": f"{folder}/slurmdbd.conf"} if name == "slurmdbd" else {})
        with open(folder / f"{name}.out", "a") as out:
            process = subprocess.Popen(
                commands[name], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, cwd=folder,
            )  # fmt: skip
        (folder / f"{name}.pid").write_text(f"{process.pid} {started(process.pid)}")

        def up():
            if process.poll() is not None:
                raise ClusterError(f"{name} ended: {(folder / f'{name}.out').read_text()[-1000:]}")
            return ready[name]()

        wait_for(up, f"{name} does not answer")
        if name == "mariadbd":
            self.sql("create database if not exists slurm_acct")
            self.sql("grant all on slurm_acct.* to 'slurm'@'127.0.0.1' identified by 'slurm'")
            self.sql("grant all on slurm_acct.* to 'slurm'@'localhost' identified by 'slurm'")

    def stop_daemon(self, name, how=signal.SIGTERM):
        """Stop one daemon that `start_daemon` started, and wait until it is gone."""
        file = self.folder / f"{name}.pid"
        if not file.exists():
            return
        pid, since = map(int, file.read_text().split())
        alive = lambda: started(pid) == since  # noqa: E731  (the number may be another process's by now)
        if alive():
            os.kill(pid, how)
            try:
                wait_for(lambda: not alive(), f"{name} does not end", 30)
            except ClusterError:
                os.kill(pid, signal.SIGKILL)
        file.unlink()

    def asked(self):
        """How often anybody has asked accounting for jobs."""
        file = self.folder / "asked"
        return len(file.read_text()) if file.exists() else 0

    def stop(self):
        """Cancel what still runs and stop every daemon, the last started first."""
        if (self.folder / "slurmctld.pid").exists():
            self.run("scancel", "--user", getpass.getuser(), check=False)
            with contextlib.suppress(ClusterError):
                wait_for(lambda: not self.run("squeue", "-h", check=False).strip(), "jobs do not end", 3 * KILL_WAIT)
        for daemon in reversed(DAEMONS):
            self.stop_daemon(daemon)

    def read(self, name):
        return (self.folder / name).read_text().strip()

    def listens(self, port_file):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", int(self.read(port_file)))) == 0

    def sql(self, statement):
        return self.run(
            "mariadb", "--no-defaults", f"--socket={self.folder}/mariadb.socket", "-u", "root", "-e", statement
        )

    def database_answers(self):
        return (self.folder / "mariadb.socket").exists() and self.listens("mariadbd_port")


def started(pid):
    """When the process started, in the kernel's ticks; 0 if there is none (or only its remains)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["up", folder]:
            try:
                cluster = Cluster(folder).start()
            except ClusterError as error:
                sys.exit(f"error: {error}")
            print(f"export SLURM_CONF={cluster.folder}/slurm.conf PATH={cluster.folder}/bin:$PATH")
        case ["down", folder]:
            Cluster(folder).stop()
        case _:
            sys.exit(__doc__)
