"""A fast recorder of ATen calls: a forward pass on tensors that have a shape but no values.

``make_fx`` records the same graph, with bookkeeping for cases that a trace of a network rarely meets (symbolic sizes,
transforms, constants that are read back). Here each value is a ``Traced`` tensor: it has the shape, the strides, the
type and the device of the real one, and a meta tensor on which operators run. What this recorder cannot follow exactly
raises ``Unrecordable``, and the caller uses ``make_fx`` instead.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import torch
import torch._functorch.predispatch as transforms
from torch import Tensor, fx, nn
from torch._C import DispatchKey
from torch._dispatch.python import enable_python_dispatcher, no_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import PreDispatchTorchFunctionMode, ProxyTorchDispatchMode
from torch.utils._python_dispatch import TorchDispatchMode

from cutback.graph.recurrent_shapes import recurrent_result
from cutback.graph.result_shapes import quick_result

_META = torch.device("meta")
_PLAIN = (Tensor, nn.Parameter, nn.Buffer)
_VERBATIM = (int, float, str, torch.dtype, torch.layout, torch.memory_format, type(None))
_LIFT, _LIFT_COPY = torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default
_INDEX = torch.ops.aten.index.Tensor
_IS_NONZERO = torch.ops.aten.is_nonzero.default
_MASKS = (torch.bool, torch.uint8)


class Unrecordable(Exception):
    """This recorder cannot follow the forward pass exactly; the message is the reason."""


class Traced(Tensor):
    """A tensor without values, during a recording.

    Attributes:
        node: the call that gave it its present content.
        shadow: the meta tensor on which operators run.
    """

    node: fx.Node
    shadow: Tensor

    # torch's way to say: like a plain tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # noqa: SLF001

    @classmethod
    def __torch_dispatch__(
        cls, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        """Refuse every operator that reaches the tensor past the recorder.

        Raises:
            Unrecordable: always.
        """
        error = Unrecordable(f"{func} is called past the recorder")
        for value in args:
            if isinstance(value, Traced):
                value.node.graph.doubts.append(str(error))  # type: ignore[attr-defined]
        raise error


@dataclass(frozen=True, eq=False)
class Recording:
    """A recorded forward pass.

    Attributes:
        graph: placeholders for the given tensors in order, the calls, and the list of results.
        constants: the tensors that ``get_attr`` nodes name.
    """

    graph: fx.Graph
    constants: dict[str, Tensor]


def record(
    forward: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor], annotate: Callable[[fx.Node], None]
) -> Recording:
    """Record the operators that a function calls.

    Args:
        forward: the function; receives a tensor without values for each of ``tensors``.
        tensors: what the placeholders stand for, all on one device.
        annotate: receives every new call.

    Raises:
        Unrecordable: something was met that this recorder cannot follow.
        Exception: whatever the function raises.
    """
    devices = {tensor.device for tensor in tensors}
    if len(devices) != 1:
        raise Unrecordable("the tensors are on several devices")
    (device,) = devices
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        raise Unrecordable("autocast is on")
    recorder = _Recorder(device, annotate)
    given = [recorder.placeholder(number, tensor) for number, tensor in enumerate(tensors)]
    with enable_python_dispatcher(), _Functions(recorder), recorder:
        results = forward(*given)
    if recorder.doubts:
        raise Unrecordable(recorder.doubts[0])
    recorder.graph.output([recorder.node_of(result) for result in results])
    return Recording(recorder.graph, recorder.constants)


class _Graph(fx.Graph):
    """A graph with the reasons why it cannot be trusted, kept also where the model's code catches the exceptions."""

    def __init__(self) -> None:
        super().__init__()
        self.doubts: list[str] = []


@dataclass(frozen=True)
class _Kind:
    """What must be known of an operator to run it on meta tensors.

    Attributes:
        name: what its nodes are called.
        device: whether it takes the device of its result.
        mutates: whether it writes to an argument.
        unforeseeable: whether the shape of its result may depend on values.
        reads: whether it returns values.
        history: whether gradients pass to its result.
    """

    name: str
    device: bool
    mutates: bool
    unforeseeable: bool
    reads: bool
    history: bool


@cache
def _kind(func: OpOverload) -> _Kind:
    name = func.overloadpacket.__name__
    schema = func._schema
    return _Kind(
        fx.Graph()._target_to_str(name),  # noqa: SLF001 (once for each operator, not at each call)
        any(argument.name == "device" for argument in schema.arguments),
        schema.is_mutable,
        torch.Tag.dynamic_output_shape in func.tags,
        torch.Tag.data_dependent_output in func.tags or func is _IS_NONZERO,
        name != "detach" and not name.endswith("_like"),
    )


