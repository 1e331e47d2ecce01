"""From a model to its graph form, checked call by call against the model itself."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from cutback.errors import ArchitectureMismatch, CaptureError, DataDependentControlFlow, UnsupportedVersion
from cutback.graph.capture import KIND, MODULE, Capture, capture, module_kind
from cutback.graph.clone import ordinary, state_tensors
from cutback.graph.groups import couple
from cutback.graph.inputs import Inputs
from cutback.graph.origins import SizeOf, leaves
from cutback.graph.sources import SOURCE
from cutback.surgery.folding import Folding, calls_of, folded
from cutback.surgery.graph_form import GraphForm, Program, structure_of
from cutback.surgery.recipes import Recipe, described, inputs_of
from cutback.surgery.rewriting import Rewriter


def graph_form(model: nn.Module, inputs: Inputs) -> GraphForm:
    """Return a copy of a model in graph form; see ``GraphForm``.

    The model is recorded in eval and in train mode, dropout included. Recorded again, the graph form must make the same
    calls with the same numbers; so it must with another batch size, or else its batch size is fixed.

    Args:
        model: the model.
        inputs: its example inputs.

    Raises:
        CaptureError: the model cannot be recorded, or its graph form would not be the same network.
        DataDependentControlFlow: its path depends on values.
    """
    captures = [capture(model, inputs, training=False, dropout=True)]
    try:
        captures.append(capture(model, inputs.doubled_batch(), training=True, dropout=True))
    except DataDependentControlFlow:
        raise
    except CaptureError:
        pass  # whoever traces the form is told that it has no train mode
    graph, _ = couple(model, inputs, captures)
    foldings = [folded(taken) for taken in captures]
    names, constants = _named_constants(captures, foldings, model)
    rewriters = [
        Rewriter(graph, taken, known, folding.gone)
        for taken, known, folding in zip(captures, names, foldings, strict=True)
    ]
    graphs = [rewriter.run() for rewriter in rewriters]
    sizes = {name: value for rewriter in rewriters for name, value in rewriter.sizes.items()}

    def made(free: Mapping[bool, bool]) -> GraphForm:
        programs = {
            taken.training: Program(body, _shapes(taken.inputs), taken.returned, free[taken.training])
            for taken, body in zip(captures, graphs, strict=True)
        }
        return GraphForm.of(model, programs, structure_of(inputs.positional, inputs.keyword), sizes, constants)

    form = made({False: True, True: True})
    for taken in captures:
        again = capture(form, taken.inputs, training=taken.training, dropout=True)
        if _calls(taken, {}) != _calls(again, constants):
            raise CaptureError(f"the graph form of {type(model).__name__} would not make the same calls as the model")
    form = made({taken.training: _any_batch(model, form, taken, constants) for taken in captures})
    form.__dict__["recipe"] = Recipe(_fingerprint(captures), torch.__version__, described(inputs))
    return form


def graph_form_again(model: nn.Module, recipe: Recipe) -> GraphForm:
    """Return the graph form of a fresh instance of a model.

    Args:
        model: the instance, dense.
        recipe: how the form was made the first time.

    Raises:
        ArchitectureMismatch: the instance computes something else than the first one.
        UnsupportedVersion: another torch records other calls.
        CorruptFile: the recipe is damaged.
        CaptureError: the model cannot be recorded.
    """
    device = next((tensor.device for tensor in state_tensors(model).values()), torch.device("cpu"))
    form = graph_form(model, inputs_of(recipe.inputs, device))
    if form.recipe.fingerprint == recipe.fingerprint:
        return form
    if recipe.torch_version != torch.__version__:
        raise UnsupportedVersion(
            f"the graph was recorded with torch {recipe.torch_version}, and torch {torch.__version__} records other "
            f"calls of {type(model).__name__}; load it with the former"
        )
    raise ArchitectureMismatch(
        f"the {type(model).__name__} that build returned makes other calls than the one whose graph was saved; build "
        "the model as it was before pruning"
    )


def note_sources(captures: Sequence[Capture], model: nn.Module) -> None:
    """Note at the captured calls of a graph form where the code of the model it was made from makes them.

    Args:
        captures: of the form; receive the notes.
        model: the model it was made from.
    """
    kinds: dict[object, type[nn.Module]] = {}
    for taken in captures:
        whole = capture(model, taken.inputs, training=taken.training)
        own, calls = calls_of(whole, folded(whole)), calls_of(taken, Folding())
        if [node.target for node in own] != [node.target for node in calls]:
            continue
        for node, original in zip(calls, own, strict=True):
            node.meta.update({key: original.meta[key] for key in (MODULE, SOURCE) if key in original.meta})
            # A class of its own for each: the form has the modules' states, but not the attributes that hold widths.
            kind = module_kind(original)
            node.meta[KIND] = kinds.setdefault(kind, type(kind.__name__, (nn.Module,), {}))


def _shapes(inputs: Inputs) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in inputs.tensors())


def _named_constants(
    captures: Sequence[Capture], foldings: Sequence[Folding], model: nn.Module
) -> tuple[list[dict[str | fx.Node, str]], dict[str, Tensor]]:
    """Return the module's names of the constants of each capture and of what it folds, and the tensors by name."""
    found: dict[str, Tensor] = {}
    folds = {id(tensor) for folding in foldings for tensor in folding.values.values()}
    made: dict[str, Tensor] = {}
    names: list[dict[str | fx.Node, str]] = []
    for taken, folding in zip(captures, foldings, strict=True):
        names.append({})
        for key, tensor in [*taken.constants.items(), *folding.values.items()]:
            fold = id(tensor) in folds  # nothing writes to those, so that equal ones can be one
            known = next(
                (
                    n
                    for n, other in made.items()
                    if other is tensor or (fold and id(other) in folds and _alike(tensor, other))
                ),
                None,
            )
            if known is None:
                known = f"{'train' if taken.training else 'eval'}_{key}".replace("__", "_")
                if hasattr(model, known):
                    raise CaptureError(f"{type(model).__name__} has an attribute called {known}; give it another name")
                found[known], made[known] = ordinary(tensor), tensor
            names[-1][key] = known
    return names, found


