"""The proof of a cut: the pruned model computes what the original computes with the removed channels silenced."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.errors import CutbackError, DataDependentControlFlow, NotEquivalent
from cutback.graph.capture import Capture, capture
from cutback.graph.clone import ordinary, own_tensors, random_state_kept, state_tensors, structural_clone
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.graph.replay import KeptLabels
from cutback.graph.second_pass import kept_labels
from cutback.planning.make import planned_masks
from cutback.planning.plan import Plan
from cutback.surgery.comparing import kept_part, relative_error
from cutback.surgery.conditioning import awakened, well_conditioned
from cutback.surgery.factors import multiplied_results
from cutback.surgery.gradients import gradients_of, reachable
from cutback.surgery.running import Run, Runner, double, exact, redrawn, redrawn_in_range, single
from cutback.surgery.silenced import run_silenced, silenced_states
from cutback.surgery.slices import cut_states

_SINGLE = 1e-5
_DOUBLE = 1e-9
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

    The reference is the captured graph on the original states with the columns of removed channels set to zero; the
    pruned model's own forward must agree with it at the kept channels of every module, in eval and in train mode, on
    the model's values and the example inputs and on well-conditioned random values and inputs. The same parameters must
    receive a gradient.

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
    generator = torch.Generator().manual_seed(_SEED)
    devices = [tensor.device for tensor in states.values()]
    proofs: list[Proof] = []
    with random_state_kept(), exact(devices), torch.inference_mode(mode=False), torch.enable_grad():
        random = well_conditioned(graph, states, generator)
        for number, recorded in enumerate(graph.captures):
            check = _Check(graph, plan, number, kept)
            own = recorded.inputs.map(lambda tensor: single(ordinary(tensor)))
            proofs.append(check(states, own, gradients=True))
            awake, fresh = _fresh(check.recorded, random, own, generator)
            proofs.append(check(awake, fresh, gradients=False))
    return Proof(
        max(proof.error for proof in proofs),
        any(proof.double for proof in proofs),
        sum(proof.comparisons for proof in proofs),
        tuple("train" if recorded.training else "eval" for recorded in graph.captures),
    )


def _fresh(
    recorded: Capture, states: Mapping[str, Tensor], inputs: Inputs, generator: torch.Generator
) -> tuple[dict[str, Tensor], Inputs]:
    """Return well-conditioned states and fresh inputs: normal ones, or in the examples' range where those give NaN."""
    with torch.no_grad():
        torch.manual_seed(_SEED)
        fresh = inputs.map(lambda tensor: redrawn(tensor, generator))
        awake, sound = awakened(recorded, states, fresh)
        if not sound:
            fresh = inputs.map(lambda tensor: redrawn_in_range(tensor, generator))
            awake, _ = awakened(recorded, states, fresh)
    return awake, fresh