class _Recorder(ProxyTorchDispatchMode):
    """Records each operator before autograd, autocast and decompositions see it.

    torch admits only modes of its own kinds at that place; of the proxy mode nothing is used but its kind.
    """

    def __init__(self, device: torch.device, annotate: Callable[[fx.Node], None]) -> None:
        TorchDispatchMode.__init__(self, DispatchKey.PreDispatch)
        self.graph, self.constants = _Graph(), dict[str, Tensor]()
        self.doubts = self.graph.doubts
        self._device, self._annotate = device, annotate
        self._devices = {device: True, _META: False}
        self._known: dict[int, tuple[str, Tensor]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and importing the compiler takes longer than a trace

    def __enter__(self) -> Self:
        TorchDispatchMode.__enter__(self)
        return self

    def __exit__(self, *failure: object) -> None:
        TorchDispatchMode.__exit__(self, *failure)

    def refuse(self, reason: str) -> Unrecordable:
        """Note that the recording cannot be used; return the exception to raise."""
        self.doubts.append(reason)
        return Unrecordable(reason)

    def placeholder(self, number: int, tensor: Tensor) -> Traced:
        """Return what stands for a given tensor."""
        name = f"arg{number}_1"
        node = self.graph.create_node("placeholder", name, name=name)
        return self._traced(_shadow_of(tensor), node, tensor.requires_grad)

    def node_of(self, tensor: Tensor) -> fx.Node:
        """Return the node that gave a tensor its present content."""
        return tensor.node if type(tensor) is Traced else self._constant(tensor)[0]

    def call(
        self, func: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object], name: str
    ) -> fx.Node:
        """Add a call to the graph."""
        node = self.graph.create_node("call_function", func, name=name)
        node.args = args  # type: ignore[assignment] (here and not above, where fx looks for symbolic sizes in them)
        if kwargs:
            node.kwargs = kwargs  # type: ignore[assignment]
        self._annotate(node)
        return node

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        """Record a call, and answer it with tensors of the right shapes."""
        kind = _kind(func)
        if kind.reads and not any(type(value) is Traced for value in args):  # a constant that the model holds is read
            with no_python_dispatcher():
                return func(*args, **(kwargs or {}))
        traced: list[Traced] = []
        pairs = [self._argument(value, traced) for value in args]
        named = {name: self._argument(value, traced) for name, value in kwargs.items()} if kwargs else {}
        if kind.reads or (kind.unforeseeable and not (func is _INDEX and _indices_only(args[1]))):
            raise self.refuse(f"{func} depends on values")
        if not isinstance(func, OpOverload):
            raise self.refuse(f"{func} is no plain operator")
        node = self.call(
            _LIFT_COPY if func is _LIFT else func,
            tuple([pair[0] for pair in pairs]),
            {name: pair[0] for name, pair in named.items()},
            "lift_fresh_copy" if func is _LIFT else kind.name,
        )
        shadows = [pair[1] for pair in pairs]
        with no_python_dispatcher():
            result: object = None
            if not named:
                result = quick_result(func, shadows)
                result = recurrent_result(func, shadows) if result is None else result
            if result is None:
                shadow_named = {name: pair[1] for name, pair in named.items()}
                if (
                    kind.device
                    and shadow_named.get("device") is None
                    and not any(_holds_tensor(pair) for pair in pairs)
                ):
                    if self._device.type != "cpu":  # where torch makes tensors by default
                        raise self.refuse(f"{func} makes a tensor on another device")
                    shadow_named["device"] = _META
                result = func(*shadows, **shadow_named)
        history = kind.history and any(tensor.requires_grad for tensor in traced) and torch.is_grad_enabled()
        result = self._result(result, node, traced, history)
        if kind.mutates and any(_reshaped(tensor) for tensor in traced):
            raise self.refuse(f"{func} changes the shape of a tensor in place")
        return result

    def _argument(self, value: object, traced: list[Traced]) -> tuple[object, object]:
        """Return an argument as the graph and as the meta kernels take it; note tensors without values."""
        if type(value) is Traced:
            if value.node.graph is not self.graph:
                raise self.refuse("a tensor of another recording is used")
            traced.append(value)
            return value.node, value.shadow
        if isinstance(value, list | tuple):
            pairs = [self._argument(item, traced) for item in value]
            return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if isinstance(value, Tensor):
            return self._constant(value)
        if isinstance(value, torch.device):
            if not self._is_own(value):
                raise self.refuse(f"the device {value} is asked for")
            return value, _META
        if not isinstance(value, _VERBATIM):
            raise self.refuse(f"an argument is a {type(value).__name__}")
        return value, value

    def _is_own(self, device: torch.device) -> bool:
        """Say whether a device, written with or without its index, is that of the given tensors."""
        if device not in self._devices:
            with no_python_dispatcher():
                self._devices[device] = torch.empty(0, device=device).device == self._device
        return self._devices[device]

    def _constant(self, tensor: Tensor) -> tuple[fx.Node, Tensor]:
        """Return a new node and the shadow of a tensor with values that the model holds or has made from numbers."""
        if id(tensor) not in self._known:
            if tensor.device != self._device:
                raise self.refuse("a constant is on another device")
            kind = "param" if isinstance(tensor, nn.Parameter) else "tensor"
            name = f"_{kind}_constant{sum(kind in name for name in self.constants)}"
            self.constants[name] = tensor  # which also keeps it alive, so that its id stays its own
            with no_python_dispatcher():
                self._known[id(tensor)] = name, _shadow_of(tensor)
        name, shadow = self._known[id(tensor)]
        node = self.graph.create_node("get_attr", name, (), {})
        node.meta["val"] = shadow
        return node, shadow

    def _result(self, result: object, node: fx.Node, traced: Sequence[Traced], history: bool) -> object:  # noqa: FBT001
        """Return results without values for what the meta kernels returned."""
        if isinstance(result, Tensor):
            for tensor in traced:
                if tensor.shadow is result:  # written in place, or nothing was to be done
                    tensor.node, node.meta["val"] = node, result
                    return tensor
            return self._traced(result, node, history)
        if isinstance(result, list | tuple):
            node.meta["val"] = result
            return [self._item(value, number, node, traced, history) for number, value in enumerate(result)]
        node.meta["val"] = result
        if result is not None:
            raise self.refuse(f"{node.target} returns no tensor")
        return None

    def _item(self, value: object, number: int, node: fx.Node, traced: Sequence[Traced], history: bool) -> object:  # noqa: FBT001
        """Return one of several results."""
        if not isinstance(value, Tensor):
            raise self.refuse(f"{node.target} returns more than tensors")
        return self._result(value, self.call(operator.getitem, (node, number), {}, "getitem"), traced, history)

    def _traced(self, shadow: Tensor, node: fx.Node, history: bool) -> Traced:  # noqa: FBT001
        """Return a tensor without values in the shape of a meta tensor, on the device of the given tensors."""
        dtype = shadow.dtype
        if dtype.is_complex or shadow.layout is not torch.strided:
            raise self.refuse("a tensor is complex or sparse")
        tensor = Traced._make_wrapper_subclass(  # noqa: SLF001
            Traced,
            shadow.shape,
            strides=shadow.stride(),
            storage_offset=shadow.storage_offset(),
            dtype=dtype,
            device=self._device,
            requires_grad=history and dtype.is_floating_point,
        )
        tensor.shadow, tensor.node, node.meta["val"] = shadow, node, shadow
        return tensor


