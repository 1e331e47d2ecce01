"""The checks themselves: a method that keeps every promise passes, and each broken one is found."""

import dataclasses

import pytest

from cutback.errors import ContractBroken
from cutback.methods import About, methods
from cutback.testing import CHECKS, MethodCase, Recorded, check_method
from tests.methods.toy.method import Toy, network

CASE = MethodCase(network, steps=4, settings={"interval": 3})
DEFECTS = {
    "never ends": ("finishes", "it has not finished after 4 steps"),
    "unlike runs": ("determinism", "run again, the model at the end is another"),
    "forgets its steps": ("resume", "resumed after step"),
    "forgets its factor": ("resume", "resumed after step"),
    "lends its tensor": ("resume", "what state_dict returned changed later"),
    "odd state": ("resume", "state_dict after step 0.* has the key 0"),
    "takes any state": ("misuse", "the state of another model is not refused"),
    "leaves its hook": ("no residue", "module 5: hooks"),
    "leaves its group": ("no residue", "optimiser group 1"),
    "leaves eval mode": ("no residue", "training was True, is False"),
    "draws": ("no residue", "random state of torch"),
    "unproven": ("proof", "it cuts without the proof"),
    "behind the back": ("proof", "its plan is not that of the cuts it made"),
    "cuts nothing": ("proof", "its About says cuts=True"),
    "over the budget": ("budget", r"macs=50% allows \d+, the model has \d+$"),
    "under the budget": ("budget", "one unit more of .* would fit"),
}


@pytest.fixture
def register(monkeypatch):
    """File a class as the method ``toy`` for the length of a test."""

    def file(entry):
        list(methods)  # filled
        monkeypatch.setitem(methods._entries, "toy", entry)
        return entry

    return file


def test_a_method_that_keeps_every_promise_passes(register):
    register(Toy)
    check_method("toy", CASE)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_broken_promise_is_found(defect, register):
    register(type("Toy", (Toy,), {"defect": defect, "__module__": Toy.__module__, "__doc__": Toy.__doc__}))
    promise, message = DEFECTS[defect]
    with pytest.raises(ContractBroken, match=message):
        CHECKS[promise](Recorded("toy", CASE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": ""}, "lacks title"),
        ({"year": 20}, "says year 20"),
        ({"budget": "often"}, "no such budget kind"),
        ({"needs": ("money",)}, "needs something unknown"),
        ({"trained": False}, "has not finished once attached"),
        ({"budget": "stops_below"}, None),
        ({"budget": "finds_width"}, "its case has a budget"),
    ],
)
def test_wrong_metadata_is_found(change, message, register):
    register(Toy)
    run = Recorded("toy", CASE)
    about: About = dataclasses.replace(Toy.about, **change)
    register(type("Toy", (Toy,), {"about": about, "__module__": Toy.__module__, "__doc__": Toy.__doc__}))
    if message is None:
        CHECKS["budget"](run)
        return
    promise = "finishes" if "trained" in change else "budget" if "case" in message else "metadata"
    with pytest.raises(ContractBroken, match=message):
        CHECKS[promise](run)


def test_a_summary_and_a_page_are_needed(register, monkeypatch):
    register(Toy)
    run = Recorded("toy", CASE)
    register(type("Toy", (Toy,), {"__module__": Toy.__module__, "__doc__": "no sentence"}))
    with pytest.raises(ContractBroken, match="docstring begins with 'no sentence'"):
        CHECKS["metadata"](run)
    register(type("Toy", (Toy,), {"__module__": "tests.helpers", "__doc__": Toy.__doc__}))
    with pytest.raises(ContractBroken, match=r"no README\.md beside tests\.helpers"):
        CHECKS["metadata"](run)
    register(Toy)
    monkeypatch.setattr("cutback.testing.methods.SECTIONS", ("Paper", "Weather"))
    with pytest.raises(ContractBroken, match=r"lacks the sections \['Weather'\]"):
        CHECKS["metadata"](run)
