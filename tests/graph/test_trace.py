"""What tracing finds: groups, boundaries with reasons, sizes written into code."""

import pytest
import torch
from torch import nn

import cutback
from cutback.surgery.verify import prove


class Between(nn.Module):
    """conv -> the given function -> conv."""

    def __init__(self, function, channels: int = 8, after: int | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.second = nn.Conv2d(after or channels, 4, 1)
        self.function = function

    def forward(self, x):
        return self.second(self.function(self.first(x)))


IMAGES = torch.randn(2, 3, 6, 6)


def first_group(graph) -> int:
    return next((group.units for group in graph.groups if "first" in group.layers), 0)


@pytest.mark.parametrize(
    ("function", "units"),
    [
        (lambda x: x.flip(1), 8),
        (lambda x: torch.cat([x[:, :4].relu(), x[:, 4:]], 1), 4),
        (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), 8),
        (lambda x: x.view(x.size(0), x.size(1), -1).view_as(x), 8),
        (lambda x: x.view(2, 8, 36).view(2, 8, 6, 6), 0),
        (lambda x: x.flatten(2).unflatten(2, (6, 6)), 8),
        (lambda x: x.softmax(1), 8),
        (lambda x: x.cumsum(1), 0),
        (lambda x: x * x.mean(1, keepdim=True), 8),
        (lambda x: x * torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1).sum(1, keepdim=True), 8),
        (lambda x: x + x.max(1, keepdim=True)[0], 8),
        (lambda x: x + x.max(1, keepdim=True)[1], 0),
        (lambda x: nn.functional.normalize(x, dim=1), 8),
        (lambda x: nn.functional.layer_norm(x.movedim(1, 3), x.shape[1:2]).movedim(3, 1), 8),
        (lambda x: nn.functional.layer_norm(x.movedim(1, 3), (8,)).movedim(3, 1), 0),
        (lambda x: nn.functional.layer_norm(x, x.shape[1:]), 8),
        (lambda x: nn.functional.layer_norm(x, x.shape[2:]), 8),
        (lambda x: nn.functional.group_norm(x, 2), 8),
        (nn.functional.instance_norm, 8),
        (lambda x: torch.cat([nn.functional.glu(x, 1)] * 2, 1), 4),
        (lambda x: nn.functional.pixel_unshuffle(nn.functional.pixel_shuffle(x, 2), 2), 2),
        (lambda x: nn.functional.max_pool2d(nn.functional.pixel_shuffle(x, 2), 2).repeat(1, 4, 1, 1), 2),
        (lambda x: nn.functional.channel_shuffle(x, 2), 8),
        (lambda x: x.view(x.size(0), 2, x.size(1) // 2, 6, 6).transpose(1, 2).reshape(x.shape), 8),
        (lambda x: x.tile(1, 2, 1, 1)[:, : x.size(1)], 8),
        (lambda x: torch.stack([x, x.tanh()], 1).sum(1), 8),
        (lambda x: torch.stack(x.unbind(0)), 8),
        (lambda x: (x.movedim(1, 3) @ torch.eye(8)).movedim(3, 1), 0),
        (lambda x: x * x.softmax(2), 8),
        (lambda x: x + torch.zeros(2, 8, 6, 6), 0),
        (lambda x: x + torch.zeros_like(x), 8),
        (lambda x: x[:, [1, 0, 3, 2, 5, 4, 7, 6]], 0),
        (lambda x: x.repeat(1, 1, 1, 2), 8),
        (lambda x: torch.fft.fft(x, dim=1).real, 0),
        (lambda x: x.roll(1, 1), 8),
        (lambda x: x.roll(1, 2), 8),
        (lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), 8),
    ],
)
def test_the_units_between_two_convolutions(function, units) -> None:
    graph = cutback.trace(Between(function), IMAGES)
    assert first_group(graph) == units
    if units:
        prove(graph, cutback.plan(graph, budget="channels=50%"))


