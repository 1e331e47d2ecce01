"""Attributes that hold widths, and numbers that stand in the way of a cut: all found without running anything."""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, fx

from cutback.graph.attributes import held_value
from cutback.graph.capture import module_path, operator_of
from cutback.graph.equal import EqualWidths, WrittenAt, equally_long
from cutback.graph.graph import Followed, Graph
from cutback.graph.implied import Implied
from cutback.graph.labels import Boundary
from cutback.graph.origins import Formula, Held, Origin, SizeOf, evaluated, leaves
from cutback.graph.probes import probes
from cutback.graph.replay import KeptLabels
from cutback.graph.second_pass import kept_labels
from cutback.graph.sizes import LabelsOf, Width
from cutback.graph.sources import source_line
from cutback.graph.uses import Prunable, Use, current_value, of_capture, source_text, uses_of


@dataclass
class Findings:
    """What the numbers in a model's calls ask of a cut.

    Attributes:
        followed: attributes that hold widths.
        refused: calls that no attribute can make follow, with the reason.
        held: calls whose channels stay because their width is computed with.
        literal: calls with a size of unknown origin that will not follow by itself, with the reason.
        equal: sizes that the code takes from another tensor, so that two widths would have to stay equal.
        scaled: whether a number changes with a width that parameters must make up for.
        compared: whether the code compares a size that can shrink, so that its path may depend on it.
    """

    followed: tuple[Followed, ...] = ()
    refused: dict[fx.Node, str] = field(default_factory=dict)
    held: dict[fx.Node, Boundary] = field(default_factory=dict)
    literal: dict[fx.Node, str] = field(default_factory=dict)
    equal: list[EqualWidths] = field(default_factory=list)
    scaled: bool = False
    compared: bool = False


def follow(graph: Graph) -> Findings:
    """Find out which attributes follow a cut, and which numbers cannot.

    Args:
        graph: a traced model.
    """
    return _Search(graph).run()


