"""The public names: what `from miaprune import ...` gives, and what it does not wait for."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import miaprune


def imported(code):
    """Which heavy packages a fresh interpreter has loaded after ``code``."""
    code += "\nimport sys; print(*({'torch', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


PLANS = """
import sys; sys.path.insert(0, "workflow")
import configuration
config = {}
configuration.read(config)
from miaprune import grid
assert len(grid.settings(config)) == 270
"""


@pytest.mark.parametrize(
    "code",
    [
        "import miaprune",
        "from miaprune import grid",
        "from miaprune import Setting, GridError, ROLES",
        "from miaprune import attack, dataset, defense, model, pruner",
        PLANS,
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    assert imported(code) == []


def test_a_name_that_needs_torch_imports_it():
    assert "torch" in imported("from miaprune import build_model")


def test_every_public_name_is_what_type_checkers_are_told():
    """The block under TYPE_CHECKING and the table behind `__getattr__` say the same."""
    tree = ast.parse(Path(miaprune.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(told) == set(miaprune.__all__)
    for public, (module, name) in told.items():
        there = import_module(f"{module}.{name}") if module == "miaprune" else getattr(import_module(module), name)
        assert getattr(miaprune, public) is there, public


def test_public_names_are_listed_and_others_are_refused():
    assert set(miaprune.__all__) <= set(dir(miaprune))
    with pytest.raises(AttributeError, match="no attribute 'measur'"):
        _ = miaprune.measur


def test_every_public_function_and_class_is_documented():
    for name in miaprune.__all__:
        found = getattr(miaprune, name)
        if callable(found):
            assert found.__doc__ and found.__module__.startswith("miaprune"), name
