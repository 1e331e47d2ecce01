"""What holds for every registered method; the tests are made from the registry, so that a new method cannot miss them.

A method brings ``tests/methods/<name>/case.py`` with ``CASES``: small ``cutback.testing.MethodCase``s by name.
"""

from functools import cache
from importlib import import_module, util

import pytest
import torch

import cutback
from cutback.methods import methods
from cutback.testing import CHECKS, MethodCase, Recorded
from cutback.testing.residue import same
from tests.methods.two_ranks import train_all
from tests.two_ranks import in_two_ranks

NAMES = list(methods)


def folder(name: str) -> str:
    return f"tests.methods.{name.replace('-', '_')}.case"


def cases() -> dict[str, tuple[str, MethodCase]]:
    """Return every case as ``method/case``; of a method that brings none, nothing."""
    found = {}
    for name in NAMES:
        if util.find_spec(folder(name).rpartition(".")[0]) and util.find_spec(folder(name)):
            given = import_module(folder(name)).CASES
            found |= {f"{name}/{case}": (name, given[case]) for case in given}
    return found


ALL = cases()


@cache
def recorded(case: str) -> Recorded:
    return Recorded(*ALL[case])


@pytest.mark.parametrize("name", NAMES)
def test_it_brings_a_case(name):
    assert any(case.startswith(f"{name}/") for case in ALL), f"write {folder(name)}"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_exported_by_its_class(name):
    entry = methods.get(name)
    assert getattr(cutback.methods, entry.__name__) is entry


@pytest.mark.parametrize("promise", CHECKS)
@pytest.mark.parametrize("case", ALL)
def test_it_keeps_the_promise(case, promise):
    CHECKS[promise](recorded(case))


@pytest.mark.slow
def test_two_ranks_make_the_same_cuts_and_have_the_same_weights(tmp_path):
    in_two_ranks(train_all, str(tmp_path), ALL)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert list(first) == list(ALL)
    for case, found in first.items():
        assert found["plan"] == second[case]["plan"], case
        assert same(found["weights"], second[case]["weights"]), case
        assert not same(found["seen"], second[case]["seen"]), "each rank has data of its own"
        assert found["finished"], case
        assert second[case]["finished"], case
