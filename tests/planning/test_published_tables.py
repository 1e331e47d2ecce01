"""MACs and parameters of the configurations published in Li et al., "Pruning Filters for Efficient ConvNets" (2017).

Layers are numbered as in the paper: convolutions from 1 at the stem, projections not counted, so that an even number is
the first convolution of a block. ``keep = floor(C (1 - p))``.
"""

import pytest
import torch
import torchvision
from torch import nn

import cutback
from cutback.models import build

CIFAR = torch.zeros(1, 3, 32, 32)
IMAGENET = torch.zeros(1, 3, 224, 224)


def first_convolutions(model: nn.Module) -> dict[int, str]:
    """Return the path of the first convolution of each block, by its number in the paper."""
    blocks = [path for path, _ in model.named_modules() if path.startswith("layer") and path.endswith(".conv1")]
    return {2 * number: path for number, path in enumerate(blocks, start=1)}


def by_stage(model: nn.Module, stays: tuple[str, ...], skipped: set[int]) -> dict[str, str]:
    found = first_convolutions(model)
    assert skipped <= set(found)
    return {path: stays[int(path[5]) - 1] for number, path in found.items() if number not in skipped}


def vgg_a(model: nn.Module) -> dict[str, str]:
    paths = [path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return {path: "50%" for number, path in enumerate(paths, start=1) if number == 1 or number >= 8}


SKIPPED_34 = {2, 8, 14, 16, 26, 28, 30, 32}
TABLE = {
    "VGG-16-A": ("vgg16", vgg_a, 34.2, 64.0),
    "ResNet-56-A": ("resnet56", lambda m: by_stage(m, ("90%",) * 3, {16, 20, 38, 54}), 10.4, 9.3),
    "ResNet-56-B": ("resnet56", lambda m: by_stage(m, ("40%", "70%", "90%"), {16, 18, 20, 34, 38, 54}), 27.6, 13.8),
    "ResNet-110-A": ("resnet110", lambda m: by_stage(m, ("50%", "100%", "100%"), {36}), 15.9, 2.3),
    "ResNet-110-B": ("resnet110", lambda m: by_stage(m, ("50%", "60%", "70%"), {36, 38, 74}), 38.7, 32.4),
    "ResNet-34-A": ("resnet34", lambda m: by_stage(m, ("70%", "70%", "70%", "100%"), SKIPPED_34), 15.4, 7.6),
    "ResNet-34-B": ("resnet34", lambda m: by_stage(m, ("50%", "40%", "60%", "100%"), SKIPPED_34), 24.1, 10.7),
    "ResNet-34-C": ("resnet34", lambda _: {"layer3.0.conv2": "80%"}, 7.4, 7.3),
}
DENSE = {
    "vgg16": (313_463_808, 14_987_722),
    "resnet56": (125_485_696, 853_018),
    "resnet110": (252_887_680, 1_727_962),
    "resnet34": (3_663_761_408, 21_797_672),
}


@pytest.mark.parametrize("row", TABLE)
def test_the_cut_network_costs_what_was_published(row):
    network, ratios, macs_saved, params_saved = TABLE[row]
    inputs = IMAGENET if network == "resnet34" else CIFAR
    model = torchvision.models.resnet34(weights=None) if network == "resnet34" else build(network)
    assert cutback.measure.params(model) == DENSE[network][1]
    graph = cutback.trace(model, inputs)
    plan = cutback.plan(graph, score="l1", keep=ratios(model))
    assert plan.costs["macs"].before == DENSE[network][0]
    cutback.apply_(graph, plan, prove=False)  # these architectures are proven elsewhere
    after = cutback.measure.macs(model, inputs), cutback.measure.params(model)
    assert after == (plan.costs["macs"].after, plan.costs["params"].after)
    saved = [100 * (1 - now / before) for now, before in zip(after, DENSE[network], strict=True)]
    assert [round(value, 1) for value in saved] == [macs_saved, params_saved]
