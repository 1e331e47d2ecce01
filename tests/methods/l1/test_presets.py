"""The configurations published in Li et al., "Pruning Filters for Efficient ConvNets" (2017), and what they cost."""

from functools import cache

import pytest
import torch
import torchvision
from torch import nn

import cutback
from cutback.errors import ArchitectureMismatch, UnknownName
from cutback.graph.graph import Graph
from cutback.methods import L1
from cutback.methods.l1 import PRESETS
from cutback.models import build
from tests.helpers import chain, image, randomised

# MACs and parameters that are saved, in per cent: by ``keep = floor(C (1 - p))``, and as published.
TABLE = {
    "vgg16-a": ("vgg16", (34.2, 64.0), (34.2, 64.0)),
    "resnet56-a": ("resnet56", (10.4, 9.3), (10.4, 9.4)),
    "resnet56-b": ("resnet56", (27.6, 13.8), (27.6, 13.7)),
    "resnet110-a": ("resnet110", (15.9, 2.3), (15.9, 2.3)),
    "resnet110-b": ("resnet110", (38.7, 32.4), (38.6, 32.4)),
    "resnet34-a": ("resnet34", (15.4, 7.6), (15.5, 7.6)),
    "resnet34-b": ("resnet34", (24.1, 10.7), (24.2, 10.8)),
    "resnet34-c": ("resnet34", (7.4, 7.3), (7.5, 7.2)),
}
DENSE = {
    "vgg16": (313_463_808, 14_987_722),
    "resnet56": (125_485_696, 853_018),
    "resnet110": (252_887_680, 1_727_962),
    "resnet34": (3_663_761_408, 21_797_672),
}
# Of each configuration some layers: which keep how many, counted by hand from the paper's ratios and skip lists.
WIDTHS = {
    "vgg16-a": {"features.0": 32, "features.3": 64, "features.24": 256, "features.40": 256, "classifier.0": 512},
    "resnet56-a": {"layer1.0.conv1": 14, "layer1.7.conv1": 16, "layer2.0.conv1": 32, "layer3.1.conv1": 57},
    "resnet56-b": {"layer1.0.conv1": 6, "layer1.7.conv1": 16, "layer2.1.conv1": 22, "layer3.1.conv1": 57},
    "resnet110-a": {"layer1.0.conv1": 8, "layer1.17.conv1": 16, "layer2.0.conv1": 32, "layer3.17.conv1": 64},
    "resnet110-b": {"layer1.0.conv1": 8, "layer2.0.conv1": 32, "layer2.1.conv1": 19, "layer3.1.conv1": 44},
    "resnet34-a": {"layer1.1.conv1": 44, "layer2.1.conv1": 89, "layer3.2.conv1": 179, "layer4.0.conv1": 512},
    "resnet34-b": {"layer1.1.conv1": 32, "layer2.1.conv1": 51, "layer3.2.conv1": 153, "layer4.0.conv1": 512},
    "resnet34-c": {"layer3.0.conv1": 256, "layer3.0.conv2": 204, "layer3.5.conv2": 204, "layer4.0.conv2": 512},
}


@cache
def traced(network: str) -> Graph:
    model = torchvision.models.resnet34(weights=None) if network == "torchvision" else build(network)
    size = 224 if network in ("resnet34", "torchvision") else 32
    return cutback.trace(model, torch.zeros(1, 3, size, size))


def test_all_published_configurations_are_there():
    assert list(PRESETS) == list(TABLE)


@pytest.mark.parametrize("preset", TABLE)
def test_the_cut_network_costs_what_was_published(preset):
    network, exact, published = TABLE[preset]
    graph = traced(network)
    plan = L1(graph, preset=preset).target()
    assert (plan.costs["macs"].before, plan.costs["params"].before) == DENSE[network]
    small = cutback.apply(graph, plan, prove=False)  # these architectures are proven elsewhere
    after = cutback.measure.macs(small, graph.inputs.positional[0]), cutback.measure.params(small)
    saved = [round(100 * (1 - now / before), 1) for now, before in zip(after, DENSE[network], strict=True)]
    assert saved == list(exact)
    assert saved == pytest.approx(published, abs=0.1001)
    modules = dict(small.named_modules())
    assert {path: len(modules[path].weight) for path in WIDTHS[preset]} == WIDTHS[preset]


def test_a_network_is_known_by_its_layers_and_not_by_their_names():
    own, theirs = (L1(traced(name), preset="resnet34-c").target() for name in ("resnet34", "torchvision"))
    assert own.costs == theirs.costs


@pytest.mark.parametrize(
    ("preset", "make", "message"),
    [
        ("resnet56-a", lambda: build("resnet20"), r"CifarResNet is none: it has 19 convolutions .*16x7.* not 55"),
        ("resnet56-a", lambda: build("resnet56-b"), r"1x1 convolutions of 32x1, 64x1 outputs, not 0 of no"),
        ("vgg16-a", lambda: chain((64, 64)), r"VGG-16 .* it has 2 convolutions of 64x2 .* not 13"),
        ("resnet110-b", lambda: build("resnet56"), r"use it on cutback:resnet110, or write ratios"),
    ],
)
def test_another_network_is_refused(preset, make, message):
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    method = L1(cutback.trace(model, image()), preset=preset)
    with pytest.raises(ArchitectureMismatch, match=message), method:
        pass
    assert not method.finished
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_vgg_with_other_linear_layers_is_refused():
    model = build("vgg16")
    model.classifier = nn.Sequential(nn.Linear(512, 10))
    with pytest.raises(ArchitectureMismatch, match="0 hidden linear layers of no outputs, not 1 of 512x1"):
        L1(cutback.trace(model, torch.zeros(1, 3, 32, 32)), preset="vgg16-a").target()


def test_an_unknown_name_lists_near_ones():
    with pytest.raises(UnknownName, match=r"did you mean 'resnet56-"):
        L1(cutback.trace(chain(), image()), preset="resnet56").target()


def test_the_control_is_the_same_network_with_fresh_weights():
    """Trained from scratch: widths as after the cut, no weight of the dense network left, batch norm at its start."""
    model = randomised(build("resnet56"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with L1(cutback.trace(model, image()), preset="resnet56-b", optimizers=[optimizer], scratch=True) as method:
        assert method.finished
    assert model.layer1[0].conv1.weight.shape == (6, 16, 3, 3)
    convolutions = {name: tensor for name, tensor in model.state_dict().items() if "conv" in name}
    for name, tensor in convolutions.items():
        old = before[name]
        for dimension, stays in method.plan().slices.get(name, {}).items():
            old = old.index_select(dimension, torch.tensor(stays.indices))
        assert old.shape == tensor.shape
        assert torch.isclose(old, tensor).float().mean() < 0.01, name
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        start = (norm.weight - 1, norm.bias, norm.running_mean, norm.running_var - 1)
        assert not any(values.any() for values in start)
    assert float(model.layer1[8].conv2.weight.detach().std()) == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.1)  # He's