def test_products_with_parameters_and_tables_are_contractions() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.matrix = nn.Embedding(11, 8), nn.Parameter(torch.randn(8, 6))
            self.shift, self.last = nn.Parameter(torch.randn(6)), nn.Linear(6, 2)

        def forward(self, tokens):
            x = self.table(tokens)
            return self.last(torch.addmm(self.shift, (x @ self.matrix).relu().flatten(0, 1), torch.eye(6)) + 0)

    tokens = torch.randint(0, 11, (2, 5))
    net = Tokens()
    graph = cutback.trace(net, tokens)
    assert [(group.name, group.units) for group in graph.groups] == [("table", 8)]
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    assert net.table.weight.shape == (11, 4)
    assert net.table.embedding_dim == net.matrix.shape[0] == 4
    assert cutback.measure.macs(net, tokens) == 5 * (4 * 6 + 6 * 6 + 6 * 2)


def test_a_boundary_names_operator_module_and_reason() -> None:
    class Odd(nn.Module):
        def forward(self, x):
            return x.cumsum(1)

    graph = cutback.trace(nn.Sequential(nn.Conv2d(3, 8, 3), Odd(), nn.Conv2d(8, 2, 1)), IMAGES)
    (boundary,) = graph.boundaries
    assert (boundary.operator, boundary.path) == ("aten::cumsum", "1")
    assert "channels by position" in boundary.reason
    (layer, last) = graph.kept
    assert (layer.layer, layer.channels, layer.total) == ("0", 8, 8)
    assert last.reasons[0].reason == "the network's output"
    assert "1 : aten::cumsum" in str(graph)


def test_an_unknown_operator_keeps_what_reaches_it_and_what_leaves_it() -> None:
    net = Between(lambda x: torch.special.bessel_j0(x) + x)
    graph = cutback.trace(net, IMAGES)
    assert not graph.groups
    assert "no rule" in graph.boundaries[0].reason


def test_a_literal_size_is_found_by_capturing_again_and_named() -> None:
    graph = cutback.trace(Between(lambda x: x.view(2, 8, 36).view(2, 8, 6, 6)), IMAGES)
    assert any("literal" in boundary.reason for boundary in graph.boundaries)


def test_only_the_literal_s_own_channels_stay() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            x = self.a(x)
            x = self.b(x.view(x.shape[0], x.shape[1], -1).view(x.shape))
            return self.c(x.reshape(2, 6, 36).reshape(2, 6, 6, 6))

    graph = cutback.trace(Two(), IMAGES)
    assert [group.name for group in graph.groups] == ["a"]


def test_parameters_no_capture_reaches_are_reported() -> None:
    net = Between(torch.relu)
    net.unused = nn.Linear(3, 3)
    assert cutback.trace(net, IMAGES).unreached == ("unused.weight", "unused.bias")


def test_a_train_only_head_is_reached_and_cut() -> None:
    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head, self.aux = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 5, 1)

        def forward(self, x):
            x = self.stem(x).relu()
            return (self.head(x), self.aux(x)) if self.training else self.head(x)

    net = Headed()
    graph = cutback.trace(net, IMAGES)
    assert not graph.unreached
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    assert net.aux.in_channels == net.head.in_channels == 4


def test_a_model_that_cannot_train_on_the_inputs_is_traced_in_eval_mode_and_says_so() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1))

        def forward(self, x, targets=None):
            if self.training and targets is None:
                raise ValueError("targets are needed in training")
            return self.layers(x)

    graph = cutback.trace(Picky(), IMAGES)
    assert "targets are needed" in graph.train_failure
    assert "targets are needed" in str(graph)
    assert first_group(graph) == 0
    prove(graph, cutback.plan(graph, budget="channels=50%"))


def test_constants_shared_by_gates_keep_only_themselves() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.a(x)
            return self.b(x * self.gate(x).sigmoid())

    graph = cutback.trace(Gate(), IMAGES)
    assert [(group.name, group.units) for group in graph.groups] == [("a", 8)]
    assert any("broadcast" in layer.reasons[0].reason for layer in graph.kept if layer.layer == "gate")
