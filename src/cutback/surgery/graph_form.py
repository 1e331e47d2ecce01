"""A model as the graph that was captured from it: an ``fx.GraphModule`` with the model's own states."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from cutback.errors import CaptureError, UserMistake
from cutback.graph.nests import filled
from cutback.surgery.recipes import Recipe


@dataclass(frozen=True, eq=False)
class Program:
    """The forward pass of one mode.

    Attributes:
        graph: takes the input tensors, returns the list of output tensors.
        shapes: the shapes of the input tensors it was captured with.
        returned: what the model returns, with holes for the output tensors.
        any_batch: whether the first dimension of the inputs may have another size.
    """

    graph: fx.Graph
    shapes: tuple[tuple[int, ...], ...]
    returned: object
    any_batch: bool

    def check(self, tensors: list[Tensor]) -> None:
        """Refuse inputs of other shapes.

        Raises:
            UserMistake: the graph does not hold for them.
        """
        batches: set[int] = set()
        same = True
        for tensor, shape in zip(tensors, self.shapes, strict=True):
            found = tuple(tensor.shape)
            if self.any_batch and found and shape[:1] == (self.batch,):
                batches.add(found[0])
                found = (self.batch, *found[1:])
            same = same and found == shape
        if not same or len(batches) > 1:
            given = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            free = " (of any batch size)" if self.any_batch else ""
            wanted = ", ".join(map(str, self.shapes))
            raise UserMistake(
                f"the graph was captured for inputs of shape {wanted}{free}, not {given}; trace the model with inputs "
                "of that shape"
            )

    @property
    def batch(self) -> int:
        """The first size of the inputs it was captured with."""
        return next((shape[0] for shape in self.shapes if shape), 1)


class GraphForm(fx.GraphModule):
    """A model as the graph that was captured from it; made by ``cutback.trace(model, inputs, form="graph")``.

    It has the model's parameters and buffers under their own names, takes the same arguments and returns the same
    structure. Widths that the model's code holds as literals are integer attributes here, so that they follow a cut.
    ``graph`` is the forward pass in eval mode; in train mode another one runs. Everything in the model's code that
    is not a call on tensors has gone: hooks, submodules to be called, branches that were not taken. Inputs have the
    traced shapes; the batch may have another size wherever the model's code takes it from its inputs.

    Attributes:
        recipe: how to make the dense form again from the model.
    """

    recipe: Recipe
    _programs: dict[bool, Program]
    _structure: tuple[list[object], pytree.TreeSpec]
    _plain_constants: tuple[str, ...]
    _run_eval: Callable[..., Sequence[Tensor]]
    _run_train: Callable[..., Sequence[Tensor]]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        programs: Mapping[bool, Program],
        structure: tuple[list[object], pytree.TreeSpec],
        sizes: Mapping[str, int],
        constants: Mapping[str, Tensor],
    ) -> "GraphForm":
        """Make a graph form with copies of a model's parameters and buffers.

        Args:
            model: the model.
            programs: the forward pass in eval mode (key ``False``) and in train mode.
            structure: the flattened arguments and how they are nested, see ``structure_of``.
            sizes: attributes that hold widths.
            constants: tensors that the graphs read; floating-point ones become buffers that are not saved.

        Raises:
            CaptureError: the model uses a name that a graph module needs for itself.
        """
        made = cls(nn.Module(), fx.Graph(), type(model).__name__)
        type(made).__module__ = __name__
        made.__dict__["_programs"], made.__dict__["_structure"] = dict(programs), structure
        made.__dict__["_plain_constants"] = ()
        try:
            _adopt(made, model)
        except (KeyError, AttributeError) as error:
            raise CaptureError(f"{type(model).__name__} cannot be put in graph form: {error}") from error
        for name, tensor in constants.items():
            if tensor.is_floating_point() and tensor.dim():
                made.register_buffer(name, tensor.detach().clone(), persistent=False)
            else:
                made.__dict__[name] = tensor
                made.__dict__["_plain_constants"] += (name,)
        for name, value in sizes.items():
            setattr(made, name, value)
        made.graph = programs[False].graph
        made.train(model.training)
        return made

    def recompile(self) -> Any:  # noqa: ANN401 (as declared above it)
        """Make ``forward`` anew from the graphs."""
        code = super().recompile()
        kind: Any = type(self)
        programs = self.__dict__.get("_programs")
        if programs:
            train = _compiled(programs[True].graph) if True in programs else None
            kind._run_eval, kind._run_train, kind.forward = kind.forward, train, _forward  # noqa: SLF001 (its own class)
        return code

    def __deepcopy__(self, memo: dict[int, Any]) -> "GraphForm":
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        type(made).__name__, type(made).__module__ = type(self).__name__, __name__
        held = {
            name: value if name == "_structure" else copy.deepcopy(value, memo) for name, value in self.__dict__.items()
        }
        made.__dict__.update(held)
        graph, programs = held["_graph"], held["_programs"]
        graph.owning_module, programs[False] = made, replace(programs[False], graph=graph)
        made.recompile()
        return made

    def __reduce__(self) -> NoReturn:
        raise TypeError("a model in graph form is not pickled; save it with cutback.save(model, plan, directory)")

    def _run(self, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Run the graph of the present mode.

        Raises:
            UserMistake: the arguments differ in structure, shape or fixed values from those it was captured with.
            CaptureError: there is no graph for this mode.
        """
        program = self._programs.get(self.training)
        if program is None:
            raise CaptureError("the model could not be captured in train mode; its graph form runs in eval mode only")
        fixed, spec = self._structure
        given, found = pytree.tree_flatten((args, kwargs))
        tensors = [value for value in given if isinstance(value, Tensor)]
        same = found == spec and all(
            isinstance(value, Tensor) if was is _TENSOR else type(value) is type(was) and value == was
            for value, was in zip(given, fixed, strict=True)
        )
        if not same:
            raise UserMistake("the arguments differ from those the graph was captured with; only tensors may change")
        program.check(tensors)
        run = self._run_train if self.training else self._run_eval
        return filled(program.returned, run(*tensors))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GraphForm":  # noqa: FBT001, FBT002
        super()._apply(fn, recurse)
        for name in self._plain_constants:
            self.__dict__[name] = fn(self.__dict__[name])
        return self


