"""The dense network's activations at the channels that the cut network still has."""

from torch import Tensor, nn

from cutback.planning.plan import Plan
from cutback.surgery.slices import multiplied, sliced
from cutback.train.recovery.unfolding import Layer


def kept_outputs(outputs: Tensor, layer: Layer, path: str, plan: Plan) -> Tensor:
    """Return what a dense layer puts out at the channels that stay, multiplied where the plan multiplies its rows.

    Args:
        outputs: what it puts out, (N, C, ...) of a convolution, (N, ..., C) of a linear layer.
        layer: the layer, of either network.
        path: its path.
        plan: the plan that leads from the dense network to the cut one.
    """
    name, dimension = f"{path}.weight", outputs.dim() - 1 if isinstance(layer, nn.Linear) else 1
    kept = plan.slices.get(name, {}).get(0)
    scales = [scaled for scaled in plan.scales.get(name, ()) if scaled.dimension == 0]
    moved = multiplied(outputs.movedim(dimension, 0), scales)
    return (moved if kept is None else sliced(moved, {0: kept})).movedim(0, dimension)
