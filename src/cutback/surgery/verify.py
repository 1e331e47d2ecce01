"""The proof of a cut: the pruned model computes what the original computes with the removed channels silenced."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from traceback import clear_frames

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.errors import CutbackError, DataDependentControlFlow, NotEquivalent
from cutback.graph.capture import Capture, capture, module_path
from cutback.graph.clone import ordinary, own_tensors, random_state_kept, state_tensors, structural_clone
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.graph.replay import Illegal
from cutback.graph.second_pass import kept_labels, second_pass
from cutback.graph.weights import ComputedWeight
from cutback.planning.plan import Plan
from cutback.planning.slices import planned_masks, planned_orders
from cutback.surgery.comparing import kept_part, places_of, relative_error
from cutback.surgery.conditioning import Awakening, well_conditioned
from cutback.surgery.factors import multiplied_results
from cutback.surgery.gradients import gradients_of, released
from cutback.surgery.running import Run, Runner, double, exact, nudge, redrawn, redrawn_in_range, single, widened
from cutback.surgery.silenced import mixes, restore_states_, run_silenced, silenced_states
from cutback.surgery.slices import cut_states

_SINGLE = 1e-5
_DOUBLE = 1e-9
_ROUNDED = 1e-6
"""What rounding in float64 may at most amount to, in a network however badly conditioned."""
_TIMES = 10
_SEED = 20200


@dataclass(frozen=True)
class Proof:
    """What a proof found.

    Attributes:
        error: the largest relative error at any module's kept channels that was accepted.
        double: whether some comparison had to be repeated in float64.
        comparisons: how many tensors were compared.
        modes: the modes it covers, ``eval`` and ``train``.
    """

    error: float
    double: bool
    comparisons: int
    modes: tuple[str, ...] = ()


def prove(graph: Graph, plan: Plan) -> Proof:
    """Prove a plan's cut without carrying it out on the model.

    The pruned model's own forward must agree, at the kept channels of every module, with the original in which the
    columns of removed channels are zero: in eval and in train mode, on the model's values and the example inputs and on
    well-conditioned random values and inputs. The same parameters must receive a gradient. On the model's values the
    original is its own forward, on random ones its captured graph; where operators mix channels (a layer norm), so that
    they have to be shown the kept ones alone, it is the captured graph both times.

    In each mode that takes four forward passes, two of them of the pruned model, and one backward pass. More are run
    only where float32 is not enough (all is repeated in float64), where a difference has to be explained, and where
    normal random inputs give something that is not a number (then the graph is run once more, on inputs in the range of
    the examples).

    Args:
        graph: the traced model.
        plan: a plan for it.

    Returns:
        The largest error accepted, and how it was found.

    Raises:
        NotEquivalent: they differ; names the first module whose output does.
        DataDependentControlFlow: the captured graph itself is not the model's forward.
    """
    with torch.inference_mode(mode=False):
        states = {name: single(ordinary(tensor)) for name, tensor in state_tensors(graph.model).items()}
    kept = planned_masks(graph, plan)
    try:
        narrow = second_pass(graph, kept, planned_orders(graph, plan, kept))[1] if graph.coupling.assumes else None
    except Illegal as reason:
        where = module_path(reason.node)
        raise NotEquivalent(
            f"{where or '(model)'}: {reason}; nothing was changed; if the plan was made by cutback for this model, "
            "this is a bug worth reporting",
            where,
        ) from reason
    generator = torch.Generator().manual_seed(_SEED)
    devices = [tensor.device for tensor in states.values()]
    proofs: list[Proof] = []
    with random_state_kept(), exact(devices), torch.inference_mode(mode=False), torch.enable_grad():
        random = partial(well_conditioned, graph, states, generator)  # drawn when needed: they are a model's size
        for number, recorded in enumerate(graph.captures):
            check = _Check(graph, plan, number, kept, narrow[number] if narrow else None)
            own = recorded.inputs.map(lambda tensor: single(ordinary(tensor)))
            proofs.append(check.on_own_values(states, own))
            proofs.append(check.on_random_values(random, own, generator))
    return Proof(
        max(proof.error for proof in proofs),
        any(proof.double for proof in proofs),
        sum(proof.comparisons for proof in proofs),
        tuple("train" if recorded.training else "eval" for recorded in graph.captures),
    )


class _Check:
    """Compares reference and pruned model in one mode."""

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        number: int,
        kept: list[NDArray[np.bool_]],
        narrow: Sequence[Tensor | ComputedWeight] | None,
    ) -> None:
        recorded = graph.captures[number]
        self._graph, self._plan, self.recorded, self._kept = graph, plan, recorded, kept
        self._parameters = {name for name, _ in graph.model.named_parameters()}
        self._factors = multiplied_results(graph.coupling.labellings[number], plan)
        self._trails = graph.coupling.labellings[number].trails
        self._labels = kept_labels(graph, kept)
        whole = graph.coupling.labellings[number].results
        self._places = [
            places_of(labels, narrow[position] if narrow else None, self._labels)
            for position, labels in enumerate(whole)
        ]
        changes = [(path, name, value) for path, values in plan.attributes.items() for name, value in values.items()]
        self._dense = Runner(graph.model, training=recorded.training)
        self._pruned = Runner(graph.model, training=recorded.training, changes=changes)
        self._double: Capture | None = None
        self._cast: Callable[[Tensor], Tensor] = Tensor.detach
        states = state_tensors(graph.model)
        if any(single(tensor) is not tensor for tensor in states.values()):  # half precision is proven in float32
            states = {name: single(ordinary(tensor)) for name, tensor in states.items()}
            self.recorded = self._captured(states, recorded.inputs.map(single))
        self._where = "train mode" if recorded.training else "eval mode"

    def on_own_values(self, states: Mapping[str, Tensor], inputs: Inputs) -> Proof:
        """Compare on the model's values and the example inputs, gradients included."""
        reference = self._reference(states, inputs, gradients=True)
        return self._settled(reference, states, inputs, gradients=True)

    def on_random_values(
        self, draw: Callable[[], dict[str, Tensor]], examples: Inputs, generator: torch.Generator
    ) -> Proof:
        """Compare on well-conditioned values and fresh inputs, normal ones or, should those give NaN, in range."""
        reference, awake, inputs = self._awakened(draw(), examples.map(lambda tensor: redrawn(tensor, generator)))
        if any(bool(tensor.isnan().any()) for tensor in reference.tensors if tensor.is_floating_point()):
            del reference, awake
            inputs = examples.map(lambda tensor: redrawn_in_range(tensor, generator))
            reference, awake, inputs = self._awakened(draw(), inputs)
        return self._settled(reference, awake, inputs, gradients=False)

    def _settled(self, reference: Run, states: Mapping[str, Tensor], inputs: Inputs, *, gradients: bool) -> Proof:
        """Compare with a reference; if they differ, in float64; if they still do, find out who is to blame."""
        try:
            return self._compare(reference, states, inputs, _SINGLE, gradients=gradients)
        except NotEquivalent as first:
            clear_frames(first.__traceback__)  # they hold a model each
            try:
                return self._in_double(states, inputs, gradients=gradients)
            except CutbackError as second:
                clear_frames(second.__traceback__)
                self._check_graph_is_the_model(states, inputs)
                raise (second if isinstance(second, NotEquivalent) else first) from None

    def _in_double(self, states: Mapping[str, Tensor], inputs: Inputs, *, gradients: bool) -> Proof:
        """Compare in float64, with a capture in float64: what code creates has the type of what it computes with."""
        if self._double is None:
            precise = {name: double(tensor) for name, tensor in states.items()}
            self._double = widened(self._captured(precise, self.recorded.inputs.map(double)))
            del precise
        before = self.recorded, self._cast
        self.recorded, self._cast, inputs = self._double, double, inputs.map(double)
        try:
            reference = self._reference(states, inputs, gradients=gradients, graph=not gradients)
            moved = cache(lambda: self._moved(states, inputs, graph=not gradients))
            proof = self._compare(reference, states, inputs, _DOUBLE, gradients=gradients, moved=moved)
        finally:
            self.recorded, self._cast = before
        return Proof(proof.error, double=True, comparisons=proof.comparisons)

    def _moved(self, states: Mapping[str, Tensor], inputs: Inputs, *, graph: bool) -> Run:
        """Run the reference on values and inputs changed in their last digits: what it moves by is rounding."""
        generator = torch.Generator().manual_seed(_SEED)
        nudged = {name: nudge(double(tensor), generator) for name, tensor in states.items()}
        return self._reference(nudged, inputs.map(lambda t: nudge(t, generator)), gradients=False, graph=graph)

    def _captured(self, states: Mapping[str, Tensor], inputs: Inputs) -> Capture:
        """Capture the model with other states."""
        clone = structural_clone(self._graph.model)
        own_tensors(clone, states)
        return capture(clone, inputs, training=self.recorded.training)

    def _reference(self, states: Mapping[str, Tensor], inputs: Inputs, *, gradients: bool, graph: bool = False) -> Run:
        """Run the original with the removed channels silenced: its own forward, or its captured graph."""
        return released(self._original(states, inputs, gradients=gradients, graph=graph))

    def _original(self, states: Mapping[str, Tensor], inputs: Inputs, *, gradients: bool, graph: bool = False) -> Run:
        """Run as ``_reference`` does and keep what a backward pass needs."""
        silenced = silenced_states(self._graph, states, self._kept, self._cast)
        silenced = self._leaves(silenced, gradients=gradients)
        with self._explained(states, inputs), torch.set_grad_enabled(gradients):
            torch.manual_seed(_SEED)
            if not (graph or mixes(self._trails)):
                return self._dense(silenced, inputs, float64=self._in_float64)
            return self._of_graph(run_silenced(self.recorded, self._trails, self._labels, silenced, inputs), silenced)

    def _awakened(self, states: Mapping[str, Tensor], inputs: Inputs) -> tuple[Run, dict[str, Tensor], Inputs]:
        """Run the captured graph with the removed channels silenced, its other channels kept alive by changed states.

        Args:
            states: drawn for this run, which changes them.
            inputs: the inputs.

        Returns:
            The run, and the states and inputs it is a run of.
        """
        silenced = silenced_states(self._graph, states, self._kept)
        leaves = self._leaves(silenced, gradients=False)  # the parameters among them are those of ``silenced``
        with self._explained(states, inputs), torch.no_grad():
            torch.manual_seed(_SEED)
            awaken = Awakening(self.recorded, self._parameters)
            tensors = run_silenced(self.recorded, self._trails, self._labels, leaves, inputs, awaken)
        del leaves
        restore_states_(self._graph, silenced, states, self._kept)
        return self._of_graph(tensors, {}), silenced, inputs

    def _of_graph(self, tensors: Sequence[Tensor], leaves: Mapping[str, Tensor]) -> Run:
        """Describe a run of the captured graph."""
        return Run(self._paths, tensors, self.recorded.outputs, leaves)

    def _compare(
        self,
        reference: Run,
        states: Mapping[str, Tensor],
        inputs: Inputs,
        tolerance: float,
        *,
        gradients: bool,
        moved: Callable[[], Run] | None = None,
    ) -> Proof:
        """Run the pruned model and compare it with the reference; ``moved`` tells what rounding amounts to in it."""
        cut = self._leaves(cut_states(states, self._plan, self._cast), gradients=gradients)
        try:
            with torch.set_grad_enabled(gradients):
                torch.manual_seed(_SEED)
                pruned = self._pruned(cut, inputs, float64=self._in_float64)
        except Exception as error:
            path = self._pruned.running
            raise NotEquivalent(
                f"the pruned model's own forward fails in {self._where} in module {path or '(model)'}: "
                f"{type(error).__name__}: {error}; nothing was changed",
                path,
            ) from error
        errors = self._errors(reference, pruned, tolerance, moved)
        if gradients:
            self._same_gradients(reference, pruned, partial(self._original, states, inputs, gradients=True))
        return Proof(max(errors, default=0.0), double=False, comparisons=len(errors))

    @contextmanager
    def _explained(self, states: Mapping[str, Tensor], inputs: Inputs) -> Iterator[None]:
        """Find out, where a reference fails to run, whether that is because of the model."""
        try:
            yield
        except Exception:
            self._check_graph_is_the_model(states, inputs)
            raise

    def _check_graph_is_the_model(self, states: Mapping[str, Tensor], inputs: Inputs) -> None:
        """Check that the uncut captured graph equals the model's own forward.

        Raises:
            DataDependentControlFlow: it does not.
        """
        try:
            states = {name: self._cast(tensor) for name, tensor in states.items()}
            with torch.no_grad():
                torch.manual_seed(_SEED)
                own = self._dense(self._leaves(states, gradients=False), inputs, float64=self._in_float64)
                torch.manual_seed(_SEED)
                captured = self.recorded.run(self._leaves(states, gradients=False), inputs)
        except Exception as error:
            raise DataDependentControlFlow(
                f"{type(self._graph.model).__name__} cannot be run again in {self._where} on other values of the same "
                f"shapes ({type(error).__name__}: {error}); make its forward a function of its inputs"
            ) from error
        same = list(own.paths) == self._paths
        found = zip(own.tensors[: own.outputs], captured[: own.outputs], strict=True)
        if not same or any(relative_error(a, b) > _SINGLE for a, b in found):
            raise DataDependentControlFlow(
                f"{type(self._graph.model).__name__} computes something else than was recorded from it in "
                f"{self._where}: its forward depends on values, on a counter or on unseeded randomness; make it a "
                "function of its inputs"
            )

    @property
    def _in_float64(self) -> bool:
        """Whether it is float64 that is compared in now."""
        return self._cast is double

    @property
    def _paths(self) -> list[str]:
        """The module that returns each tensor of a run; empty for the model's outputs."""
        return ["" for _ in range(self.recorded.outputs)] + list(self.recorded.module_outputs)

    def _leaves(self, states: Mapping[str, Tensor], *, gradients: bool) -> dict[str, Tensor]:
        """Return fresh leaves: parameters that may receive gradients, and buffers that may be written."""
        trained = {name for name, parameter in self._graph.model.named_parameters() if parameter.requires_grad}
        return {
            name: tensor.detach().requires_grad_(gradients and name in trained)
            if name in self._parameters
            else tensor.detach().clone()
            for name, tensor in states.items()
        }

    def _errors(self, reference: Run, pruned: Run, tolerance: float, moved: Callable[[], Run] | None) -> list[float]:
        """Compare what every module returned, then the model's outputs; raise at the first difference."""
        if not list(reference.paths) == list(pruned.paths) == self._paths:
            raise NotEquivalent(f"the pruned model runs other modules than the original in {self._where}")
        recorded = [tuple(result.meta["val"].shape) for result in self.recorded.results]
        if [tuple(tensor.shape) for tensor in reference.tensors] != recorded:
            raise NotEquivalent(f"the original returns other shapes than were recorded in {self._where}")
        order = [*range(reference.outputs, len(reference.paths)), *range(reference.outputs)]
        errors: list[float] = []
        for position in order:
            expected = kept_part(self._as_multiplied(reference, position), self._places[position])
            path, found = reference.paths[position], pruned.tensors[position].detach()
            if expected.shape != found.shape:
                what = f"shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
            else:
                errors.append(relative_error(expected, found))
                if errors[-1] <= tolerance:
                    continue
                if moved is not None and errors[-1] <= _ROUNDED:
                    shaken = kept_part(self._as_multiplied(moved(), position), self._places[position])
                    if errors[-1] <= _TIMES * relative_error(expected, shaken):
                        continue
                what = (
                    "something that is not a number"
                    if errors[-1] == float("inf")
                    else f"a relative error of {errors[-1]:.2g} (at most {tolerance:g} is allowed)"
                )
            raise NotEquivalent(
                f"module {path or '(model)'} of the pruned model has {what} in {self._where}; nothing was changed; "
                "if the plan was made by cutback for this model, this is a bug worth reporting",
                path,
            )
        return errors

    def _as_multiplied(self, reference: Run, position: int) -> Tensor:
        """Return a result of the reference with what the plan multiplies multiplied where it shows, and only there.

        What lies behind the operator that is made up for must equal the original as it is: that is the proof.
        """
        result = reference.tensors[position].detach()
        for shown, factor in self._factors.get(position, ()):
            result = torch.where(shown.to(result.device), result * factor, result)
        return result

    def _same_gradients(self, reference: Run, pruned: Run, again: Callable[[], Run]) -> None:
        """Check that the same parameters receive a gradient; a model that cannot be differentiated has none.

        Args:
            reference: a run of the original whose autograd graph is gone.
            pruned: a run of the pruned model.
            again: repeats the run of the original, for the rare case that it has to be differentiated.
        """
        try:
            found = gradients_of(pruned)
        except RuntimeError:
            try:
                gradients_of(again())
            except RuntimeError:
                return
            raise
        if not found ^ reference.reached:
            return
        odd = sorted(found ^ gradients_of(again()))
        if odd:
            raise NotEquivalent(
                f"in {self._where} gradients reach other parameters than before the cut: {', '.join(odd[:3])}; "
                "nothing was changed",
                odd[0].rpartition(".")[0],
            )
