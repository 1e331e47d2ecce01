"""What cutback found coupled in twelve architectures, written down for review: one JSON file each.

``python -m tests.zoo.golden`` writes the files again and shows what has changed.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

import cutback
from benchmarks.zoo import libraries
from benchmarks.zoo.catalogue import torchvision_builder
from cutback.graph.graph import Graph, Group, layer_of

FOLDER = Path(__file__).parent
SIZE = 64
_COMMON = ("weight", "bias", "running_mean", "running_var")


def _timm(name: str) -> Callable[[], nn.Module]:
    return lambda: libraries.timm().create_model(name)


GOLDEN: Mapping[str, Callable[[], nn.Module]] = {
    **{
        name: torchvision_builder(name)
        for name in (
            *("resnet50", "mobilenet_v3_large", "densenet121", "regnet_y_400mf", "shufflenet_v2_x1_0"),
            *("resnext50_32x4d", "googlenet", "efficientnet_b0", "convnext_tiny", "swin_t", "deeplabv3_resnet50"),
        )
    },
    "cspresnet50": _timm("cspresnet50"),
}


def described(name: str) -> str:
    """Trace an architecture and return its coupling as JSON text."""
    libraries.torchvision()
    torch.manual_seed(0)
    graph = cutback.trace(GOLDEN[name](), torch.randn(1, 3, SIZE, SIZE))
    return json.dumps(coupling(graph), indent=1, ensure_ascii=False) + "\n"


def coupling(graph: Graph) -> dict[str, object]:
    """Return groups with what they slice, and layers that stay with the reasons."""
    return {
        "groups": [
            {
                "name": group.name,
                "units": group.units,
                "balance": group.balance,
                "slices": _slices(group),
            }
            for group in graph.groups
        ],
        "kept": {kept.layer: f"{kept.channels}/{kept.total}: {kept.reasons[0]}" for kept in graph.kept},
        "unreached": list(graph.unreached),
    }


def file_of(name: str) -> Path:
    """Return the file of an architecture."""
    return FOLDER / f"{name}.json"


def _slices(group: Group) -> list[str]:
    """Say of each layer what a group slices and where; slots of one layer at the same indices share a line."""
    lines: dict[tuple[str, str], dict[str, None]] = {}
    for slot, table in group.slices.items():
        held = slot.state.rpartition(".")[2]
        owner = (layer_of(slot.state) or "(model)") if held in _COMMON else slot.state
        lines.setdefault((owner, _place(np.asarray(table))), {})[slot.role] = None
    return [
        " ".join(part for part in (owner, "+".join(roles), place) if part) for (owner, place), roles in lines.items()
    ]


def _place(table: np.ndarray) -> str:
    """Say which indices the units own; nothing where unit ``i`` owns the index ``i``.

    Args:
        table: shape ``(units, indices a unit)``.
    """
    units, each = table.shape
    start = int(table.min())
    natural = np.arange(units * each)
    if np.array_equal(table, start + natural.reshape(units, each)):
        return " ".join([*([f"by {each}"] if each > 1 else []), *([f"from {start}"] if start else [])])
    if np.array_equal(table, start + natural.reshape(each, units).T):
        return f"{each} blocks" + (f" from {start}" if start else "")
    runs = [",".join(map(str, row)) for row in table[:3]]
    checksum = int((table * (1 + natural.reshape(table.shape))).sum())
    return f"at {' '.join(runs)}{' ...' if units > 3 else ''} (checksum {checksum})"