_TENSOR = object()
"""Stands for a tensor among flattened arguments."""


def structure_of(positional: tuple[object, ...], keyword: dict[str, object]) -> tuple[list[object], pytree.TreeSpec]:
    """Return the flattened arguments, a placeholder for each tensor, and how they are nested."""
    given, spec = pytree.tree_flatten((positional, keyword))
    return [_TENSOR if isinstance(value, Tensor) else value for value in given], spec


def _forward(self: GraphForm, *args: object, **kwargs: object) -> object:
    """Run the graph of the present mode."""
    return self._run(args, kwargs)


def _compiled(graph: fx.Graph) -> Callable[..., object]:
    """Return a graph as a method."""
    code = graph.python_code(root_module="self")
    namespace = dict(code.globals)
    exec(compile(code.src, "<graph in train mode>", "exec"), namespace)  # noqa: S102 (what torch.fx does with a graph)
    return namespace["forward"]


def _adopt(made: nn.Module, model: nn.Module) -> None:
    """Give a module the parameters and buffers of another under the same names, ties kept."""
    owned: dict[int, Tensor] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        parent, _, name = path.rpartition(".")
        if path:
            made.get_submodule(parent).add_module(name, nn.Module())
        holder = made.get_submodule(path)
        for key, tensor in module._parameters.items():
            if tensor is not None and id(tensor) not in owned:
                owned[id(tensor)] = nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)
            holder.register_parameter(key, None if tensor is None else owned[id(tensor)])  # type: ignore[arg-type]
        for key, tensor in module._buffers.items():
            if tensor is not None and id(tensor) not in owned:
                owned[id(tensor)] = tensor.detach().clone()
            persistent = key not in module._non_persistent_buffers_set  # noqa: SLF001 (nothing public tells)
            holder.register_buffer(key, None if tensor is None else owned[id(tensor)], persistent=persistent)
