"""``least-squares``: weights in closed form, so that each layer puts out what it does in the dense network."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from cutback.errors import DataError, UserMistake
from cutback.graph.clone import modules_by_path, random_state_kept, set_training, state_tensors
from cutback.graph.graph import layer_of
from cutback.planning.plan import Plan
from cutback.surgery.slices import sliced
from cutback.train.recovery.kept import kept_outputs
from cutback.train.recovery.looking import Call, Called, called_layers, calls_of
from cutback.train.recovery.normal_equations import NormalEquations
from cutback.train.recovery.step import Outcome, Repair, Situation, recovery_steps
from cutback.train.recovery.unfolding import (
    Layer,
    TransposedConvolution,
    drawn_positions,
    fits,
    groups_of,
    is_layer,
    unfolded_inputs,
    unfolded_outputs,
)

EXACT = 1e-10
"""A layer whose squared error is at most this share of its outputs' squares needs nothing."""
PLAIN = "{layer} does not put out the plain product with its weight"
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
        """Reconstruct the layers; where that fails, the network is as it was.

        Raises:
            DataError: there is no calibration batch, or one cannot be read.
        """
        model, dense = situation.model, situation.dense
        before = {name: tensor.detach().clone() for name, tensor in state_tensors(model).items()}
        modes, dense_modes = set_training(model, False), set_training(dense, False)
        try:
            with random_state_kept(), torch.no_grad():
                return self._reconstructed(situation)
        except BaseException:
            with torch.no_grad():
                for name, tensor in state_tensors(model).items():
                    tensor.copy_(before[name])
            raise
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
        left: dict[str, float] = {}
        for call in called:
            try:
                _check(layers[call.path], modules)
                share = self._reconstruct(situation, call, modules)
            except _Impossible as reason:
                skipped[call.path] = str(reason)
            else:
                if share is not None:
                    left[call.path] = share
        notes = ()
        if left:
            median = sorted(left.values())[len(left) // 2]
            notes = (f"of {len(left)} layers' squared errors {median:.0%} are left, as a median",)
        return Outcome(tuple(left), tuple(skipped.items()), notes)

    def _reconstruct(self, situation: Situation, call: Called, modules: Mapping[str, nn.Module]) -> float | None:
        """Reconstruct one layer; return which share of its squared error is left, ``None`` where there was none."""
        layer, norm = cast("Layer", modules[call.path]), modules[call.norm] if call.norm else None
        equations = NormalEquations(intercept=layer.bias is not None or norm is not None)
        generator, wanted = torch.Generator().manual_seed(self.seed), 0.0
        for own, target in _pairs(situation, call, layer):
            positions = drawn_positions(layer, target, self.positions, generator)
            rows = unfolded_inputs(layer, own.inputs, positions)
            outputs, targets = (unfolded_outputs(layer, some, positions) for some in (own.outputs, target))
            if not bool((targets - outputs).isfinite().all()):
                raise _Impossible("its outputs are not finite")
            if not equations.rows and not _computes_its_weight(layer, rows, outputs):
                raise _Impossible(PLAIN.format(layer=type(layer).__name__))
            wanted += float(targets.double().square().sum())
            equations.add(rows, targets.double() - outputs.double())
        if equations.error <= EXACT * wanted:
            return None
        change, intercept, left = equations.solve(self.ridge)
        layer.weight.add_(change.reshape(layer.weight.shape).to(layer.weight.dtype))
        if layer.bias is not None:
            layer.bias.add_(intercept.flatten().to(layer.bias.dtype))
        elif isinstance(norm, BatchNorm) and norm.running_mean is not None:
            norm.running_mean.sub_(intercept.flatten().to(norm.running_mean.dtype))
        return left / equations.error


class _Impossible(Exception):
    """A layer cannot be reconstructed; says why."""


def _pairs(situation: Situation, call: Called, layer: Layer) -> Iterator[tuple[Call, Tensor]]:
    """Yield each call of a layer in the cut network, and what the dense one's puts out at the channels that stay."""
    dense_layer = situation.dense.get_submodule(call.path)
    for inputs, _ in situation.batches:
        expected = calls_of(situation.dense, dense_layer, inputs, call.times)
        found = calls_of(situation.model, layer, inputs, call.times)
        if len(found) != len(expected):
            raise _Impossible(f"it is called {len(found)} times, in the dense network {len(expected)} times")
        for own, dense in zip(found, expected, strict=True):
            target = kept_outputs(dense.outputs, layer, call.path, situation.plan)
            if target.shape != own.outputs.shape:
                raise _Impossible(
                    f"its outputs have shape {tuple(own.outputs.shape)}, in the dense network {tuple(target.shape)}"
                )
            if not fits(layer, own.inputs, own.outputs):
                raise _Impossible(PLAIN.format(layer=type(layer).__name__))
            yield own, target


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


def _check(layer: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Refuse a layer whose weight is not a parameter of its own."""
    weight = layer._parameters.get("weight")
    if weight is None:
        raise _Impossible("its weight is computed from other parameters")
    for path, module in modules.items():
        if module is not layer and any(parameter is weight for parameter in module._parameters.values()):
            raise _Impossible(f"it shares its weight with {path}")


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
