"""Recording a model's forward pass as an ATen graph with composite operators whole."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.fx.node import map_arg
from torch.overrides import TorchFunctionMode

from cutback.errors import CaptureError, DataDependentControlFlow
from cutback.graph.clone import (
    exchange_tensors,
    modules_by_path,
    ordinary,
    random_state_kept,
    set_training,
    state_tensors,
    structural_clone,
)
from cutback.graph.inputs import Inputs, tensors_in
from cutback.graph.nests import shape_of
from cutback.graph.origins import Origin, OriginRecorder
from cutback.graph.recorder import record, without_values
from cutback.graph.sources import SOURCE, EachCall, calling_line, source_line

__all__ = [
    "Capture",
    "DropoutOff",
    "ModuleRecorder",
    "capture",
    "module_kind",
    "module_path",
    "operator_of",
    "source_line",
]

_RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
MODULE, KIND = "cutback_module", "cutback_kind"


@dataclass(frozen=True, eq=False)
class Capture:
    """One recorded forward pass.

    Attributes:
        training: whether the model was in train mode.
        graph: its placeholders are the states in order, then the input tensors; it returns a list.
        constants: the tensors that its ``get_attr`` nodes name.
        states: qualified names of the parameters and buffers, in placeholder order.
        inputs: the inputs it was recorded with.
        outputs: how many of the graph's results are outputs of the model.
        module_outputs: path of the module that returned it, for each of the remaining results.
        compared: the attributes and sizes that the model's code compared with something.
        returned: what the model returned, with holes for its tensors.
    """

    training: bool
    graph: fx.Graph
    constants: Mapping[str, Tensor]
    states: tuple[str, ...]
    inputs: Inputs
    outputs: int
    module_outputs: tuple[str, ...]
    compared: tuple[tuple[Origin, Origin | int | float], ...] = ()
    returned: object = None

    @cached_property
    def module(self) -> fx.GraphModule:
        """The graph as a module; compiling it takes a while, and nothing here needs it."""
        return fx.GraphModule(dict(self.constants), self.graph)

    @property
    def nodes(self) -> list[fx.Node]:
        """The graph's nodes in execution order."""
        return list(self.graph.nodes)

    @property
    def results(self) -> Sequence[fx.Node]:
        """The nodes of the results: the model's outputs, then every module's."""
        return next(iter(reversed(self.graph.nodes))).args[0]

    def execute(
        self,
        states: Mapping[str, Tensor],
        inputs: Inputs,
        call: Callable[[fx.Node, Sequence[object], Mapping[str, object]], object],
    ) -> list[Tensor]:
        """Execute the graph, each call by ``call(node, arguments, keyword arguments)``; return all results."""
        given = iter([*(states[name] for name in self.states), *inputs.tensors()])
        results, done_with = self.results, self._done_with
        values: dict[fx.Node, object] = {}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = self.constants[str(node.target)]
            elif node.op == "call_function":
                args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)  # type: ignore[arg-type]
                values[node] = call(node, args, kwargs)
                for source in done_with.get(node, ()):
                    del values[source]
        return [values[result] for result in results]  # type: ignore[misc]

    def run(self, states: Mapping[str, Tensor], inputs: Inputs) -> list[Tensor]:
        """Execute the graph on the given states and inputs (of the recorded shapes); return all results."""
        return self.execute(states, inputs, lambda node, args, kwargs: node.target(*args, **kwargs))  # type: ignore[operator]

    @cached_property
    def _done_with(self) -> dict[fx.Node, list[fx.Node]]:
        """For each call the nodes whose values nothing needs after it."""
        found: dict[fx.Node, list[fx.Node]] = {}
        seen = set(self.results)
        for node in reversed(self.graph.nodes):
            if node.op == "call_function":
                sources = [source for source in (*node.all_input_nodes, node) if source not in seen]
                seen.update(sources)
                found[node] = sources
        return found


def operator_of(node: fx.Node) -> str:
    """Return the name of the operator a node calls, without the in-place underscore: ``aten::relu``."""
    if isinstance(node.target, OpOverload):
        return _operator_name(node.target)
    return getattr(node.target, "__name__", str(node.target))


@cache
def _operator_name(target: OpOverload) -> str:
    return target._schema.name.rstrip("_")


def module_path(node: fx.Node) -> str:
    """Return the path of the module during whose forward the node was recorded."""
    return node.meta.get(MODULE, "")


def module_kind(node: fx.Node) -> type[nn.Module]:
    """Return the class of the module during whose forward the node was recorded."""
    return node.meta.get(KIND, nn.Module)