class _Search:
    """One look at all numbers of a traced model."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._prunable = graph, Prunable(graph)
        self._uses = uses_of(graph, self._prunable)
        self._implied = Implied(graph)
        self._widths: dict[Held, Width] = {}
        self._places: dict[Held, WrittenAt | SizeOf] = {}  # where the width an attribute follows is found
        self._found = Findings()

    @cached_property
    def _probes(self) -> list[KeptLabels]:
        """The labels that stay under each probe; a model without numbers to look at needs none."""
        return [kept_labels(self._graph, probe) for probe in probes(self._graph)]

    def run(self) -> Findings:
        """Return what was found."""
        direct: dict[Held, list[Use]] = {}
        for use in self._uses:
            if isinstance(use.origin, Held):
                direct.setdefault(use.origin, []).append(use)
        for held, uses in direct.items():
            self._settle(held, uses)
        self._compare()
        for use in self._uses:
            if isinstance(use.origin, Formula) and use.width is not None:
                self._solve(use)
        for use in self._uses:
            self._check(use)
        self._found.scaled = any(use.made_up and not self._same_everywhere(use) for use in self._uses)
        self._found.followed = tuple(self._followed())
        return self._found

    def _settle(self, held: Held, uses: Sequence[Use]) -> None:
        """Let an attribute follow the one width it holds, or refuse where it holds several things."""
        live = [use for use in uses if use.width is not None]
        if not live:
            return
        widths = [use.width for use in live if use.width is not None]
        shrinks = [self._shrinks(width) for width in widths]
        if not any(shrinks):
            return  # a number of heads, for instance, which a cut leaves alone
        still = [use for use, less in zip(live, shrinks, strict=True) if not less]
        other = next(iter([*(use for use in uses if use.fixed), *still]), None)
        alike = all(self._implied.equal(width, widths[0]) for width in widths[1:])
        if other is not None:
            where = f"{operator_of(other.node)}{source_text(other.node)}"
            why = f"holds this width and is also the {other.argument} of {where}"
        elif not alike:
            why = "holds the widths of different channels"
            self._found.equal += [EqualWidths(_place(use), _place(live[0])) for use in live[1:]]
        else:
            self._widths[held] = widths[0]
            self._places[held] = _place(live[0])
            return
        for use in live:
            self._refuse(use, f"has the size {use.value} from the attribute {_spelled(held)}, which {why}")

    def _compare(self) -> None:
        """Let attributes follow the sizes they are compared with."""
        for capture in self._graph.captures:
            labels = of_capture(self._graph, capture)
            for pair in capture.compared:
                for one, other in (pair, pair[::-1]):
                    width = labels.width(one.node, one.dimension) if isinstance(one, SizeOf) else None
                    if width is None or not self._prunable(width):
                        continue
                    self._found.compared = True
                    if not isinstance(other, Held) or self._fixed(other):
                        continue
                    if current_value(self._graph, other) == width.size(_Everything()):
                        self._widths.setdefault(other, width)
                        self._places.setdefault(other, one)  # type: ignore[arg-type]

    def _fixed(self, held: Held) -> bool:
        """Whether a number that must not change is computed from an attribute."""
        return any(use.fixed for use in self._uses if held in leaves(use.origin or 0))

    def _solve(self, use: Use) -> None:
        """Where a formula that must give a width holds one attribute that follows nothing yet, let that one follow."""
        free = [leaf for leaf in leaves(use.origin or 0) if isinstance(leaf, Held) and leaf not in self._widths]
        if self._right(use) or use.width is None:
            return
        for held in dict.fromkeys(free):
            width = self._isolated(use.origin, held, use.width, use.labels)  # type: ignore[arg-type]
            if width is None or self._fixed(held):
                continue
            if width.size(_Everything()) != current_value(self._graph, held):
                continue
            self._widths[held], self._places[held] = width, _place(use)
            if self._right(use):
                return
            del self._widths[held], self._places[held]

    def _isolated(self, origin: Origin | float, held: Held | SizeOf, target: Width, labels: LabelsOf) -> Width | None:
        """Return what an attribute or a size must be for a formula of products and quotients to give a width."""
        if origin == held:
            return target
        if not isinstance(origin, Formula) or len(origin.operands) != 2:
            return None
        first, second = origin.operands
        inner, other = (first, second) if held in leaves(first) else (second, first)
        constant = self._value(other, None, labels)
        same = all(self._value(other, probe, labels) == constant for probe in self._probes)
        if not same or not isinstance(constant, int):
            return None
        if origin.operation is operator.mul:
            return self._isolated(inner, held, target.scaled(1, constant), labels) if constant else None
        if origin.operation is operator.floordiv and inner is first:
            return self._isolated(inner, held, target.scaled(constant, 1), labels)
        return None

    def _check(self, use: Use) -> None:
        """Refuse a call one of whose numbers will not be what the cut asks for."""
        if use.node in self._found.refused or self._right(use):
            return
        named = ", ".join(dict.fromkeys(_spelled(leaf) for leaf in leaves(use.origin or 0)))
        if use.width is not None and use.origin is None:
            self._found.literal[use.node] = f"has the size {use.value} written as a literal{source_text(use.node)}"
        elif use.width is not None:
            self._found.equal += self._taken_from(use, use.width)
            reason = f"has a size of {use.value} that is computed from {named} and would not follow"
            if _has_literal(use.origin or 0):  # a layer's own width looks like a literal: let the probes tell
                self._found.literal[use.node] = reason + source_text(use.node)
            else:
                self._refuse(use, reason)
        elif use.fixed:
            self._hold(use, named)

    def _taken_from(self, use: Use, width: Width) -> Iterator[EqualWidths]:
        """Yield the pair of widths that would have to stay equal for a size to be right."""
        for leaf, target, source in self._asked(use):
            place = leaf if isinstance(leaf, SizeOf) else self._places[leaf]
            times, over = target.times * source.over, target.over * source.times
            if equally_long(width, source, times, over) is not None:
                yield EqualWidths(_place(use), place, times, over)

    def _asked(self, use: Use) -> Iterator[tuple[Held | SizeOf, Width, Width]]:
        """Yield the one leaf of a size's formula that a cut changes, what it must be, and what it is the width of."""
        every = {leaf: self._width_of(leaf, use.labels) for leaf in leaves(use.origin or 0)}
        live = [(leaf, width) for leaf, width in every.items() if width is not None and self._shrinks(width)]
        if len(live) == 1 and use.width is not None:
            target = self._isolated(use.origin or 0, live[0][0], use.width, use.labels)
            if target is not None:
                yield live[0][0], target, live[0][1]

    def _shrinks(self, width: Width) -> bool:
        """Whether a width becomes less, as a number of heads does not although channels lie along it."""
        whole = width.size(_Everything())
        return self._prunable(width) and any(width.size(probe) != whole for probe in self._probes)

    def _width_of(self, leaf: Held | SizeOf, labels: LabelsOf) -> Width | None:
        """Return the width an attribute follows or a size is of."""
        return self._widths.get(leaf) if isinstance(leaf, Held) else labels.width(leaf.node, leaf.dimension)

    def _hold(self, use: Use, named: str) -> None:
        """Keep everything that a number which must not change is computed from."""
        for leaf in leaves(use.origin or 0):
            if isinstance(leaf, SizeOf):
                reason = f"its {use.argument} {use.value} is computed from {named}{source_text(use.node)}"
                boundary = Boundary(operator_of(use.node), module_path(use.node), reason, source_line(use.node))
                self._found.held.setdefault(leaf.node, boundary)
            elif leaf in self._widths:
                for other in self._uses:
                    if other.width is not None and leaf in leaves(other.origin or 0):
                        self._refuse(
                            other,
                            f"has the size {other.value} from {_spelled(leaf)}, with which "
                            f"{operator_of(use.node)}{source_text(use.node)} computes",
                        )

    def _refuse(self, use: Use, reason: str) -> None:
        self._found.refused.setdefault(use.node, reason + source_text(use.node))

    def _right(self, use: Use) -> bool:
        """Whether a number will be what the cut asks for."""
        if use.width is None and not use.fixed:
            return True
        for _, target, source in self._asked(use):
            return self._implied.equal(target, source)
        for probe in self._probes:
            expected = use.value if use.width is None else use.width.size(probe)
            if self._value(use.value if use.origin is None else use.origin, probe, use.labels) != expected:
                return False
        return True

    def _same_everywhere(self, use: Use) -> bool:
        """Whether a number stays what it is whatever is cut."""
        origin = use.value if use.origin is None else use.origin
        return all(self._value(origin, probe, use.labels) == use.value for probe in self._probes)

    def _value(self, origin: Origin | float, probe: KeptLabels | None, labels: LabelsOf) -> int | float | None:
        """Return what a number would be under a probe; ``None`` where it cannot be computed."""

        def of(leaf: Held | SizeOf) -> int:
            width = self._width_of(leaf, labels)
            current = current_value(self._graph, leaf)
            if current is None:
                raise LookupError
            return current if width is None or probe is None or not self._prunable(width) else width.size(probe)

        try:
            return evaluated(origin, of)
        except (LookupError, ArithmeticError, TypeError):
            return None

    def _followed(self) -> Iterator[Followed]:
        """Yield the attributes that follow, entries of one list together."""
        by_name: dict[tuple[str, str], dict[int, Width]] = {}
        for held, width in self._widths.items():
            by_name.setdefault((held.path, held.name), {})[held.entry or 0] = width
        for (path, name), widths in by_name.items():
            value = held_value(self._graph.model, path, name)
            if isinstance(value, list | tuple):
                entries = tuple(widths.get(number, int(size)) for number, size in enumerate(value))
                yield Followed(path, name, entries, listed=True)
            else:
                yield Followed(path, name, (widths[0],), listed=False)


