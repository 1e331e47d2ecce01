"""The two model zoos, imported when first asked for, also where torchvision's compiled operators do not load."""

from types import ModuleType

import torch


def torchvision() -> ModuleType:
    """Import torchvision; its detection operators are declared where their library does not fit torch's build."""
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import torchvision  # noqa: PLC0415 (only after the declaration)

    return torchvision


def timm() -> ModuleType:
    """Import timm, which imports torchvision."""
    torchvision()
    import timm  # noqa: PLC0415 (only after the declaration)

    return timm