class ModuleRecorder:
    """Hooks on a structural clone that note which module is running and what each one returns.

    Attributes:
        returned: path and tensor of everything modules have returned, in the order they finished.

    Args:
        clone: the structural clone.
        changing: called before the running module changes.
    """

    def __init__(self, clone: nn.Module, changing: Callable[["ModuleRecorder"], None] = lambda _: None) -> None:
        self._changing = changing
        self.returned: list[tuple[str, Tensor]] = []
        self._running: list[tuple[str, type[nn.Module]]] = [("", type(clone))]
        for path, module in modules_by_path(clone).items():
            if path:
                self._watch(path, module)

    def _watch(self, path: str, module: nn.Module) -> None:
        module.register_forward_pre_hook(lambda module, _: self._enter(path, type(module)))
        module.register_forward_hook(lambda _module, _inputs, output: self._leave(output))

    @property
    def running(self) -> str:
        """Path of the module that runs now, or in which an exception was raised."""
        return self._running[-1][0]

    def annotate(self, node: fx.Node) -> None:
        """Note at a call which module is running."""
        node.meta[MODULE], node.meta[KIND] = self._running[-1]

    def _enter(self, path: str, kind: type[nn.Module]) -> None:
        self._changing(self)
        self._running.append((path, kind))

    def _leave(self, output: object) -> None:
        self._changing(self)
        path, _ = self._running.pop()
        self.returned.extend((path, tensor) for tensor in tensors_in(output))


def _new_calls(key: str) -> Iterator[fx.Node]:
    """Yield the calls ``make_fx`` has recorded since the last one that has an annotation."""
    mode = get_proxy_mode()
    for node in reversed(mode.tracer.graph.nodes) if mode is not None else ():
        if key in node.meta:
            break
        if node.op == "call_function":
            yield node


def _annotate_new_calls(recorder: ModuleRecorder) -> None:
    """Note the running module at the calls that ``make_fx`` has recorded during it."""
    for node in _new_calls(MODULE):
        recorder.annotate(node)


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


_ATTENTION: dict[Callable[..., object], int] = {
    nn.functional.scaled_dot_product_attention: 4,
    nn.functional.multi_head_attention_forward: 10,
}
"""Functions with a dropout of their own, and the place of its probability, ``dropout_p``, among their arguments."""


_DROPOUT_NAMES = (
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    *("dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout_", "feature_alpha_dropout_"),
)
_DROPOUTS = frozenset(
    getattr(place, name) for place in (nn.functional, torch) for name in _DROPOUT_NAMES if hasattr(place, name)
)


