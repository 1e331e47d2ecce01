"""Where the numbers in a model's calls come from: attributes of modules, sizes of tensors, arithmetic with both.

While a forward pass is recorded, integer attributes and the sizes of tensors are integers that remember their origin.
So each number in a call is known to be an attribute, a size, a formula of these, or else a literal.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.overrides import TorchFunctionMode

from cutback.graph.attributes import follows_parameters
from cutback.graph.clone import modules_by_path

_META = "cutback_numbers"
_LONGEST = 8
_SHAPE, _SIZE = torch.Tensor.shape.__get__, torch.Tensor.size  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Held:
    """A number that an attribute holds.

    Attributes:
        path: path of the module.
        name: the attribute; ``config.width`` for an attribute of an object that the module holds.
        entry: which entry, where the attribute is a tuple or list.
    """

    path: str
    name: str
    entry: int | None = None


@dataclass(frozen=True)
class SizeOf:
    """The size of a tensor along a dimension."""

    node: fx.Node
    dimension: int


@dataclass(frozen=True)
class Formula:
    """Arithmetic with numbers of known origin."""

    operation: Callable[..., int | float]
    operands: tuple["Origin | int | float", ...]


Origin = Held | SizeOf | Formula


@dataclass(frozen=True)
class Given:
    """The numbers a torch function was called with, in order; those of a literal have no origin.

    Attributes:
        positional: value and origin of each number among its arguments, nests flattened.
        keyword: the same of each keyword argument.
    """

    positional: tuple[tuple[int | float, Origin | None], ...]
    keyword: dict[str, tuple[tuple[int | float, Origin | None], ...]]

    @property
    def all(self) -> list[tuple[int | float, Origin | None]]:
        """All numbers in order."""
        return [*self.positional, *(number for numbers in self.keyword.values() for number in numbers)]


class _Known:
    """A number that remembers its origin; arithmetic with it gives such numbers."""

    origin: Origin
    compared: list[tuple[Origin, "Origin | int | float"]]


def _known(value: Any, origin: Origin, compared: list[tuple[Origin, Origin | int | float]]) -> Any:  # noqa: ANN401
    """Return a number with its origin; what is no number stays what it is."""
    kind = {int: KnownInt, float: KnownFloat}.get(type(value))
    if kind is None:
        return value
    result = kind(value)
    result.origin, result.compared = origin, compared
    return result


def _arithmetic(operation: Callable[..., Any], *, reflected: bool) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:  # noqa: ANN401
        if not isinstance(other, int | float) or isinstance(other, bool):
            return NotImplemented
        operands = (other, self) if reflected else (self, other)
        value = operation(*(plain(operand) for operand in operands))
        return _known(value, Formula(operation, tuple(getattr(o, "origin", o) for o in operands)), self.compared)

    return method


def _negated(self: Any) -> Any:  # noqa: ANN401
    return _known(-plain(self), Formula(operator.sub, (0, self.origin)), self.compared)


def _comparison(operation: Callable[..., bool]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:  # noqa: ANN401
        if isinstance(other, int | float) and not isinstance(other, bool):
            self.compared.append((self.origin, getattr(other, "origin", other)))
        return operation(plain(self), plain(other))

    return method


def _methods() -> dict[str, object]:
    """Return the operators of numbers that remember their origin."""
    methods: dict[str, object] = {"__hash__": lambda self: hash(plain(self)), "__neg__": _negated}
    for name in ("add", "sub", "mul", "floordiv", "mod", "truediv", "pow"):
        operation = getattr(operator, name)
        methods[f"__{name}__"] = _arithmetic(operation, reflected=False)
        methods[f"__r{name}__"] = _arithmetic(operation, reflected=True)
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        methods[f"__{name}__"] = _comparison(getattr(operator, name))
    return methods


KnownInt = type("KnownInt", (_Known, int), _methods())
KnownFloat = type("KnownFloat", (_Known, float), _methods())


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return an argument with ordinary numbers in it."""
    if isinstance(value, _Known):
        return int.__int__(value) if isinstance(value, int) else float.__float__(value)  # type: ignore[arg-type]
    if isinstance(value, slice):
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    if type(value) is torch.Size:
        return torch.Size([plain(item) for item in value])
    if type(value) in (tuple, list):
        return type(value)(plain(item) for item in value)
    return value


def _holds_known(values: Iterable[object]) -> bool:
    """Say whether a number of known origin is among arguments, nests included."""
    for value in values:
        kind = type(value)
        if kind is KnownInt or kind is KnownFloat:
            return True
        if isinstance(value, tuple | list):
            if _holds_known(value):
                return True
        elif kind is slice and _holds_known((value.start, value.stop, value.step)):  # type: ignore[attr-defined]
            return True
    return False


def _numbers(value: object) -> Iterator[tuple[int | float, Origin | None]]:
    """Yield the numbers in an argument, nests flattened."""
    if isinstance(value, _Known):
        yield plain(value), value.origin
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value, None
    elif isinstance(value, slice):
        yield from _numbers((value.start, value.stop, value.step))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _numbers(item)


Function = Callable[..., object]
Adapted = Callable[
    [Function, tuple[object, ...], dict[str, object]], tuple[Function, tuple[object, ...], dict[str, object]]
]
"""Returns function, positional and keyword arguments of the call to make instead."""


