"""``least-squares``: weights in closed form, so that each layer puts out what it does in the dense network."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from cutback.errors import DataError, UserMistake
from cutback.graph.clone import modules_by_path, random_state_kept, set_training
from cutback.graph.graph import layer_of
from cutback.planning.plan import Plan
from cutback.surgery.slices import sliced
from cutback.train.recovery.kept import kept_outputs
from cutback.train.recovery.looking import Called, called_layers, calls_of
from cutback.train.recovery.normal_equations import NormalEquations
from cutback.train.recovery.step import Outcome, Repair, Situation, recovery_steps
from cutback.train.recovery.unfolding import (
    Layer,
    TransposedConvolution,
    drawn_positions,
    groups_of,
    is_layer,
    unfolded_inputs,
    unfolded_outputs,
)

EXACT = 1e-10
"""A layer whose squared error is at most this share of its outputs' squares needs nothing."""
SAME = 1e-3
"""So far at most, relative to the outputs, may a layer be from the convolution of its weight."""


@recovery_steps.register("least-squares")
@dataclass(frozen=True)
class LeastSquares(Repair):
    """Reconstruct layers from calibration batches, in closed form and without labels (He 2017, section 3.2).

    Layer by layer, from the front, the weights change so that for the inputs the layer has in the cut network its
    outputs come nearest to what the dense network's layer puts out at the channels that stay:
    ``(G + ridge * mean(diag G)) D = A' E``, where the rows of ``A`` are inputs, ``G = A' A``, and ``E`` is what the
    outputs lack. Errors of layers before it are made up for as well. A bias takes up the mean; so does the running mean
    of a batch norm behind a layer without one. Batch norms begin with the dense network's statistics, to which the
    outputs come back.

    Attributes:
        ridge: penalty on changes of the weights, as a share of the mean diagonal of ``G``.
        positions: so many output positions of each picture at most are looked at, drawn by ``seed``.
        seed: seed of the draw.
    """

    ridge: float = 1e-4
    positions: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.ridge > 0 or self.positions < 1:
            raise UserMistake(
                f"least-squares needs a ridge above 0 and at least one position, not {self.ridge:g} and "
                f"{self.positions}; write for example least-squares:ridge=1e-4:positions=64"
            )

    def apply(self, situation: Situation) -> Outcome:
        """Reconstruct the layers.

        Raises:
            DataError: there is no calibration batch.
        """
        model, dense = situation.model, situation.dense
        modes, dense_modes = set_training(model, False), set_training(dense, False)
        try:
            with random_state_kept():
                return self._reconstructed(situation)
        finally:
            set_training(model, modes)
            set_training(dense, dense_modes)

    def _reconstructed(self, situation: Situation) -> Outcome:
        modules = modules_by_path(situation.model)
        layers = {path: module for path, module in modules.items() if is_layer(module)}
        first = next((inputs for inputs, _ in situation.batches), None)
        if first is None:
            raise DataError("there are no calibration batches; give the training split at least one picture")
        _restore_statistics(situation)
        called = called_layers(situation.model, first, layers)
        skipped = _not_called(situation.plan, modules, {call.path for call in called})
        done: list[str] = []
        left: list[float] = []
        for call in called:
            reason = _obstacle(layers[call.path], modules)
            if not reason:
                share, reason = self._reconstruct(situation, call, modules)
                if share is not None:
                    done.append(call.path)
                    left.append(share)
            if reason:
                skipped[call.path] = reason
        notes = ()
        if left:
            median = sorted(left)[len(left) // 2]
            notes = (f"of {len(left)} layers' squared errors {median:.0%} are left, as a median",)
        return Outcome(tuple(done), tuple(skipped.items()), notes)

    def _reconstruct(
        self, situation: Situation, call: Called, modules: Mapping[str, nn.Module]
    ) -> tuple[float | None, str]:
        """Reconstruct one layer; return which share of its squared error is left, or why nothing was done."""
        layer, norm = cast("Layer", modules[call.path]), modules[call.norm] if call.norm else None
        equations = NormalEquations(intercept=layer.bias is not None or norm is not None)
        generator, wanted = torch.Generator().manual_seed(self.seed), 0.0
        dense_layer = situation.dense.get_submodule(call.path)
        for inputs, _ in situation.batches:
            expected = calls_of(situation.dense, dense_layer, inputs, call.times)
            found = calls_of(situation.model, layer, inputs, call.times)
            for own, dense in zip(found, expected, strict=True):
                target = kept_outputs(dense.outputs, layer, call.path, situation.plan)
                if target.shape != own.outputs.shape:
                    return (
                        None,
                        f"its outputs have shape {tuple(own.outputs.shape)}, the dense ones {tuple(target.shape)}",
                    )
                positions = drawn_positions(layer, own.outputs, self.positions, generator)
                rows = unfolded_inputs(layer, own.inputs, positions)
                outputs = unfolded_outputs(layer, own.outputs, positions)
                targets = unfolded_outputs(layer, target, positions)
                if not bool((targets - outputs).isfinite().all()):
                    return None, "its outputs are not finite"
                if not equations.rows and not _computes_its_weight(layer, rows, outputs):
                    return None, f"{type(layer).__name__} does not put out the plain product with its weight"
                wanted += float(targets.double().square().sum())
                equations.add(rows, targets.double() - outputs.double())
        if equations.error <= EXACT * wanted:
            return None, ""
        change, intercept, left = equations.solve(self.ridge)
        with torch.no_grad():
            layer.weight.add_(change.reshape(layer.weight.shape).to(layer.weight.dtype))
            if layer.bias is not None:
                layer.bias.add_(intercept.flatten().to(layer.bias.dtype))
            elif isinstance(norm, BatchNorm) and norm.running_mean is not None:
                norm.running_mean.sub_(intercept.flatten().to(norm.running_mean.dtype))
        return left / equations.error, ""


def _restore_statistics(situation: Situation) -> None:
    """Give batch norms the dense network's running statistics at the channels that stay."""
    dense = modules_by_path(situation.dense)
    for path, module in modules_by_path(situation.model).items():
        if isinstance(module, BatchNorm) and module.running_mean is not None and path in dense:
            for name in ("running_mean", "running_var"):
                value = getattr(dense[path], name)
                getattr(module, name).copy_(sliced(value, situation.plan.slices.get(f"{path}.{name}", {})))


def _computes_its_weight(layer: Layer, rows: Tensor, outputs: Tensor) -> bool:
    """Say whether a layer's outputs are its inputs times its weight, plus its bias."""
    groups = groups_of(layer)
    weight = layer.weight.detach().reshape(groups, len(layer.weight) // groups, -1)
    if weight.shape[2] != rows.shape[2]:
        return False
    product = rows @ weight.transpose(1, 2)
    if layer.bias is not None:
        product = product + layer.bias.detach().reshape(groups, 1, -1)
    return float((product - outputs).norm()) <= SAME * float(outputs.norm()) + torch.finfo(outputs.dtype).tiny


def _obstacle(layer: nn.Module, modules: Mapping[str, nn.Module]) -> str:
    """Say what keeps a layer from being reconstructed; nothing where nothing does."""
    weight = layer._parameters.get("weight")
    if weight is None:
        return "its weight is computed from other parameters"
    for path, module in modules.items():
        if module is not layer and any(parameter is weight for parameter in module._parameters.values()):
            return f"it shares its weight with {path}"
    return ""


def _not_called(plan: Plan, modules: Mapping[str, nn.Module], called: Collection[str]) -> dict[str, str]:
    """Return which weights that lose inputs are not those of layers that are called, with the reason of each."""
    skipped: dict[str, str] = {}
    for name, dimensions in plan.slices.items():
        path = layer_of(name)
        module = modules.get(path)
        if path in called or (0 if isinstance(module, TransposedConvolution) else 1) not in dimensions:
            continue
        if not path or module is None:
            skipped[name] = "it is used without a layer of its own"
        elif is_layer(module):
            skipped[path] = "no forward pass in eval mode calls it"
        else:
            skipped[path] = f"{type(module).__name__} is no linear layer or convolution"
    return skipped
