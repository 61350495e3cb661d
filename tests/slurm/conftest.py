"""The cluster, and runs on it and beside it."""

from concurrent.futures import ThreadPoolExecutor
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
    """Start an undisturbed run of targets on this machine; returns a function that waits for what comes out of it."""
    with ThreadPoolExecutor() as beside:

        def start(config, *targets):
            workflow = Workflow(tmp_path_factory.mktemp("local"), config)
            run = beside.submit(workflow.run, *targets)

            def wait():
                done = run.result()
                assert done.returncode == 0, done.stdout + done.stderr
                return results(workflow.folder)

            return wait

        yield start
