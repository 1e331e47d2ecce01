"""Which calls of a captured graph are numbered: those it has in every mode, with or without dropout."""

from torch import Tensor, fx

from cutback.graph.capture import operator_of
from cutback.graph.replay import has_effect

_DROPOUTS = {f"aten::{name}" for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")}


def matters(node: fx.Node) -> bool:
    """Whether a call is one that every capture has: no dropout, no counting of batches, nothing without effect."""
    return has_effect(node) and operator_of(node) not in _DROPOUTS and not _counts(node)


def _counts(node: fx.Node) -> bool:
    """Whether a call adds to a number that the model holds, as a batch norm in train mode does."""
    counted = node.args[0] if node.args else None
    if operator_of(node) != "aten::add" or not isinstance(counted, fx.Node) or counted.op != "placeholder":
        return False
    value = counted.meta.get("val")
    return isinstance(value, Tensor) and value.dim() == 0 and not value.is_floating_point()
