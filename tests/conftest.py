"""Small inputs that tests share, and the switch for tests that need a GPU."""

import logging

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("loaded", deadline=None)  # a loaded machine is slow, not wrong
hypothesis.settings.load_profile("loaded")


def pytest_collection_modifyitems(items):
    # Files that take long come first, so that no worker waits for another's at the end; without --no-loadscope-reorder
    # pytest-xdist begins with those of many tests.
    items.sort(key=lambda item: not item.nodeid.startswith("tests/workflow/"))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def levels():
    """Programs set what is logged: put it back."""
    loggers = [logging.getLogger(name) for name in ("miaprune", "miaprune.attacks")]
    before = [(logger, logger.level, [*logger.handlers]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The bundled digits as a prepared dataset."""
    from miaprune.data import datasets

    path = tmp_path_factory.mktemp("digits") / "digits.safetensors"
    datasets.prepare("digits", path.parent, path)
    return datasets.load(path)


@pytest.fixture
def catalogue():
    """Forget what a test registers."""
    from miaprune import catalog

    before = [dict(table) for table in catalog._ALL]
    yield
    for table, names in zip(catalog._ALL, before, strict=True):
        table.clear()
        table.update(names)
