"""A working folder for the real workflow, and a finished run of the small grid."""

import pytest
from runner import Workflow, small_config


@pytest.fixture
def workflow(tmp_path):
    return Workflow(tmp_path, small_config())


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of the small grid. Tests plan changes of it, and change nothing."""
    done = Workflow(tmp_path_factory.mktemp("finished"), small_config())
    process = done.run("all")
    assert process.returncode == 0, process.stdout + process.stderr
    return done
