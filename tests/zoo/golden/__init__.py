"""What cutback found coupled in twelve architectures, written down for review: one JSON file each.

``python -m tests.zoo.golden`` writes the files again and shows what has changed.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
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
_SOURCE = re.compile(r" \([^()]*\.py:\d+\)")  # where a library lies, and at which line, depends on the machine
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
    return "\n".join(_lines(coupling(graph))) + "\n"


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
        "kept": {
            kept.layer: f"{kept.channels}/{kept.total}: {_SOURCE.sub('', str(kept.reasons[0]))}" for kept in graph.kept
        },
        "unreached": list(graph.unreached),
    }


def _lines(found: Mapping[str, object]) -> Iterator[str]:
    """Write a coupling as JSON, a group to a line."""
    groups, rest = found["groups"], {key: value for key, value in found.items() if key != "groups"}
    assert isinstance(groups, list)
    yield '{"groups": ['
    yield from (json.dumps(g, ensure_ascii=False) + "," * (n < len(groups)) for n, g in enumerate(groups, start=1))
    yield "],"
    yield json.dumps(rest, ensure_ascii=False, indent=1).removeprefix("{\n")


def file_of(name: str) -> Path:
    """Return the file of an architecture."""
    return FOLDER / f"{name}.json"


def _slices(group: Group) -> str:
    """Say of each layer what a group slices and where: slots of one layer at the same indices, and runs of layers.

    Layers whose slices and place are the same are named together.
    """
    lines: dict[tuple[str, str], dict[str, None]] = {}
    for slot, table in group.slices.items():
        held = slot.state.rpartition(".")[2]
        owner = (layer_of(slot.state) or "(model)") if held in _COMMON else slot.state
        lines.setdefault((owner, _place(np.asarray(table))), {})[slot.role] = None
    alike: dict[str, list[str]] = {}
    for (owner, place), roles in lines.items():
        alike.setdefault(" ".join(part for part in ("+".join(roles), place) if part), []).append(owner)
    return "; ".join(f"{what}: {_abbreviated(owners)}" for what, owners in alike.items())


def _abbreviated(paths: list[str]) -> str:
    """Join paths, each without the leading parts it shares with the one before, which a dot stands for."""
    written: list[str] = []
    before: list[str] = []
    for path in paths:
        parts = path.split(".")
        shared = 0
        while shared < min(len(parts), len(before)) - 1 and parts[shared] == before[shared]:
            shared += 1
        written.append("." * shared + ".".join(parts[shared:]))
        before = parts
    return " ".join(written)


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
