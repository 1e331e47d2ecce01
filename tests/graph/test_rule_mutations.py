"""With any rule replaced by an element-wise one, a planted coupling is no longer found or a cut no longer proven.

A rule is replaced by one that treats its operator as if it computed each element from the elements at its place:
operands that fit the result's shape are united there, as ``pointwise`` does, and nothing is tied, mixed, assumed or
refused. An operand of another size gives the labels at the same index of each dimension, wrapped around at its end.
A rule for computed weights is replaced by the element-wise one of these.
"""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from cutback.errors import CutbackError
from cutback.graph.call import Call, Labels, Refused, Rule, literal_rules, rules, weight_rules
from cutback.graph.capture import operator_of
from cutback.graph.labels import compact
from cutback.graph.rules import factories, pointwise, sampling, weights
from tests.graph.couplings import COUPLINGS

EXEMPT: dict[Rule, str] = {
    pointwise.pointwise: "is the element-wise rule",
    weights.elementwise: "is the element-wise rule of computed weights",
    weights.expanded: "repeats elements at their place; literal sizes of weights are found by the search for sizes too",
    pointwise.same: "copies, which is element-wise",
    sampling.positions: "is read as positions, all of which stay, from whatever they are made",
    factories.unequal: "has no operands: nothing to be element-wise in, and the stand-in keeps its result as it does",
}


TABLES = (rules, weight_rules, literal_rules)


def elementwise(call: Call) -> Labels:
    """Unite what lies at one place of the operands, or give the first operand's labels in the result's shape."""
    operands = call.operands()

    def one(value: object) -> Labels:
        if isinstance(value, list | tuple):
            return [one(item) for item in value]
        if not isinstance(value, Tensor):
            return None
        fitting = [labels for labels in operands if _broadcasts(labels.shape, value.shape)]
        if fitting:
            return pointwise.paired(call, fitting, value.shape)
        return _wrapped(operands[0], value.shape) if operands else call.kept_result("has no operands")

    return one(call.values)


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape[::-1], to[::-1], strict=False))


def _wrapped(labels: Tensor, shape: torch.Size) -> Tensor:
    """Cut off or repeat labels along each dimension; of another rank they are passed on as they are."""
    if labels.dim() != len(shape):
        return labels
    for dimension, size in enumerate(shape):
        labels = labels.index_select(dimension, torch.arange(size) % labels.size(dimension))
    return compact(labels)


@cache
def functions() -> dict[Rule, tuple[str, ...]]:
    """Return every rule of every table with the operators it is registered for."""
    found: dict[Rule, list[str]] = {}
    for table in TABLES:
        for name in table:
            found.setdefault(table.get(name), []).append(name)
    return {rule: tuple(names) for rule, names in found.items()}


@cache
def users() -> dict[str, tuple[str, ...]]:
    """Return for each operator the planted couplings whose network calls it, those that call the fewest first."""
    called = {
        name: {operator_of(node) for capture in coupling.trace().captures for node in capture.nodes}
        for name, coupling in COUPLINGS.items()
    }
    ordered = sorted(called, key=lambda name: len(called[name]))
    operators = {operator for found in called.values() for operator in found}
    return {operator: tuple(name for name in ordered if operator in called[name]) for operator in operators}


def replace(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the element-wise rule in a rule's place in every table that holds it."""
    for table in TABLES:
        for name in list(table):
            if table.get(name) is rule:
                monkeypatch.setitem(table._entries, name, weights.elementwise if table is weight_rules else elementwise)


def noticed(check: Callable[[], None]) -> bool:
    """Whether a check fails in a way that a test reports."""
    try:
        check()
    except (AssertionError, CutbackError, Refused, RuntimeError, IndexError, ValueError):
        return True
    return False


@pytest.mark.parametrize(
    "rule",
    [rule for rule in functions() if rule not in EXEMPT],
    ids=lambda rule: f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}",
)
def test_a_rule_replaced_by_an_elementwise_one_is_noticed(rule: Rule, monkeypatch) -> None:
    operators = functions()[rule]
    suspects = list(dict.fromkeys(name for operator in operators for name in users().get(operator, ())))
    assert suspects, f"no planted coupling calls any of {operators}"
    replace(rule, monkeypatch)
    assert any(noticed(COUPLINGS[name].check) for name in suspects), suspects


def test_the_stand_in_changes_nothing_for_elementwise_operators(monkeypatch) -> None:
    for rule in EXEMPT:
        replace(rule, monkeypatch)
    for name in ("sum", "in-place rows", "squeeze-excite", "layer scale", "cat of a constant"):
        COUPLINGS[name].check()
