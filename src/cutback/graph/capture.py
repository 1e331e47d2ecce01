"""Recording a model's forward pass as an ATen graph with composite operators whole."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.fx.node import map_arg
from torch.overrides import TorchFunctionMode

from cutback.errors import CaptureError, DataDependentControlFlow
from cutback.graph.clone import ordinary, random_state_kept, set_training, state_tensors, structural_clone
from cutback.graph.inputs import Inputs, tensors_in

_MODULE, _KIND = "cutback_module", "cutback_kind"


@dataclass(frozen=True, eq=False)
class Capture:
    """One recorded forward pass.

    Attributes:
        training: whether the model was in train mode.
        module: the graph; its placeholders are the states in order, then the input tensors.
        states: qualified names of the parameters and buffers, in placeholder order.
        inputs: the inputs it was recorded with.
        outputs: how many of the graph's results are outputs of the model.
        module_outputs: path of the module that returned it, for each of the remaining results.
    """

    training: bool
    module: fx.GraphModule
    states: tuple[str, ...]
    inputs: Inputs
    outputs: int
    module_outputs: tuple[str, ...]

    @property
    def nodes(self) -> list[fx.Node]:
        """The graph's nodes in execution order."""
        return list(self.module.graph.nodes)

    @property
    def results(self) -> Sequence[fx.Node]:
        """The nodes of the results: the model's outputs, then every module's."""
        return next(iter(reversed(self.module.graph.nodes))).args[0]

    def execute(
        self,
        states: Mapping[str, Tensor],
        inputs: Inputs,
        call: Callable[[fx.Node, Sequence[object], Mapping[str, object]], object],
    ) -> list[Tensor]:
        """Execute the graph, each call by ``call(node, arguments, keyword arguments)``; return all results."""
        given = iter([*(states[name] for name in self.states), *inputs.tensors()])
        values: dict[fx.Node, object] = {}
        for node in self.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = getattr(self.module, str(node.target))
            elif node.op == "call_function":
                args, kwargs = map_arg((node.args, node.kwargs), lambda source: values[source])  # type: ignore[arg-type]
                values[node] = call(node, args, kwargs)
        return [values[result] for result in self.results]  # type: ignore[misc]

    def run(self, states: Mapping[str, Tensor], inputs: Inputs) -> list[Tensor]:
        """Execute the graph on the given states and inputs (of the recorded shapes); return all results."""
        return self.module(*(states[name] for name in self.states), *inputs.tensors())


def operator_of(node: fx.Node) -> str:
    """Return the name of the operator a node calls, without the in-place underscore: ``aten::relu``."""
    if isinstance(node.target, OpOverload):
        return node.target._schema.name.rstrip("_")
    return getattr(node.target, "__name__", str(node.target))


def module_path(node: fx.Node) -> str:
    """Return the path of the module during whose forward the node was recorded."""
    return node.meta.get(_MODULE, "")


def module_kind(node: fx.Node) -> type[nn.Module]:
    """Return the class of the module during whose forward the node was recorded."""
    return node.meta.get(_KIND, nn.Module)


class ModuleRecorder:
    """Hooks on a structural clone that note which module is running and what each one returns.

    Attributes:
        returned: path and tensor of everything modules have returned, in the order they finished.
    """

    def __init__(self, clone: nn.Module) -> None:
        self.returned: list[tuple[str, Tensor]] = []
        self._running: list[tuple[str, type[nn.Module]]] = [("", type(clone))]
        for path, module in clone.named_modules():
            if path:
                module.register_forward_pre_hook(lambda module, _, path=path: self._enter(path, type(module)))
                module.register_forward_hook(lambda _module, _inputs, output: self._leave(output))

    @property
    def running(self) -> str:
        """Path of the module that runs now, or in which an exception was raised."""
        return self._running[-1][0]

    def _enter(self, path: str, kind: type[nn.Module]) -> None:
        self._label_new_nodes()
        self._running.append((path, kind))

    def _leave(self, output: object) -> None:
        self._label_new_nodes()
        path, _ = self._running.pop()
        self.returned.extend((path, tensor) for tensor in tensors_in(output))

    def _label_new_nodes(self) -> None:
        mode = get_proxy_mode()
        if mode is None:
            return
        for node in reversed(mode.tracer.graph.nodes):
            if _MODULE in node.meta:
                break
            node.meta[_MODULE], node.meta[_KIND] = self._running[-1]


