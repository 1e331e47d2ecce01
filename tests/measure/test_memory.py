"""Activation memory: the published anchor, sums by hand, and the peak against real tensors that are let go of."""

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from cutback.errors import CaptureError
from cutback.graph.capture import capture
from cutback.graph.inputs import Inputs
from cutback.measure import memory, peak_memory
from tests.helpers import chain, residual


def test_resnet50_has_the_published_number_of_elements():
    model = torchvision.models.resnet50(weights=None)
    assert memory(model, torch.zeros(1, 3, 224, 224)) == 4 * 11_113_984  # Liu 2021: 11.11 M


@pytest.mark.parametrize("batch", [1, 3])
def test_the_sum_counts_outputs_of_convolutions_only_for_one_sample(batch):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 2, 2), nn.Flatten(), nn.Linear(98, 5)
    )
    assert memory(model, torch.zeros(batch, 3, 8, 8)) == 4 * (8 * 6 * 6 + 2 * 7 * 7)


def test_a_convolution_that_runs_twice_counts_twice():
    layer = nn.Conv2d(3, 3, 1)
    assert memory(nn.Sequential(layer, layer), torch.zeros(1, 3, 4, 4)) == 2 * 4 * 3 * 16


class Branches(nn.Module):
    """Adds in place, keeps a shortcut alive, splits, and returns a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        shortcut = self.first(images).relu_()
        wide = self.second(shortcut).relu()
        wide += shortcut
        left, right = wide.chunk(2, 1)
        return torch.cat([self.third(left), right], 1).flatten(1)


def peak_of_real_tensors(model: nn.Module, images: Tensor) -> int:
    """Run the captured graph node by node, drop each value after its last use, and weigh the memory that is left."""
    recorded = capture(model, Inputs.of(images), training=False)
    states = dict(model.eval().named_parameters()) | dict(model.named_buffers())
    given = iter([*(states[name] for name in recorded.states), images])
    outputs = set(recorded.results[: recorded.outputs])
    calls = [node for node in recorded.nodes if node.op == "call_function"]
    last = {source: node for node in calls for source in node.all_input_nodes}
    values: dict[fx.Node, object] = {}
    highest = 0
    for node in recorded.nodes:
        if node.op == "placeholder":
            values[node] = next(given)
        if node.op != "call_function":
            continue
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        values[node] = node.target(*args, **kwargs)
        outside = {t.untyped_storage().data_ptr() for t in [*states.values(), images]}
        held = [t for v in values.values() for t in (v if isinstance(v, list | tuple) else [v])]
        sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held if isinstance(t, Tensor)}
        highest = max(highest, sum(size for place, size in sizes.items() if place not in outside))
        for source in (*node.all_input_nodes, node):
            if last.get(source, node) is node and source not in outputs:
                values.pop(source, None)
    return highest


NETWORKS = {
    "chain": lambda: chain((8, 12)),
    "residual": residual,
    "branches": Branches,
    "densenet": lambda: torchvision.models.DenseNet(8, (2, 2), 8, num_classes=4),
    "shufflenet": lambda: torchvision.models.ShuffleNetV2([2, 2, 2], [8, 16, 32, 64, 32], num_classes=4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_peak_is_that_of_real_tensors_in_the_graphs_order(name):
    torch.manual_seed(0)
    model, images = NETWORKS[name]().eval(), torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        expected = peak_of_real_tensors(model, images)
    assert peak_memory(model, images) == expected > 0
    assert peak_memory(model, torch.zeros(2, 3, 32, 32)) == expected


def test_the_peak_by_hand():
    in_place = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1))
    images = torch.zeros(1, 3, 10, 10)
    assert peak_memory(in_place, images) == 4 * (800 + 200)
    assert peak_memory(in_place.double(), images.double()) == 8 * (800 + 200)


def test_measuring_leaves_the_mode_alone_and_names_a_model_that_fails():
    model = chain().train()
    memory(model, torch.zeros(2, 3, 8, 8))
    peak_memory(model, torch.zeros(2, 3, 8, 8))
    assert model.training
    assert model[1].num_batches_tracked == 0
    for measure in (memory, peak_memory):
        with pytest.raises(CaptureError, match="Conv2d failed"):
            measure(nn.Conv2d(3, 4, 1), torch.zeros(1, 4, 5, 5))