def _as_it_is(
    func: Function, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[Function, tuple[object, ...], dict[str, object]]:
    return func, args, kwargs


class OriginRecorder(TorchFunctionMode):
    """Notes on each recorded call where its numbers come from.

    Attributes:
        compared: what was compared with what while the model ran.

    Args:
        adapted: changes each call before it is made, which spares torch a mode of its own for that.
    """

    def __init__(self, adapted: Adapted = _as_it_is) -> None:
        super().__init__()
        self._adapted = adapted
        self.compared: list[tuple[Origin, Origin | int | float]] = []
        self._given: Given | None = None

    def watch(self, model: nn.Module) -> None:
        """Let the integer attributes of a structural clone remember where they stand."""
        seen: set[int] = set()
        for path, module in modules_by_path(model).items():
            own = type(module).__module__.startswith("torch.")
            if own and not isinstance(module, nn.MultiheadAttention):
                continue
            for name, value in list(vars(module).items()):
                if self._watch(module, path, name, value) or name.startswith("_") or not _is_plain_object(value):
                    continue
                if id(value) not in seen:
                    seen.add(id(value))
                    for inner, number in list(vars(value).items()):
                        self._watch(value, path, f"{name}.{inner}", number)

    def _watch(self, owner: object, path: str, name: str, value: object) -> bool:
        """Replace one attribute, if it holds integers; return whether it does."""
        attribute = name.rpartition(".")[2]
        if isinstance(owner, nn.Module) and follows_parameters(owner, attribute):
            return True
        if type(value) is int:
            watched: object = _known(value, Held(path, name), self.compared)
        elif type(value) in (tuple, list) and 0 < len(value) <= _LONGEST and all(type(item) is int for item in value):  # type: ignore[arg-type]
            numbers = [_known(item, Held(path, name, entry), self.compared) for entry, item in enumerate(value)]  # type: ignore[arg-type]
            watched = type(value)(numbers)  # type: ignore[call-arg]
        else:
            return False
        try:
            setattr(owner, attribute, watched)
        except (
            AttributeError,
            TypeError,
            ValueError,
            RuntimeError,
        ):  # an object that defends its attributes is left alone: what it holds counts as literal
            return False
        return True

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Pass a call on with ordinary numbers, and note the origin of each on what it records."""
        kwargs = kwargs or {}
        if func == _SHAPE or func is _SIZE:
            return self._sized(func(*plain(args), **{n: plain(v) for n, v in kwargs.items()}), args, kwargs)
        if not (_holds_known(args) or (kwargs and _holds_known(tuple(kwargs.values())))):
            func, args, kwargs = self._adapted(func, args, kwargs)
            return func(*args, **kwargs)
        given = Given(tuple(_numbers(args)), {name: tuple(_numbers(value)) for name, value in kwargs.items()})
        func, args, kwargs = self._adapted(func, plain(args), {name: plain(value) for name, value in kwargs.items()})
        tracer = getattr(get_proxy_mode(), "tracer", None)
        nodes = tracer.graph.nodes if tracer is not None else ()
        last = next(iter(reversed(nodes)), None)
        self._given = given
        try:
            result = func(*args, **kwargs)
        finally:
            self._given = None
        for node in reversed(nodes):
            if node is last:
                break
            node.meta[_META] = given
        return result

    def mark(self, node: fx.Node) -> None:
        """Note the numbers of the running function at a new call; for recorders that announce each call."""
        if self._given is not None:
            node.meta[_META] = self._given

    def _sized(self, result: object, args: Sequence[object], kwargs: dict[str, object]) -> object:
        """Return sizes that remember the tensor and the dimension."""
        tensor = args[0]
        node = _node_of(tensor) if isinstance(tensor, Tensor) else None
        if node is None or not isinstance(tensor, Tensor):
            return result
        if isinstance(result, torch.Size):
            return torch.Size([_known(size, SizeOf(node, d), self.compared) for d, size in enumerate(result)])
        dimension = args[1] if len(args) > 1 else kwargs["dim"]
        return _known(result, SizeOf(node, int(dimension) % tensor.dim()), self.compared)  # type: ignore[call-overload]


def _node_of(tensor: Tensor) -> fx.Node | None:
    """Return the call that gave a tensor its present content; ``None`` where nothing recorded it."""
    node = getattr(tensor, "node", None)
    if not isinstance(node, fx.Node):
        tracer = getattr(get_proxy_mode(), "tracer", None)
        slot = get_proxy_slot(tensor, tracer, None) if tracer is not None else None
        node = getattr(getattr(slot, "proxy", None), "node", None)
    return node if isinstance(node, fx.Node) else None


def _is_plain_object(value: object) -> bool:
    """Whether a value is an ordinary object with attributes: no module, tensor, function or class."""
    if isinstance(value, nn.Module | Tensor | type) or callable(value) or not hasattr(value, "__dict__"):
        return False
    return not type(value).__module__.startswith(("torch.", "builtins"))


def given_numbers(node: fx.Node) -> Given | None:
    """Return the numbers the function behind a node was called with; ``None`` where all were literals."""
    return node.meta.get(_META)


def evaluated(origin: "Origin | int | float", of: Callable[[Held | SizeOf], int]) -> int | float:
    """Return the value a number would have, given those of attributes and sizes.

    Raises:
        ZeroDivisionError: a formula divides by a size that becomes zero.
    """
    if isinstance(origin, Formula):
        return origin.operation(*(evaluated(operand, of) for operand in origin.operands))
    return of(origin) if isinstance(origin, Held | SizeOf) else origin


def leaves(origin: "Origin | int | float") -> Iterator[Held | SizeOf]:
    """Yield the attributes and sizes a number is computed from."""
    if isinstance(origin, Formula):
        for operand in origin.operands:
            yield from leaves(operand)
    elif isinstance(origin, Held | SizeOf):
        yield origin