def _alike(first: Tensor, second: Tensor) -> bool:
    """Say whether two tensors hold the same."""
    same = (first.dtype, first.shape, first.device) == (second.dtype, second.shape, second.device)
    return same and torch.equal(first, second)


class _Named(str):
    """A name that is written without quotation marks."""

    __slots__ = ()
    __repr__ = str.__str__


def _calls(taken: Capture, constants: Mapping[str, Tensor], *, fold: bool = True) -> list[str]:
    """Return everything about a capture's calls that decides what it computes.

    Args:
        taken: the capture.
        constants: those states that are constants of the model.
        fold: take what is computed from constants alone by its values.
    """
    known: dict[fx.Node, str] = {}
    states, inputs = dict(zip(taken.nodes, taken.states, strict=False)), 0
    own = {tensor.device for tensor in taken.inputs.tensors()}
    folding = folded(taken) if fold else Folding()
    found: list[str] = []

    def written(value: object) -> object:
        if isinstance(value, fx.Node):
            return _Named(known[value])
        if isinstance(value, list | tuple):
            return [written(item) for item in value]
        return _Named("own device") if isinstance(value, torch.device) and own == {value} else value

    for node in taken.nodes:
        if node in states:
            name = states[node]
            known[node] = _digest(constants[name]) if name in constants else name
        elif node.op == "placeholder":
            known[node], inputs = f"input {inputs}", inputs + 1
        elif node.op == "get_attr":
            known[node] = _digest(taken.constants[str(node.target)])
        elif node in folding.values:
            known[node] = _digest(folding.values[node])
        elif node.op == "call_function" and node not in folding.gone:
            known[node] = f"call {len(found)}"
            named = [f"{name}={written(value)!r}" for name, value in sorted(node.kwargs.items())]
            found.append(f"{node.target} {written(node.args)!r} {named}")
    return [*found, repr([known[node] for node in taken.results[: taken.outputs]]), repr(taken.returned)]


def _digest(tensor: Tensor) -> str:
    """Return a hash of a constant's type, shape and values."""
    flat = tensor.detach().cpu().contiguous().flatten()
    content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + content).hexdigest()


def _any_batch(model: nn.Module, form: GraphForm, taken: Capture, constants: Mapping[str, Tensor]) -> bool:
    """Say whether a graph form makes the model's calls at another batch size, too."""
    batch = next((shape[0] for shape in _shapes(taken.inputs) if shape), 0)

    def larger(tensor: Tensor) -> Tensor:
        return tensor.new_zeros((batch + 1, *tensor.shape[1:])) if tensor.shape[:1] == (batch,) else tensor

    inputs = taken.inputs.map(larger)
    try:
        own = capture(model, inputs, training=taken.training, dropout=True)
        other = capture(form, inputs, training=taken.training, dropout=True)
    except CaptureError:
        return False
    return _calls(own, {}) == _calls(other, constants) and _compared_sizes(own) == _compared_sizes(taken)


def _compared_sizes(taken: Capture) -> list[int]:
    """Return the sizes of tensors that the model's code has compared with something."""
    origins = [origin for pair in taken.compared for side in pair for origin in leaves(side)]
    return [leaf.node.meta["val"].shape[leaf.dimension] for leaf in origins if isinstance(leaf, SizeOf)]


def _fingerprint(captures: Sequence[Capture]) -> str:
    """Return a hash of what a model computes: its calls in each mode."""
    lines = [line for taken in captures for line in (str(taken.training), *_calls(taken, {}, fold=False))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