def _has_literal(origin: Origin | float) -> bool:
    """Whether a number of unknown origin takes part in a formula."""
    return (
        any(_has_literal(part) for part in origin.operands)
        if isinstance(origin, Formula)
        else origin not in (0, 1) and isinstance(origin, int | float)
    )


def _place(use: Use) -> WrittenAt:
    return WrittenAt(use.node, use.argument, use.entry)


class _Everything:
    """Keeps all labels."""

    def mask(self, labels: Tensor) -> Tensor:
        return torch.ones(labels.shape, dtype=torch.bool)


def with_followed(graph: Graph, findings: Findings, *, doubted: bool) -> Graph:
    """Return a graph whose cuts set the attributes that follow.

    Args:
        graph: a traced model.
        findings: what its numbers ask of a cut.
        doubted: whether a narrower capture of the model ever failed.
    """
    confirm = doubted or bool(findings.followed or findings.literal) or findings.compared or findings.scaled
    coupling = replace(graph.coupling, followed=findings.followed, assumes=graph.coupling.assumes or confirm)
    return replace(graph, coupling=coupling)


def _spelled(leaf: Held | SizeOf) -> str:
    if isinstance(leaf, Held):
        return f"{leaf.path}.{leaf.name}".lstrip(".") + (f"[{leaf.entry}]" if leaf.entry is not None else "")
    return f"the size of the result of {operator_of(leaf.node)} along dimension {leaf.dimension}"
