"""Weight transfer: what consumes a removed filter is added to what consumes one of the same function that stays."""

from collections.abc import Mapping, Sequence

import torch

from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.methods.activations import Products
from cutback.planning.plan import Plan
from cutback.surgery.columns import columns_cut


def heirs(labels: Sequence[int], kept: Sequence[int], found: Products) -> dict[int, int]:
    """Return for each removed unit the one of its cluster that stays and correlates most with it, if one stays."""
    stays = set(kept)
    result: dict[int, int] = {}
    for unit, label in enumerate(labels):
        candidates = [other for other in kept if labels[other] == label and label >= 0]
        if unit not in stays and candidates:
            result[unit] = max(candidates, key=lambda other: found.correlation[unit, other])
    return result


def transferred_(
    dense: Graph, cut: Graph, plan: Plan, labels: Mapping[str, Sequence[int]], found: Mapping[str, Products]
) -> tuple[list[str], dict[str, str]]:
    """Add the columns of removed filters to those of their heirs, in place: ``W[:, s] += beta W[:, r]``.

    ``beta = <A_r, A_s> / <A_s, A_s>`` over the calibration pictures; exact for filters that are equal up to a positive
    factor and a ReLU behind them.

    Args:
        dense: the network before the cut.
        cut: the network after it.
        plan: the plan of the cut.
        labels: the cluster of each unit, by group.
        found: how activations go together, by group.

    Returns:
        The names of the weights that were changed, and of those that were not, with the reason of each.
    """
    columns, skipped = columns_cut(dense, plan)
    before, after = state_tensors(dense.model), state_tensors(cut.model)
    done: list[str] = []
    with torch.no_grad():
        for name, own in columns.items():
            dense_weight = own.of_dense(before[name])
            for number, planned in enumerate(plan.groups):
                if planned.name not in labels:
                    continue
                squares = found[planned.name].squares
                for gone, heir in heirs(labels[planned.name], planned.kept, found[planned.name]).items():
                    there, here = own.before(number, gone), own.after(number, heir)
                    if len(there) and len(there) == len(here) and squares[heir, heir] > 0:
                        beta = squares[gone, heir] / squares[heir, heir]
                        after[name][:, torch.from_numpy(here)] += float(beta) * dense_weight[:, torch.from_numpy(there)]
                        done.append(name)
    return list(dict.fromkeys(done)), skipped
