"""The catalogue: every built-in name leads to what it says, and a function gets what its parameters are named after."""

import inspect
from functools import partial

import pytest

from miaprune import catalog
from miaprune.attacks.base import Attack
from miaprune.catalog import ATTACKS, DATASETS, DEFENSES, MODELS, PRUNERS
from miaprune.entries import GridError, called


def parameters(entry):
    return set(inspect.signature(entry.target).parameters)


def test_every_built_in_name_leads_to_what_takes_the_arguments_that_it_is_given():
    assert all(parameters(entry) <= {"name", "folder"} for entry in DATASETS.values())
    assert all(parameters(entry) == {"input_shape", "classes"} for entry in MODELS.values())
    assert {name for name, entry in PRUNERS.items() if "records" in parameters(entry)} == {"wanda"}
    assert all({"model", "sparsity"} <= parameters(entry) for entry in PRUNERS.values())
    assert all("strength" in parameters(entry) for entry in DEFENSES.values())
    assert all(isinstance(entry.target, Attack) for entry in ATTACKS.values())
    assert catalog.files_of(entry for table in catalog._ALL for entry in table.values()) == []


def test_families_hold_every_attack_once_and_one_kind_each():
    families = catalog.families()
    assert sorted(name for members in families.values() for name in members) == sorted(ATTACKS)
    for members in families.values():
        assert len({(ATTACKS[name].sees, ATTACKS[name].network) for name in members}) == 1
    assert list(families) == ["samia", "nn", "cheap", "reference"]


def test_small_images_do_not_go_into_networks_for_large_ones():
    assert catalog.takes("cnn", "digits") and catalog.takes("fc", "digits") and catalog.takes("vgg16", "svhn")
    assert not catalog.takes("resnet18", "digits") and not catalog.takes("fc", "svhn")


def test_a_function_gets_what_its_parameters_name():
    def some(b, *rest, a=0, **more):
        return a, b, rest, more

    assert called("some", some, {"a": 1, "b": 2, "c": 3}) == (1, 2, (), {})
    assert called("some", some, {"b": 2, "c": 3}) == (0, 2, (), {})
    assert called("some", partial(some, 5), {"a": 1}) == (1, 5, (), {})
    assert called("none", lambda: "it", {"a": 1}) == "it"
    with pytest.raises(GridError, match=r"^some: its parameter 'b' is none of a, c$"):
        called("some", some, {"a": 1, "c": 3})
