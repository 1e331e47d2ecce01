"""One call of an operator as a rule sees it, and the table of rules."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import TypeVar

import torch
from torch import Tensor, fx, nn

from cutback.graph.capture import module_kind, module_path
from cutback.graph.labels import NONE, Boundary, LabelStore, core, varying_dimensions
from cutback.graph.sources import source_line
from cutback.graph.states import State, StateLabels
from cutback.graph.weights import ComputedWeight
from cutback.registry import Registry

Labels = Tensor | State | ComputedWeight | Sequence["Labels"] | None
"""What stands for a node's value: a label tensor, a parameter not yet used, a weight computed from parameters, several
of these, or no tensor."""


CONSTANT = "cutback_constant"
"""Where the metadata of a node that names a constant tensor holds it."""

Decision = TypeVar("Decision")


class Refused(Exception):
    """A rule cannot follow the channels through this call; the message is the reason."""


@dataclass(frozen=True)
class Assumption:
    """A size in a call that is taken to follow the cut, to be checked by capturing again with fewer channels.

    Attributes:
        node: the call.
        labels: the labels of the channels concerned.
        boundary: the reason to give should the size turn out to be fixed.
    """

    node: fx.Node
    labels: Tensor
    boundary: Boundary


@dataclass(frozen=True, eq=False)
class Mixing:
    """An argument of an operator that computes across channels: it is to see only those that stay.

    Without dimensions the removed elements are set to zero: what stays may differ from place to place, as between
    heads, and a sum of products does not see zeros.

    Attributes:
        argument: its name in the operator's schema.
        labels: its labels.
        dimensions: the dimensions it is mixed along.
        restored: whether the result has those dimensions too.
        position: its place in the argument, where that is a list of tensors.
    """

    argument: str
    labels: Tensor
    dimensions: tuple[int, ...]
    restored: bool
    position: int | None = None


@dataclass(frozen=True, eq=False)
class Balance:
    """Labels of which equally many must stay in every part.

    Attributes:
        parts: label vectors.
        moves: whether later operators count on where each part begins, so that a cut needs the second pass.
    """

    parts: tuple[Tensor, ...]
    moves: bool


@dataclass(frozen=True, eq=False)
class Rescaling:
    """An operator that divides by the square root of a width which follows the cut: something must make up for it.

    Attributes:
        arguments: names of the arguments either of which may be multiplied instead, the preferred one first.
        labels: the labels of the first, whose last dimension has that width.
    """

    arguments: tuple[str, ...]
    labels: Tensor


@dataclass
class Trail:
    """What a rule did at one call, for doing the same again after a cut.

    Attributes:
        whole_blocks: whether blocks (groups of a convolution, heads) are to stay or go whole.
        refused: whether the call became a boundary.
        literal: why sizes of the call are known to be fixed; empty where they are not.
        issued: the labels it was given for results of its own.
        decided: what it found out about the uncut sizes.
        tied: the labels it tied to slices of states.
        results: the labels it gave to the results.
        mixed: the arguments that are mixed across channels.
        balanced: the blocks that must keep equally many.
        widths: attributes of the running module that hold widths: path, name, and the labels along each dimension.
        rescaled: what must make up for a width that the operator divides by.
        given: what stood for its arguments, by the names of the operator's schema.
    """

    whole_blocks: bool = False
    refused: bool = False
    literal: str = ""
    issued: list[Tensor] = field(default_factory=list)
    decided: list[object] = field(default_factory=list)
    tied: list[Tensor] = field(default_factory=list)
    results: list[Tensor] = field(default_factory=list)
    mixed: list[Mixing] = field(default_factory=list)
    balanced: list[Balance] = field(default_factory=list)
    widths: list[tuple[str, str, tuple[Tensor, ...]]] = field(default_factory=list)
    rescaled: list[Rescaling] = field(default_factory=list)
    given: Mapping[str, object] = field(default_factory=dict)

    def restart(self) -> None:
        """Forget what a rule did before it refused the call."""
        self.refused = True
        noted = (self.issued, self.decided, self.tied, self.mixed, self.balanced, self.widths, self.rescaled)
        for found in noted:
            found.clear()


@dataclass
class Call:
    """One call of an operator, as a rule sees it.

    Attributes:
        node: the graph node.
        operator: name without the in-place underscore, for instance ``aten::relu``.
        arguments: by the names of the operator's schema; tensors are replaced by their labels.
        values: the fake result, for its shapes.
        store: where labels are issued and united.
        states: the labels of parameters and buffers.
        trail: receives what the rule does.
        assumptions: receives sizes that must follow a cut.
        literal: why sizes of this call are known to be fixed; empty where they are not.
        decided: what was found out of the same call before, where it is to be taken for found again.
        earlier: what the rules did at the calls before this one.
    """

    node: fx.Node
    operator: str
    arguments: dict[str, object]
    values: object
    store: LabelStore
    states: StateLabels
    trail: Trail
    assumptions: list[Assumption]
    literal: str = ""
    decided: Iterator[object] = field(default_factory=lambda: iter(()))
    earlier: Sequence[Trail] = ()

    @property
    def whole_blocks(self) -> bool:
        """Whether blocks (groups of a convolution, heads) are to stay or go whole, instead of shrinking alike."""
        return self.trail.whole_blocks

    def join(self, labels: Tensor) -> Tensor:
        """Unite the labels of each row of a table ``(rows, columns)``; return those of its first column."""
        self.unite(labels[:, :1].expand(labels.shape), labels)
        return labels[:, 0]

    @property
    def shape(self) -> torch.Size:
        """Shape of the result."""
        if not isinstance(self.values, Tensor):
            raise Refused("returns several tensors")
        return self.values.shape

    def labels(self, name: str) -> Tensor:
        """Return the labels of a tensor argument; a parameter gives one label an element."""
        return self.as_labels(self.arguments[name])

    def as_labels(self, value: object) -> Tensor:
        """Turn what stands for a tensor into its labels."""
        if isinstance(value, ComputedWeight):
            raise Refused("uses a weight that is computed in forward element by element")
        if isinstance(value, State):
            labels = self.states.each(value)
            if labels is None:
                raise Refused(f"uses the large parameter {value.name} element by element")
            return labels
        if not isinstance(value, Tensor):
            raise Refused("has an argument that is not a tensor where one was expected")
        return value

    def state(self, name: str) -> State | None:
        """Return a parameter argument; ``None`` where the argument is absent.

        Raises:
            Refused: the argument is a computed tensor.
        """
        value = self.arguments.get(name)
        if value is None or isinstance(value, State):
            return value
        raise Refused(f"its {name} is computed in forward, not a parameter")

    def operands(self) -> list[Tensor]:
        """Return the labels of all tensor arguments, lists flattened."""
        found: list[Tensor] = []
        for value in self.arguments.values():
            for item in value if isinstance(value, list | tuple) else [value]:
                found += [self.as_labels(item)] if isinstance(item, Tensor | State) else []
        return found

    def boundary(self, reason: str) -> Boundary:
        """Return a boundary at this call."""
        return Boundary(self.operator, module_path(self.node), reason, source_line(self.node))

    def unite(self, first: Tensor, second: Tensor) -> None:
        """Unite the channels behind two label tensors of one shape, element by element."""
        self.store.unite(first, second)

    def balance(self, parts: Sequence[Tensor], *, moves: bool = True) -> None:
        """Let label vectors of one length keep equally many each, see ``Balance``."""
        self.trail.balanced.append(Balance(tuple(parts), moves))

    def tie_blocks(self, labels: Tensor, dimension: int, blocks: int, *, moves: bool = True) -> None:
        """Let equal blocks along a dimension lose equally many, or the same positions where others vary beside it."""
        if blocks == 1:
            return
        if self.decide(varying_dimensions(labels) == [dimension]):
            index = [slice(None) if d == dimension else 0 for d in range(labels.dim())]
            self.balance(labels[tuple(index)].chunk(blocks), moves=moves)
            return
        parts = core(labels).chunk(blocks, dimension)
        for part in parts[1:]:
            self.unite(parts[0], part)

    def made(self, state: State, dimension: int, role: str, blocks: int = 1) -> Tensor:
        """Return the labels of the channels that the slices of a state make, see ``StateLabels.vector``."""
        return self.states.vector(state, dimension, role, blocks)

    def tie(self, labels: Tensor, state: State, dimension: int, role: str, blocks: int = 1) -> None:
        """Let the slices of a state go with the channels behind ``labels``, see ``StateLabels.vector``."""
        self.trail.tied.append(labels)
        if self.states.adopted(state, dimension, role, blocks, labels):
            return
        own = self.states.vector(state, dimension, role, blocks)
        self.store.unite(labels, own)
        constant = labels == NONE
        if bool(constant.any()):
            self.keep(own[constant], "goes with something constant")

    def tie_elements(self, labels: Tensor, state: State) -> None:
        """Let the elements of a state go with the channels behind ``labels``, of the state's shape."""
        own = self.as_labels(state)
        self.unite(labels, own)
        self.keep(own[labels == NONE], "goes with something constant")

    def mix(self, argument: str, labels: Tensor, dimensions: Sequence[int], *, restored: bool) -> None:
        """Note that an argument is mixed across channels, see ``Mixing``."""
        self.trail.mixed.append(Mixing(argument, labels, tuple(dimensions), restored))

    def silence(self, argument: str, labels: Tensor, position: int | None = None) -> None:
        """Note that an argument is summed over channels with another computed tensor, see ``Mixing``."""
        self.trail.mixed.append(Mixing(argument, labels, (), restored=False, position=position))

    def rescale(self, arguments: Sequence[str], labels: Tensor) -> None:
        """Note that the call divides by the square root of the last dimension of ``labels``, see ``Rescaling``."""
        self.trail.rescaled.append(Rescaling(tuple(arguments), labels))

    def width(self, kinds: type[nn.Module] | UnionType, attribute: str, *along: Tensor) -> None:
        """Note that an attribute of the running module, if it is of these kinds, holds widths.

        Args:
            kinds: classes of torch that have the attribute.
            attribute: its name; an integer, or a tuple of as many as there are label vectors.
            along: the labels along each dimension the attribute gives the size of.
        """
        if issubclass(module_kind(self.node), kinds):
            self.trail.widths.append((module_path(self.node), attribute, along))

    def fresh(self) -> Tensor:
        """Return a new label, shape ``(1,)``."""
        self.trail.issued.append(self.store.fresh(1))
        return self.trail.issued[-1]

    def decide(self, found: Decision) -> Decision:
        """Note something found out about uncut sizes; after a cut the same is returned whatever is found then."""
        self.trail.decided.append(next(self.decided, found))
        return self.trail.decided[-1]  # type: ignore[return-value]

    def keep(self, labels: Tensor, reason: str) -> None:
        """Keep the channels behind ``labels`` because of this call."""
        self.store.keep(labels, self.boundary(reason))

    def keep_state(self, state: State, reason: str) -> None:
        """Keep a parameter or buffer whole because of this call."""
        for labels in self.states.all_of(state):
            self.keep(labels, reason)

    def assume(self, labels: Tensor, reason: str) -> None:
        """Take a size of this call to follow the cut of ``labels``; ``reason`` is used if it does not."""
        self.assumptions.append(Assumption(self.node, labels, self.boundary(reason)))

    def kept_result(self, reason: str) -> Labels:
        """Return labels for a result whose channels are unknown and therefore stay."""

        def one(value: object) -> Labels:
            if isinstance(value, Tensor):
                label = self.fresh()
                self.keep(label, reason)
                return label.expand(value.shape) if value.dim() else torch.zeros((), dtype=torch.int64)
            if isinstance(value, list | tuple):
                return [one(item) for item in value]
            return None

        return one(self.values)


Rule = Callable[[Call], Labels]

rules: Registry[Rule] = Registry("operator rule", "cutback.graph.rules")

weight_rules: Registry[Rule] = Registry("weight rule", "cutback.graph.rules")
"""Rules for the calls that compute a weight from parameters alone."""

literal_rules: Registry[Rule] = Registry("literal rule", "cutback.graph.rules")
"""Rules for calls of literal sizes that need not keep every channel they meet; ``Call.literal`` says why some stay."""
