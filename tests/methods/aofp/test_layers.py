"""Which layers are searched, and when each begins."""

import pytest
from torch import nn

import cutback
from cutback.errors import UnknownName
from cutback.methods.aofp.layers import convolutions, nothing_to_search, reasons_against, searchable, starts
from cutback.models import build
from tests.helpers import chain, image, residual
from tests.scores.networks import grouped, projected


def test_of_residual_blocks_the_first_convolution_and_of_a_plain_network_all():
    graph = cutback.trace(build("resnet20"), image())
    layers = searchable(graph, ())
    assert list(layers) == [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)]
    assert [group.units for group in layers.values()] == [16] * 3 + [32] * 3 + [64] * 3
    plain = searchable(cutback.trace(chain((4, 6, 8)), image()), ())
    assert list(plain) == ["0", "3", "6"], "the last one is read by the linear layer"


def test_searches_begin_staggered_by_the_place_of_the_convolution():
    graph = cutback.trace(build("resnet20"), image())
    order = convolutions(graph)
    found = starts(graph, list(searchable(graph, ())), warm_up=500, half=1000)
    assert [order.index(layer) for layer in found][:4] == [1, 3, 5, 7]
    assert found == {layer: 500 + 111 * order.index(layer) for layer in found}


class Bottleneck(nn.Module):
    """A block of three convolutions, with a projection, and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        x = self.stem(images).relu()
        x = (x + self.conv3(self.conv2(self.conv1(x).relu()).relu())).relu()
        return self.head(x.mean((2, 3)))


def test_of_bottlenecks_the_first_and_the_second():
    assert list(searchable(cutback.trace(Bottleneck(), image()), ())) == ["conv1", "conv2"]


def test_what_is_coupled_balanced_or_ignored_keeps_its_width():
    graph = cutback.trace(residual(), image())
    assert reasons_against(graph, ()) == {"stem": "several layers make its channels"}
    assert reasons_against(graph, ["inner"])["inner"] == "ignore names it"
    reasons = reasons_against(cutback.trace(grouped(), image()), ())
    assert set(reasons) == {"0", "3", "6"} - set(searchable(cutback.trace(grouped(), image()), ()))
    assert "only in step with others" in reasons["0"]
    assert reasons_against(cutback.trace(projected(), image()), ()).keys() == {"stem", "outer"}
    with pytest.raises(UnknownName, match="matches no module"):
        searchable(graph, ["none"])


class Perceptron(nn.Module):
    """No convolution at all."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 4))

    def forward(self, images):
        return self.layers(images)


def test_a_network_without_such_layers_is_refused_with_the_reasons():
    graph = cutback.trace(Perceptron(), image())
    assert not searchable(graph, ())
    assert "layers.1: no convolution makes its channels" in str(nothing_to_search(graph, ()))
    separable = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1), nn.Flatten()]
    graph = cutback.trace(nn.Sequential(*separable, nn.Linear(72, 4)), image())
    assert list(searchable(graph, ())) == ["3"]
    assert "0: several layers make its channels" in str(nothing_to_search(graph, ()))