def without_dropout(
    func: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
    """Return a call of a function of torch as it is to be made for dropout to be off."""
    if func in _DROPOUTS:
        return _first, (args[0] if args else kwargs["input"],), {}
    if func in _RECURRENT:  # (input, states, weights, biases, layers, dropout, ...); packed: one more before that
        place = 6 if isinstance(args[3], list | tuple) else 5
        args = (*args[:place], 0.0, *args[place + 1 :])
    if func in _ATTENTION:
        place = _ATTENTION[func]
        args = (*args[:place], *([0.0] if len(args) > place else []), *args[place + 1 :])
        kwargs = {**kwargs, "dropout_p": 0.0} if "dropout_p" in kwargs else kwargs
    return func, args, kwargs


def _first(value: object) -> object:
    return value


class DropoutOff(TorchFunctionMode):
    """Makes every dropout return its input: its masks depend on widths, so that no two networks could be compared."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Answer a dropout with its input, and pass everything else on."""
        func, args, kwargs = without_dropout(func, args, kwargs or {})
        return func(*args, **kwargs)


def _dropout(kept: bool) -> AbstractContextManager[object]:  # noqa: FBT001
    return nullcontext() if kept else DropoutOff()


def capture(
    model: nn.Module,
    inputs: Inputs,
    *,
    training: bool | Mapping[str, bool],
    reached: list[str] | None = None,
    origins: bool = True,
    dropout: bool = False,
) -> Capture:
    """Record a forward pass of ``model`` without touching it: on a structural clone and on tensors without values.

    Args:
        model: the model; may be in any mode, on any device.
        inputs: its arguments, tensors of the model's device and type.
        training: record in train mode instead of eval mode; or the mode of each module by path.
        reached: receives the names of the calls recorded when the forward pass fails.
        origins: note where the numbers in its calls come from.
        dropout: record dropout too, which is left out otherwise.

    Raises:
        DataDependentControlFlow: the path through the model depends on values.
        CaptureError: the forward pass failed; the message carries the model's own error.
    """
    try:
        return recorded(model, inputs, training=training, origins=origins, dropout=dropout)
    except CaptureError:  # the model cannot even be copied
        raise
    except Exception:  # noqa: BLE001 (make_fx follows what the recorder cannot, or raises what there is to say)
        reached = [] if reached is None else reached
        return made_by_make_fx(model, inputs, training=training, reached=reached, origins=origins, dropout=dropout)


class _Subject:
    """A structural clone of a model in the mode to be recorded, and its forward pass as a function of tensors."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        *,
        training: bool | Mapping[str, bool],
        origins: bool,
        dropout: bool,
        changing: Callable[[ModuleRecorder], None],
    ) -> None:
        self._clone, self._inputs = structural_clone(model), inputs
        self._training = training if isinstance(training, bool) else training[""]
        set_training(self._clone, training)
        self.states = state_tensors(self._clone)
        self.modules = ModuleRecorder(self._clone, changing)
        self.numbers = OriginRecorder() if dropout else OriginRecorder(without_dropout)
        self._origins, self._dropout = origins, dropout
        if origins:
            self.numbers.watch(self._clone)
        self._outputs, self._returned = 0, object()

    def tensors(self) -> list[Tensor]:
        """Return what the function takes: the states, then the inputs' tensors.

        Detached states are leaves without history: in-place operators on them are as legal as on buffers.
        """
        states = [ordinary(tensor).requires_grad_(tensor.requires_grad) for tensor in self.states.values()]
        return [*states, *(ordinary(tensor) for tensor in self._inputs.tensors())]

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        """Return the model's outputs, then every module's."""
        given = zip(self.states.values(), tensors, strict=False)
        exchange_tensors(self._clone, {id(state): tensor for state, tensor in given})
        arguments = self._inputs.replaced(tensors[len(self.states) :])
        # Here and not around the whole recording: each access to a tensor's attributes passes through such a mode.
        with whole_attention(), self.numbers if self._origins else _dropout(self._dropout):
            self._returned = self._clone(*arguments.positional, **arguments.keyword)
            outputs = list(tensors_in(self._returned))
        self._outputs = len(outputs)
        return [*outputs, *(tensor for _, tensor in self.modules.returned)]

    def capture(self, graph: fx.Graph, constants: Mapping[str, Tensor]) -> Capture:
        """Return the finished capture."""
        paths = tuple(path for path, _ in self.modules.returned)
        compared = tuple(self.numbers.compared)
        states = tuple(self.states)
        returned = shape_of(self._returned)
        return Capture(self._training, graph, constants, states, self._inputs, self._outputs, paths, compared, returned)


def recorded(
    model: nn.Module,
    inputs: Inputs,
    *,
    training: bool | Mapping[str, bool],
    origins: bool = True,
    dropout: bool = False,
) -> Capture:
    """Capture with the fast recorder.

    Raises:
        Exception: the recorder or the model has failed.
    """
    subject = _Subject(model, inputs, training=training, origins=origins, dropout=dropout, changing=lambda _: None)

    def annotate(node: fx.Node) -> None:
        subject.modules.annotate(node)
        subject.numbers.mark(node)
        node.meta[SOURCE] = calling_line(_Subject.forward.__code__)

    with random_state_kept(), torch.inference_mode(mode=False), torch.enable_grad():
        recording = record(subject.forward, subject.tensors(), annotate)
    return subject.capture(recording.graph, recording.constants)


def made_by_make_fx(
    model: nn.Module,
    inputs: Inputs,
    *,
    training: bool | Mapping[str, bool],
    reached: list[str],
    origins: bool = True,
    dropout: bool = False,
) -> Capture:
    """Capture with ``make_fx``; see ``capture``."""
    subject = _Subject(model, inputs, training=training, origins=origins, dropout=dropout, changing=_annotate_new_calls)

    def annotate() -> None:
        for node in _new_calls(SOURCE):
            node.meta[SOURCE] = calling_line(_Subject.forward.__code__)

    def forward(*tensors: Tensor) -> list[Tensor]:
        try:
            with EachCall(annotate):
                return subject.forward(*tensors)
        except Exception:
            reached.extend(_recorded_calls())
            raise

    try:
        contexts = (random_state_kept(), _quiet(), torch.inference_mode(mode=False), torch.enable_grad())
        with ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            module = make_fx(forward, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)(
                *subject.tensors()
            )
            _check_sizes(module)
    except (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode) as error:
        raise DataDependentControlFlow(
            f"{type(model).__name__} decides by the values it computes ({str(error).partition(chr(10))[0]}), so no "
            "single graph describes it; take the decision out of forward"
        ) from error
    except Exception as error:
        mode = "train" if (training if isinstance(training, bool) else training[""]) else "eval"
        raise CaptureError(
            f"{type(model).__name__} failed in {mode} mode on inputs of shape {inputs.describe()}: "
            f"{type(error).__name__}: {error}"
        ) from error
    constants = {n.target: getattr(module, n.target) for n in module.graph.nodes if n.op == "get_attr"}
    if any(without_values(tensor) for tensor in constants.values()):
        raise CaptureError(
            f"{type(model).__name__} computes something that cannot be recorded: a transform of functions such as "
            "torch.vmap or torch.func.grad, or gradients inside forward"
        )
    return subject.capture(module.graph, constants)