class _Functions(PreDispatchTorchFunctionMode):
    """Records changes of the grad mode; notes what a recording of operators alone would miss.

    torch reports autocast only to a mode of this class.
    """

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._recorder = recorder
        self._unseen = {function for function in vars(transforms).values() if callable(function)}
        self._unseen |= {torch.autograd.grad, torch.autograd.backward, Tensor.backward}
        self._unseen.add(Tensor.data.__set__)  # type: ignore[attr-defined]
        self._unseen |= {torch.amp._enter_autocast, torch.amp._exit_autocast}  # type: ignore[attr-defined]  # noqa: SLF001

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Pass a call on, noted where that is needed."""
        if func in self._unseen:  # no exception: autocast would stay on
            self._recorder.refuse(f"{getattr(func, '__name__', func)} is called")
            if func in (torch.amp._enter_autocast, torch.amp._exit_autocast):  # type: ignore[attr-defined]  # noqa: SLF001
                return None
        if func is torch._C._set_grad_enabled:  # noqa: SLF001
            self._recorder.call(func, args, {}, "_set_grad_enabled").meta["val"] = None
        if func == Tensor.data.__get__ and type(args[0]) is Traced:  # type: ignore[attr-defined]
            return args[0].detach()  # the same, but seen by the recorder
        return func(*args, **(kwargs or {}))


def _shadow_of(tensor: Tensor) -> Tensor:
    """Return a meta tensor in the shape of a tensor with values.

    Raises:
        Unrecordable: the tensor is of a kind of its own.
    """
    odd = tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_neg() or without_values(tensor)
    if type(tensor) not in _PLAIN or odd:
        raise Unrecordable(f"a tensor is a {type(tensor).__name__} of layout {tensor.layout}")
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META)


def without_values(tensor: Tensor) -> bool:
    """Say whether a tensor belongs to a transform of functions or to a recording: it is no constant."""
    transformed = torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # type: ignore[attr-defined]  # noqa: SLF001
    return transformed or isinstance(tensor, Traced | FakeTensor)


def _indices_only(indices: object) -> bool:
    """Say whether no index is a mask, whose number of elements is not known."""
    return all(index is None or index.dtype not in _MASKS for index in indices)  # type: ignore[union-attr]


def _reshaped(tensor: Traced) -> bool:
    """Say whether a tensor has changed its shape: what stands for it cannot."""
    return tensor.stride() != tensor.shadow.stride() or tensor.shape != tensor.shadow.shape


def _holds_tensor(pair: tuple[object, object]) -> bool:
    """Say whether an argument is a tensor or a list with one."""
    value = pair[1]
    return isinstance(value, Tensor) or (isinstance(value, list) and any(isinstance(item, Tensor) for item in value))
