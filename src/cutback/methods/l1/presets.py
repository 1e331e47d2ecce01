"""The configurations that the paper names, for the networks that it prunes.

H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 4. Layers are numbered as there: convolutions
from 1 at the stem in the order of execution, projections not counted, so that an even number is the first convolution
of a residual block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from torch import fx

from cutback.errors import ArchitectureMismatch, UnknownName
from cutback.graph.capture import operator_of
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.methods.l1.projections import made_by
from cutback.registry import near_misses


@dataclass(frozen=True)
class Network:
    """What a network must be for a configuration to be about it.

    Attributes:
        title: what it is called in the paper.
        widths: output channels of its convolutions, projections left out.
        projections: output channels of its 1x1 convolutions.
        hidden: output features of its linear layers but the last.
        example: how it is built here.
    """

    title: str
    widths: tuple[int, ...]
    projections: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()
    example: str = ""


@dataclass(frozen=True)
class Preset:
    """A configuration.

    Attributes:
        network: the network that it is about.
        ratios: the share in per cent of the filters of a layer that goes, by the number of the layer.
    """

    network: Network
    ratios: Mapping[int, int] = field(default_factory=dict)


def _cifar(depth: int) -> Network:
    blocks = (depth - 2) // 6
    widths = (16, *[width for width in (16, 32, 64) for _ in range(2 * blocks)])
    return Network(f"ResNet-{depth} for CIFAR with padded shortcuts", widths, example=f"cutback:resnet{depth}")


def _first(stages: Sequence[range], ratios: Sequence[int], skip: set[int]) -> dict[int, int]:
    """Return the ratio of the first convolution of each block, by stage."""
    numbered = zip(stages, ratios, strict=True)
    return {number: ratio for stage, ratio in numbered for number in stage if ratio and number not in skip}


_VGG16 = Network(
    "VGG-16 with one hidden linear layer of 512",
    (64, 64, 128, 128, *[256] * 3, *[512] * 6),
    hidden=(512,),
    example="cutback:vgg16",
)
_RESNET34 = Network(
    "ResNet-34 for ImageNet",
    (64, *[64] * 6, *[128] * 8, *[256] * 12, *[512] * 6),
    projections=(128, 256, 512),
    example="cutback:resnet34",
)
_STAGES_56 = (range(2, 19, 2), range(20, 37, 2), range(38, 55, 2))
_STAGES_110 = (range(2, 37, 2), range(38, 73, 2), range(74, 109, 2))
_STAGES_34 = (range(2, 7, 2), range(8, 15, 2), range(16, 27, 2), range(28, 33, 2))
_SKIP_34 = {2, 8, 14, 16, 26, 28, 30, 32}

PRESETS: Mapping[str, Preset] = {
    "vgg16-a": Preset(_VGG16, dict.fromkeys((1, *range(8, 14)), 50)),
    "resnet56-a": Preset(_cifar(56), _first(_STAGES_56, (10, 10, 10), {16, 20, 38, 54})),
    "resnet56-b": Preset(_cifar(56), _first(_STAGES_56, (60, 30, 10), {16, 18, 20, 34, 38, 54})),
    "resnet110-a": Preset(_cifar(110), _first(_STAGES_110, (50, 0, 0), {36})),
    "resnet110-b": Preset(_cifar(110), _first(_STAGES_110, (50, 40, 30), {36, 38, 74})),
    "resnet34-a": Preset(_RESNET34, _first(_STAGES_34, (30, 30, 30, 0), _SKIP_34)),
    "resnet34-b": Preset(_RESNET34, _first(_STAGES_34, (50, 60, 40, 0), _SKIP_34)),
    # What the third stage returns: second convolutions and the shortcut, as one.
    "resnet34-c": Preset(_RESNET34, dict.fromkeys(range(17, 28, 2), 20)),
}
"""The configurations by name."""


def preset_ratios(graph: Graph, name: str) -> dict[str, Fraction]:
    """Return the share of each group that a configuration removes.

    Args:
        graph: the traced model.
        name: of a configuration.

    Raises:
        UnknownName: no configuration has that name.
        ArchitectureMismatch: the model is another network than the configuration is about.
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise UnknownName(f"no preset is called {name!r}; {near_misses(name, list(PRESETS))}")
    found = _layers(graph)
    for what in ("widths", "projections", "hidden"):
        expected, there = getattr(preset.network, what), found[what]
        if expected != tuple(len(state_tensors(graph.model)[state]) for state in there):
            raise _mismatch(graph, name, what)
    ratios: dict[str, Fraction] = {}
    for number, percent in preset.ratios.items():
        state = found["widths"][number - 1]
        groups = [group.name for group in graph.groups if state in made_by(group)]
        if len(groups) != 1:
            raise _mismatch(graph, name, "widths")
        ratios[groups[0]] = Fraction(percent, 100)
    return ratios


def _layers(graph: Graph) -> dict[str, list[str]]:
    """Return the weights of convolutions, of projections and of linear layers but the last, in order of execution."""
    capture, states = graph.captures[0], state_tensors(graph.model)
    names = dict(zip(capture.nodes, capture.states, strict=False))
    found: dict[str, list[str]] = {"widths": [], "projections": [], "hidden": []}
    for node in capture.nodes:
        weight = node.args[1] if len(node.args) > 1 else None
        state = names.get(weight, "") if isinstance(weight, fx.Node) else ""
        if operator_of(node) == "aten::conv2d" and state:
            found["projections" if states[state].shape[2:].numel() == 1 else "widths"].append(state)
        elif operator_of(node) == "aten::linear" and state:
            found["hidden"].append(state)
    found["hidden"] = found["hidden"][:-1]
    return found


def _mismatch(graph: Graph, name: str, what: str) -> ArchitectureMismatch:
    """Return the error that says what the model would have to be."""
    network, states = PRESETS[name].network, state_tensors(graph.model)
    there = [len(states[state]) for state in _layers(graph)[what]]
    words = {"widths": "convolutions", "projections": "1x1 convolutions", "hidden": "hidden linear layers"}[what]
    expected = getattr(network, what)
    return ArchitectureMismatch(
        f"preset {name!r} is about {network.title}, and this {type(graph.model).__name__} is none: it has {len(there)} "
        f"{words} of {_counted(there)} outputs, not {len(expected)} of {_counted(expected)}; use it on "
        f"{network.example}, or write ratios"
    )


def _counted(widths: Sequence[int]) -> str:
    """Write widths with their repetitions counted: ``16x19, 32x18``."""
    runs: list[list[int]] = []
    for width in widths:
        if runs and runs[-1][0] == width:
            runs[-1][1] += 1
        else:
            runs.append([width, 1])
    return ", ".join(f"{width}x{count}" for width, count in runs) or "no"