class _Check:
    """Compares reference and pruned model in one mode."""

    def __init__(self, graph: Graph, plan: Plan, number: int, kept: list[NDArray[np.bool_]]) -> None:
        recorded = graph.captures[number]
        self._graph, self._plan, self.recorded, self._kept = graph, plan, recorded, kept
        self._units = graph.result_units[number]
        self._factors = multiplied_results(graph.coupling.labellings[number], plan)
        self._trails = graph.coupling.labellings[number].trails
        self._labels = kept_labels(graph, kept)
        changes = [(path, name, value) for path, values in plan.attributes.items() for name, value in values.items()]
        self._dense = Runner(graph.model, training=recorded.training)
        self._pruned = Runner(graph.model, training=recorded.training, changes=changes)
        self._double: Capture | None = None
        states = state_tensors(graph.model)
        if any(single(tensor) is not tensor for tensor in states.values()):  # half precision is proven in float32
            states = {name: single(ordinary(tensor)) for name, tensor in states.items()}
            self.recorded = self._captured(states, recorded.inputs.map(single))
        self._where = "train mode" if recorded.training else "eval mode"

    def __call__(self, states: Mapping[str, Tensor], inputs: Inputs, *, gradients: bool) -> Proof:
        try:
            return self._compare(states, inputs, _SINGLE, gradients=gradients)
        except (NotEquivalent, DataDependentControlFlow) as first:
            try:
                return self._in_double(states, inputs, gradients=gradients)
            except NotEquivalent as second:
                raise (first if isinstance(first, DataDependentControlFlow) else second) from None
            except CutbackError:
                raise first from None

    def _in_double(self, states: Mapping[str, Tensor], inputs: Inputs, *, gradients: bool) -> Proof:
        """Compare in float64, with a capture in float64: what code creates has the type of what it computes with."""
        precise, before = {name: double(tensor) for name, tensor in states.items()}, self.recorded
        self._double = self._double or self._captured(precise, self.recorded.inputs.map(double))
        self.recorded = self._double
        try:
            proof = self._compare(precise, inputs.map(double), _DOUBLE, gradients=gradients)
        finally:
            self.recorded = before
        return Proof(proof.error, double=True, comparisons=proof.comparisons)

    def _captured(self, states: Mapping[str, Tensor], inputs: Inputs) -> Capture:
        """Capture the model with other states."""
        clone = structural_clone(self._graph.model)
        own_tensors(clone, states)
        return capture(clone, inputs, training=self.recorded.training)

    def _compare(self, states: Mapping[str, Tensor], inputs: Inputs, tolerance: float, *, gradients: bool) -> Proof:
        self._graph_is_the_model(states, inputs, tolerance)
        silenced = self._leaves(silenced_states(self._graph, states, self._kept), gradients=gradients)
        cut = self._leaves(cut_states(states, self._plan), gradients=gradients)
        with torch.set_grad_enabled(gradients):
            reference = self._reference(silenced, inputs, self._labels)
            try:
                torch.manual_seed(_SEED)
                pruned = self._pruned(cut, inputs)
            except Exception as error:
                path = self._pruned.running
                raise NotEquivalent(
                    f"the pruned model's own forward fails in {self._where} in module {path or '(model)'}: "
                    f"{type(error).__name__}: {error}; nothing was changed",
                    path,
                ) from error
        errors = self._errors(reference, pruned, tolerance)
        if gradients:
            self._same_gradients(reference, pruned)
        return Proof(max(errors, default=0.0), double=False, comparisons=len(errors))

    def _graph_is_the_model(self, states: Mapping[str, Tensor], inputs: Inputs, tolerance: float) -> None:
        """Check that the uncut captured graph equals the model's own forward."""
        try:
            with torch.no_grad():
                torch.manual_seed(_SEED)
                own = self._dense(self._leaves(states, gradients=False), inputs)
                captured = self._reference(self._leaves(states, gradients=False), inputs, None)
        except Exception as error:
            raise DataDependentControlFlow(
                f"{type(self._graph.model).__name__} cannot be run again in {self._where} on other values of the same "
                f"shapes ({type(error).__name__}: {error}); make its forward a function of its inputs"
            ) from error
        same = own.outputs == captured.outputs and list(own.paths) == list(captured.paths)
        found = zip(own.tensors[: own.outputs], captured.tensors[: own.outputs], strict=True)
        if not same or any(relative_error(a, b) > tolerance for a, b in found):
            raise DataDependentControlFlow(
                f"{type(self._graph.model).__name__} computes something else than was recorded from it in "
                f"{self._where}: its forward depends on values, on a counter or on unseeded randomness; make it a "
                "function of its inputs"
            )

    def _reference(self, states: Mapping[str, Tensor], inputs: Inputs, labels: KeptLabels | None) -> Run:
        """Run the captured graph, silenced where labels say what stays."""
        torch.manual_seed(_SEED)
        if labels is None:
            tensors = self.recorded.run(states, inputs)
        else:
            tensors = run_silenced(self.recorded, self._trails, labels, states, inputs)
        paths = ["" for _ in range(self.recorded.outputs)] + list(self.recorded.module_outputs)
        return Run(paths, tensors, self.recorded.outputs, states)

    def _leaves(self, states: Mapping[str, Tensor], *, gradients: bool) -> dict[str, Tensor]:
        """Return fresh leaves: parameters that may receive gradients, and buffers that may be written."""
        trained = {name for name, parameter in self._graph.model.named_parameters() if parameter.requires_grad}
        parameters = {name for name, _ in self._graph.model.named_parameters()}
        return {
            name: tensor.detach().requires_grad_(gradients and name in trained)
            if name in parameters
            else tensor.detach().clone()
            for name, tensor in states.items()
        }

    def _errors(self, reference: Run, pruned: Run, tolerance: float) -> list[float]:
        """Compare what every module returned, then the model's outputs; raise at the first difference."""
        if list(reference.paths) != list(pruned.paths):
            raise NotEquivalent(f"the pruned model runs other modules than the original in {self._where}")
        order = [*range(reference.outputs, len(reference.paths)), *range(reference.outputs)]
        errors: list[float] = []
        for position in order:
            expected = kept_part(self._as_multiplied(reference, position), self._units[position], self._kept)
            path, found = reference.paths[position], pruned.tensors[position].detach()
            if expected.shape != found.shape:
                what = f"shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
            else:
                errors.append(relative_error(expected, found))
                if errors[-1] <= tolerance:
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

    def _same_gradients(self, reference: Run, pruned: Run) -> None:
        """Check that the same parameters receive a gradient; a model that cannot be differentiated has none."""
        try:
            found = gradients_of(pruned)
        except RuntimeError:
            try:
                gradients_of(reference)
            except RuntimeError:
                return
            raise
        if found == reachable(reference):
            return
        odd = sorted(found ^ gradients_of(reference))
        if odd:
            raise NotEquivalent(
                f"in {self._where} gradients reach other parameters than before the cut: {', '.join(odd[:3])}; "
                "nothing was changed",
                odd[0].rpartition(".")[0],
            )