@contextmanager
def whole_attention() -> Iterator[None]:
    """Keep ``nn.MultiheadAttention`` and transformer layers from calling one operator that does all of it."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's own log of failing shapes: the error that is raised says it all."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_sizes(module: fx.GraphModule) -> None:
    """Refuse a graph with sizes that depend on values.

    Raises:
        DynamicOutputShapeException: names the first operator that returns such a tensor.
    """
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and not all(isinstance(size, int) for size in value.shape):
            raise DynamicOutputShapeException(node.target)


def _recorded_calls() -> list[str]:
    """Return the names of the calls recorded so far."""
    mode = get_proxy_mode()
    nodes = mode.tracer.graph.nodes if mode is not None else ()
    return [node.name for node in nodes if node.op == "call_function"]


class DropoutOff(TorchFunctionMode):
    """Makes every dropout return its input: its masks depend on widths, so that no two networks could be compared."""

    _NAMES = (
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
        *("dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout_", "feature_alpha_dropout_"),
    )

    def __init__(self) -> None:
        super().__init__()
        places = (nn.functional, torch)
        self._dropouts = {getattr(place, name) for place in places for name in self._NAMES if hasattr(place, name)}

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Answer a dropout with its input, and pass everything else on."""
        kwargs = kwargs or {}
        if func in self._dropouts:
            return args[0] if args else kwargs["input"]
        if func is nn.functional.scaled_dot_product_attention:
            args, kwargs = (*args[:4], *([0.0] if len(args) > 4 else []), *args[5:]), {**kwargs}
            if "dropout_p" in kwargs:
                kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


def capture(model: nn.Module, inputs: Inputs, *, training: bool, reached: list[str] | None = None) -> Capture:
    """Record a forward pass of ``model`` without touching it: on a structural clone and on fake tensors.

    Dropout is left out.

    Args:
        model: the model; may be in any mode, on any device.
        inputs: its arguments, tensors of the model's device and type.
        training: record in train mode instead of eval mode.
        reached: receives the names of the calls recorded when the forward pass fails.

    Raises:
        DataDependentControlFlow: the path through the model depends on values.
        CaptureError: the forward pass failed; the message carries the model's own error.
    """
    clone = structural_clone(model)
    set_training(clone, training)
    states = state_tensors(clone)
    recorder = ModuleRecorder(clone)
    counts: list[int] = []
    reached = [] if reached is None else reached

    def forward(*tensors: Tensor) -> list[Tensor]:
        given = dict(zip(states, tensors, strict=False))
        arguments = inputs.replaced(tensors[len(states) :])
        try:
            outputs = list(tensors_in(functional_call(clone, given, arguments.positional, arguments.keyword)))
        except Exception:
            reached.extend(_recorded_calls())
            raise
        counts.append(len(outputs))
        return [*outputs, *(tensor for _, tensor in recorder.returned)]

    try:
        contexts = (random_state_kept(), _quiet(), torch.inference_mode(mode=False), torch.enable_grad(), DropoutOff())
        with whole_attention(), ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            # Detached states are leaves without history: in-place operators on them are as legal as on buffers.
            module = make_fx(forward, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)(
                *(ordinary(tensor).requires_grad_(tensor.requires_grad) for tensor in states.values()),
                *(ordinary(tensor) for tensor in inputs.tensors()),
            )
            _check_sizes(module)
    except (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode) as error:
        raise DataDependentControlFlow(
            f"{type(model).__name__} decides by the values it computes ({str(error).partition(chr(10))[0]}), so no "
            "single graph describes it; take the decision out of forward"
        ) from error
    except Exception as error:
        mode = "train" if training else "eval"
        raise CaptureError(
            f"{type(model).__name__} failed in {mode} mode on inputs of shape {inputs.describe()}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return Capture(training, module, tuple(states), inputs, counts[0], tuple(path for path, _ in recorder.returned))
