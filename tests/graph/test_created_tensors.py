"""Tensors created in forward and filled in place: what is written through a view belongs to the channels written."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cutback
from cutback.graph.aliasing import Memory
from cutback.surgery.verify import prove

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """conv a (8) -> the given function -> conv b (4) -> conv c."""

    def __init__(self, function, width: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(width, 4, 1), nn.Conv2d(4, 4, 1)
        self.side, self.function = nn.Conv2d(3, 8, 1), function

    def forward(self, x):
        return self.c(self.b(self.function(self, self.a(x), x)))


def both_halves(net, y, x):
    wide = y.new_zeros(y.shape[0], 2 * y.shape[1], *y.shape[2:])
    wide[:, : y.shape[1]] = y
    wide[:, y.shape[1] :] = net.side(x)[:, : y.shape[1]] * 0 + y * 2
    return wide


def framed(_net, y, _x):
    frame = torch.zeros_like(y)
    frame[:, :, 1:-1, 1:-1] = y[:, :, 1:-1, 1:-1]
    return frame


def shifted(_net, y, _x):
    moved = y.new_zeros(y.shape)
    moved[:, :, 1:] = y[:, :, :-1]
    return moved


def literal(_net, y, _x):
    wide = y.new_zeros(y.shape[0], 16, 6, 6)
    wide[:, :8] = y
    return wide


def coupled(net, y, x):
    sum_of_both = torch.ones(y.shape)
    sum_of_both[:, :, :3] = y[:, :, :3]
    sum_of_both[:, :, 3:] = net.side(x)[:, :, 3:]
    return sum_of_both


@pytest.mark.parametrize("function", [framed, shifted, coupled])
def test_channels_written_into_a_tensor_of_their_shape_shrink(function) -> None:
    for share in (70, 50, 30):
        graph = cutback.trace(Net(function), IMAGES)
        assert "a" in {group.name for group in graph.groups}, str(graph)
        plan = cutback.plan(graph, budget=f"channels={share}%", score=cutback.scores.Random(share))
        proof = prove(graph, plan)
        assert proof.error < 1e-5
        assert len(plan.slices["b.weight"][1].indices) == int(8 * share / 100)


def test_two_layers_that_meet_only_in_a_filled_tensor_are_one_group() -> None:
    graph = cutback.trace(Net(coupled), IMAGES)
    assert next(group for group in graph.groups if "a" in group.layers).layers == ("a", "side")


def test_a_literal_width_keeps_what_is_written_into_it() -> None:
    graph = cutback.trace(Net(literal, 16), IMAGES)
    kept = next(layer for layer in graph.kept if layer.layer == "a")
    assert kept.channels == 8
    assert "literal sizes (2, 16, 6, 6)" in kept.reasons[0].reason


def test_a_width_used_as_a_fill_value_is_refused() -> None:
    graph = cutback.trace(Net(lambda _net, y, _x: y / torch.full((1, y.shape[1], 1, 1), float(y.shape[1]))), IMAGES)
    assert "a" not in {group.name for group in graph.groups}


def test_halves_of_a_new_tensor_hold_their_own_channels() -> None:
    graph = cutback.trace(Net(both_halves, 16), IMAGES)
    plan = cutback.plan(graph, budget="channels=50%", score="random")
    prove(graph, plan)
    assert len(plan.slices["b.weight"][1].indices) == 8


def test_what_a_view_of_a_view_writes_reaches_every_view() -> None:
    """By hand: three nodes share memory; labels written through the last show in the other two."""

    def forward(x):
        base = x.new_zeros(4, 6)
        row = base[1]
        row[2:4].copy_(x)
        return base, row

    from torch.fx.experimental.proxy_tensor import make_fx  # noqa: PLC0415

    module = make_fx(forward, tracing_mode="fake", pre_dispatch=True)(torch.zeros(2))
    nodes = [node for node in module.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    memory, known = Memory(), {}
    for node in nodes:
        known[node] = torch.zeros(node.meta["val"].shape, dtype=torch.int64)
        memory.note(node)
    write = next(node for node in nodes if "copy" in node.name)
    memory.written(write, torch.tensor([7, 8]), known)
    base = next(node for node in nodes if "zeros" in node.name)
    assert known[base].nonzero().tolist() == [[1, 2], [1, 3]]
    assert known[base][1].tolist() == [0, 0, 7, 8, 0, 0]


def test_padding_and_writing_agree() -> None:
    torch.manual_seed(0)
    net = Net(shifted)
    graph = cutback.trace(net, IMAGES)
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%", ignore="b"), ignore_unreached=True)
    y = net.a(IMAGES)
    by_hand = net.c(net.b(F.pad(y[:, :, :-1], (0, 0, 1, 0))))
    assert torch.allclose(net(IMAGES), by_hand, atol=1e-6)
