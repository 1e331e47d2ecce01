"""Weights that forward computes from parameters: rows and columns shrink, statistics are taken over what stays."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import cutback
from cutback.surgery.verify import prove

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Standardised(nn.Conv2d):
    """Weight standardisation as a batch norm of the reshaped weight, with a gain for each filter."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x):
        flat = self.weight.reshape(1, self.out_channels, -1)
        gain = (self.gain * 0.5).view(-1)
        weight = F.batch_norm(flat, None, None, weight=gain, training=True, momentum=0.0).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, padding=self.padding, groups=self.groups)


class ByHand(nn.Conv2d):
    """Weight standardisation written out."""

    def forward(self, x):
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        deviation = weight.view(weight.size(0), -1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        return F.conv2d(x, weight / deviation.expand_as(weight), self.bias, padding=self.padding)


class Merged(nn.Module):
    """A kernel of 3 and one of 1, added before they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return F.conv2d(x, self.wide.weight + F.pad(self.narrow.weight, [1, 1, 1, 1]), self.narrow.bias, padding=1)


class Transposing(nn.Module):
    """A linear layer used the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return F.linear(x.movedim(1, 3), self.matrix.t().abs()).movedim(3, 1)


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(layer)


def conv(**options) -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, padding=1, **options)


LAYERS = {
    "weight norm": lambda: parametrizations.weight_norm(conv()),
    "weight norm of old": lambda: old_weight_norm(conv()),
    "weight norm of columns": lambda: parametrizations.weight_norm(conv(), dim=1),
    "weight norm of a transposed convolution": lambda: parametrizations.weight_norm(nn.ConvTranspose2d(8, 8, 3, 1, 1)),
    "spectral norm": lambda: parametrizations.spectral_norm(conv()),
    "spectral norm of old": lambda: nn.utils.spectral_norm(conv()),
    "standardised": lambda: Standardised(8, 8, 3, padding=1),
    "standardised by hand": lambda: ByHand(8, 8, 3, padding=1),
    "two kernels added": Merged,
    "a transposed matrix": Transposing,
}


def network(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 1), layer, nn.ReLU(), nn.Conv2d(8, 4, 1))


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_rows_and_columns_of_a_computed_weight_shrink(name: str) -> None:
    for share, width in ((70, 5), (50, 4), (30, 2)):
        torch.manual_seed(0)
        model = network(LAYERS[name]())
        graph = cutback.trace(model, IMAGES)
        assert [group.units for group in graph.groups] == [8, 8], str(graph)
        plan = cutback.plan(graph, budget=f"channels={share}%", score=cutback.scores.Random(share))
        cutback.apply_(graph, plan)
        assert (model[0].out_channels, model[3].in_channels) == (width, width)
        assert cutback.measure.macs(model, IMAGES) == plan.costs["macs"].after
        if isinstance(model[1], nn.Conv2d):
            assert (model[1].in_channels, model[1].out_channels) == (width, width)
        model.train()(IMAGES).sum().backward()


@pytest.mark.parametrize(
    "layer", [lambda: Standardised(8, 8, 3, groups=8), lambda: parametrizations.weight_norm(conv(groups=8))]
)
def test_a_depthwise_computed_weight_follows_its_channels(layer) -> None:
    model = network(layer())
    graph = cutback.trace(model, IMAGES)
    assert [group.units for group in graph.groups] == [8]
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%", score="random"))
    assert (model[1].groups, model[1].in_channels, model[3].in_channels) == (4, 4, 4)


def test_a_grouped_computed_weight_loses_as_much_from_each_group() -> None:
    model = network(Standardised(8, 8, 3, groups=2))
    graph = cutback.trace(model, IMAGES)
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%", score="random"))
    assert model[1].weight.shape == (4, 2, 3, 3)


def test_a_weight_normed_linear_layer_shrinks() -> None:
    model = nn.Sequential(nn.Linear(3, 8), parametrizations.weight_norm(nn.Linear(8, 6)), nn.Linear(6, 2))
    graph = cutback.trace(model, torch.randn(4, 3))
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    assert (model[1].in_features, model[1].out_features) == (4, 3)
    assert model(torch.randn(4, 3)).shape == (4, 2)


def test_statistics_are_taken_over_the_columns_that_stay() -> None:
    """Against the formula, on slices taken by hand."""
    torch.manual_seed(0)
    model = network(ByHand(8, 8, 3, padding=1)).eval()
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = cutback.trace(model, IMAGES)
    plan = cutback.plan(graph, budget="channels=50%", score="random")
    rows, columns = (list(plan.slices["1.weight"][dimension].indices) for dimension in (0, 1))
    cutback.apply_(graph, plan)
    weight = whole["1.weight"][rows][:, columns]
    weight = weight - weight.mean((1, 2, 3), keepdim=True)
    weight = weight / (weight.flatten(1).std(1) + 1e-5).view(-1, 1, 1, 1)
    x = F.conv2d(IMAGES, whole["0.weight"][columns], whole["0.bias"][columns])
    x = F.conv2d(x, weight, whole["1.bias"][rows], padding=1).relu()
    expected = F.conv2d(x, whole["3.weight"][:, rows], whole["3.bias"])
    assert len(rows) == len(columns) == 4
    assert torch.allclose(model(IMAGES), expected, atol=1e-5)


def test_two_layers_whose_kernels_are_added_are_one_group() -> None:
    graph = cutback.trace(network(Merged()), IMAGES)
    assert ("1.wide", "1.narrow") in [tuple(sorted(group.layers, reverse=True)) for group in graph.groups]


class Chosen(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(8, 8, 3, padding=1)

    def forward(self, x):
        return F.conv2d(x, self.weight * x.mean(), self.bias, padding=1)


class Squared(Chosen):
    def forward(self, x):
        return F.conv2d(x, self.weight + self.weight.transpose(0, 1), self.bias, padding=1)


class Shifted(Chosen):
    def forward(self, x):
        return F.conv2d(x, self.weight.cumsum(0), self.bias, padding=1)


REFUSED = {
    "a matrix inverse": lambda: parametrizations.orthogonal(conv()),
    "a kernel chosen by the input": Chosen,
    "rows mixed with columns": Squared,
    "a weight over all its rows": Shifted,
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_followed_is_refused_with_a_reason_or_coupled(name: str) -> None:
    model = network(REFUSED[name]())
    graph = cutback.trace(model, IMAGES)
    if name == "rows mixed with columns":  # each filter goes with the input channel of its number
        assert [group.layers for group in graph.groups] == [("0", "1")]
        prove(graph, cutback.plan(graph, budget="channels=50%", score="random"))
        return
    assert not graph.groups
    assert any("1" in layer.layer or layer.layer == "0" for layer in graph.kept)
    assert any("weight" in boundary.reason for boundary in graph.boundaries)


def test_a_saved_cut_of_a_weight_norm_loads(tmp_path) -> None:
    def build():
        return network(parametrizations.weight_norm(conv())).eval()

    model = build()
    graph = cutback.trace(model, IMAGES)
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan)
    cutback.save(model, plan, tmp_path)
    assert torch.equal(cutback.load(tmp_path, build=build)(IMAGES), model(IMAGES))
