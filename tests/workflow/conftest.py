"""A working folder for the real workflow, and a finished run of the small grid."""

import fcntl

import pytest
from runner import Workflow, small_config


@pytest.fixture
def workflow(tmp_path):
    return Workflow(tmp_path, small_config())


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id):
    """A finished run of the small grid. Tests plan changes of it, and change nothing.

    All of pytest-xdist's workers copy the one that the first of them makes; to the others it is finished already.
    """
    own = tmp_path_factory.mktemp("finished")
    folder = (own if worker_id == "master" else own.parents[1]) / "made"
    folder.mkdir(exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = Workflow(folder, small_config())
        process = made.run("all")
        assert process.returncode == 0, process.stdout + process.stderr
        return made.copy(own / "copy")


@pytest.fixture
def trained(finished, tmp_path):
    """The finished run before it pruned anything: what is done with the original is there."""
    return finished.copy(tmp_path, without="results/digits/fc/l1_0.5")
