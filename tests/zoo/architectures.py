"""The public architectures on which every cut is proven: builder and input size of each."""

from collections.abc import Callable
from dataclasses import dataclass

import torchvision
from torch import nn

from cutback.graph.graph import Slot
from cutback.planning.plan import Plan


@dataclass(frozen=True)
class Architecture:
    """A network, and how it is cut.

    Attributes:
        build: makes it.
        size: of its pictures.
        shares: per cent of the channels that stay, a cut each; large networks are swept by ``make zoo``.
        planted: whether wrong cuts are planted in it too.
    """

    build: Callable[[], nn.Module]
    size: int = 64
    shares: tuple[int, ...] = (70, 30, 50)
    planted: bool = True


def _classifier(name: str, **options) -> Callable[[], nn.Module]:
    return lambda: getattr(torchvision.models, name)(weights=None, **options)


def _vit() -> nn.Module:
    """Return a vision transformer of the shape of ViT-B/16 with fewer layers, for small pictures."""
    return torchvision.models.VisionTransformer(32, 16, num_layers=3, num_heads=12, hidden_dim=768, mlp_dim=3072)


ARCHITECTURES = {
    "resnet18": Architecture(_classifier("resnet18")),
    "resnet50": Architecture(_classifier("resnet50"), shares=(50,), planted=False),
    "resnet50-zero": Architecture(_classifier("resnet50", zero_init_residual=True), shares=(50,), planted=False),
    "mobilenet_v2": Architecture(_classifier("mobilenet_v2")),
    "mobilenet_v3_large": Architecture(_classifier("mobilenet_v3_large")),
    "googlenet-aux": Architecture(
        _classifier("googlenet", aux_logits=True, init_weights=False), shares=(50,), planted=False
    ),
    "densenet121": Architecture(_classifier("densenet121"), shares=(50,), planted=False),
    "squeezenet1_1": Architecture(_classifier("squeezenet1_1")),
    "resnext50_32x4d": Architecture(_classifier("resnext50_32x4d"), planted=False),
    "regnet_y_400mf": Architecture(_classifier("regnet_y_400mf")),
    "shufflenet_v2_x1_0": Architecture(_classifier("shufflenet_v2_x1_0")),
    "vit_b_16": Architecture(_vit, 32),
    "convnext_tiny": Architecture(_classifier("convnext_tiny"), shares=(50,), planted=False),
}


def slots_of(plan: Plan, graph, role: str) -> list[Slot]:
    """The slots of one role that a plan cuts, in order of use."""
    return [slot for slot in graph.slots if slot.role == role and slot.dimension in plan.slices.get(slot.state, {})]
