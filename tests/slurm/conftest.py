"""The cluster, and runs on it and beside it."""

from pathlib import Path

import cluster as slurm
import pytest
from oncluster import OnCluster, results
from runner import Workflow


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if lacking := slurm.missing():
        pytest.skip(f"needs a SLURM to bring up; not installed: {', '.join(lacking)}")
    started = slurm.Cluster(tmp_path_factory.mktemp("cluster")).start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def on_cluster(cluster, tmp_path_factory):
    made = []

    def make(config):
        made.append(OnCluster(cluster, tmp_path_factory.mktemp("slurm"), config).prepare())
        return made[-1]

    yield make
    for process in (process for on in made for process in on.started):
        process.kill()


@pytest.fixture(scope="module")
def locally(tmp_path_factory):
    """Run a target undisturbed on this machine; returns what came out of it."""

    def run(config, target):
        workflow = Workflow(tmp_path_factory.mktemp("local"), config)
        done = workflow.run(target)
        assert done.returncode == 0, done.stdout + done.stderr
        return results(workflow.folder)

    return run
