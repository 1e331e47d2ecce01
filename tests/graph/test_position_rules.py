"""Movement along channels: by bounds that follow, by literal bounds and by constant lists."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cutback
from cutback.surgery.verify import prove

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """conv a (12) -> the given function -> conv b (6) -> relu -> conv c."""

    def __init__(self, function, width: int = 12) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(width, 6, 1), nn.Conv2d(6, 2, 1)
        self.six, self.function = nn.Conv2d(6, 6, 1), function
        self.third, self.across = nn.Conv2d(4, 4, 1), nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.c(self.b(self.function(self, self.a(x))).relu())


def cat(*parts):
    return torch.cat(parts, 1)


def unequal(net, x):
    width = net.third.in_channels
    left, right = x.split([width, x.shape[1] - width], 1)
    return cat(right, net.third(left))


def unequal_slices(net, x):
    width = net.third.in_channels
    return cat(x[:, width:], net.third(x[:, :width]))


FREE = {
    "roll": (lambda _, x: x.roll(3, 1), 12, 12),
    "roll by half, added": (lambda _, x: x + x.roll(x.shape[1] // 2, 1), 12, 6),
    "roll over height": (lambda _, x: x.roll((1, 2), (2, 3)), 12, 12),
    "flip": (lambda _, x: x.flip(1), 12, 12),
    "every other": (lambda _, x: cat(x[:, 1::2], x[:, ::2]), 12, 12),
    "every third": (lambda _, x: x[:, 2::3] + x[:, ::3], 4, 4),
    "the last half": (lambda _, x: x[:, -(x.shape[1] // 2) :], 6, 6),
    "the last half, narrowed": (lambda _, x: x.narrow(1, x.shape[1] // 2, x.shape[1] // 2), 6, 6),
    "unequal split": (unequal, 12, 8),
    "a third and the rest": (unequal_slices, 12, 8),
    "tensor_split in equal parts": (lambda _, x: cat(*reversed(x.tensor_split(3, 1))), 12, 12),
    "chunks in another order": (lambda _, x: cat(*[x.chunk(3, 1)[place] for place in (2, 0, 1)]), 12, 12),
    "repeat_interleave": (lambda _, x: x.repeat_interleave(2, 1), 24, 12),
    "repeat": (lambda _, x: x.repeat(1, 2, 1, 1), 24, 12),
    "stack": (lambda _, x: torch.stack([x, x * 2], 2).flatten(1, 2), 24, 12),
    "unflatten": (lambda _, x: x.unflatten(1, (-1, 3)).transpose(1, 2).flatten(1, 2), 12, 12),
    "with a constant": (lambda _, x: cat(x, torch.ones(2, 1, 6, 6)), 13, 12),
    "columns of windows": (lambda _, x: F.unfold(x, 3, padding=1).view(2, -1, 6, 6), 108, 12),
    "windows summed": (lambda _, x: F.fold(F.unfold(x, 3, padding=1), 6, 3, padding=1), 12, 12),
    "windows of one dimension": (lambda _, x: x.unfold(2, 2, 1).mean(-1), 12, 12),
    "a mesh of places": (
        lambda _, x: x * torch.meshgrid(torch.arange(x.shape[2]), torch.arange(x.shape[3]), indexing="xy")[0],
        12,
        12,
    ),
    "index over height": (lambda _, x: x[:, :, [3, 1, 2]], 12, 12),
    "index over height and width": (lambda _, x: x[:, :, [3, 1, 2], [0, 1, 1]][..., None], 12, 12),
}


@pytest.mark.parametrize("name", sorted(FREE))
def test_channels_that_move_shrink_and_the_cut_is_proven(name: str) -> None:
    torch.manual_seed(0)
    function, width, units = FREE[name]
    model = Net(function, width)
    for share in (70, 50, 30):
        graph = cutback.trace(model, IMAGES)
        groups = [group for group in graph.groups if "a" in group.layers]
        assert max(group.units for group in groups) == units, str(graph)
        plan = cutback.plan(graph, budget=f"channels={share}%", score=cutback.scores.Random(share))
        prove(graph, plan)
        assert len(plan.slices["a.weight"][0].indices) < 12
        assert len(plan.slices["b.weight"][1].indices) < width


LITERAL = {
    "the first four": (lambda _, x: x[:, :4], 4, 4),
    "all but the first four": (lambda _, x: x[:, 4:], 8, 4),
    "all but the last four": (lambda _, x: x[:, :-4], 8, 4),
    "a list": (lambda _, x: x[:, [3, 1, 2]], 3, 4),
    "index_select": (lambda _, x: x.index_select(1, torch.tensor([3, 1, 2])), 3, 4),
    "the last four": (lambda _, x: x[:, -4:], 4, 4),
    "five and seven": (lambda _, x: cat(*x.split([5, 7], 1)[::-1]), 12, 12),
    "a negative place": (lambda _, x: x[:, [-1, 0]], 2, 12),
}


@pytest.mark.parametrize("name", sorted(LITERAL))
def test_literal_positions_stay_and_only_they(name: str) -> None:
    function, width, stay = LITERAL[name]
    model = Net(lambda net, x: cat(function(net, x), x), width + 12)
    graph = cutback.trace(model, IMAGES)
    kept = {layer.layer: layer.channels for layer in graph.kept}
    assert kept["a"] == stay, str(graph)
    for share in (70, 50, 30):
        plan = cutback.plan(graph, budget=f"channels={share}%", score=cutback.scores.Random(share))
        prove(graph, plan)
        assert ("a.weight" in plan.slices) == (stay < 12)


def test_two_channels_that_meet_only_in_a_roll_are_one_unit() -> None:
    graph = cutback.trace(Net(lambda _, x: x + x.roll(x.shape[1] // 2, 1)), IMAGES)
    group = next(group for group in graph.groups if "a" in group.layers)
    slot = next(slot for slot in group.slices if slot.state == "a.weight")
    assert [sorted(pair) for pair in group.slices[slot].tolist()] == [[i, i + 6] for i in range(6)]


def test_a_literal_roll_that_is_paired_keeps_its_channels() -> None:
    graph = cutback.trace(Net(lambda _, x: x + x.roll(6, 1)), IMAGES)
    assert not any("a" in group.layers for group in graph.groups)
    assert "rolls channels by the literal amount" in str(graph)


REFUSED = {
    "cumsum": (lambda _, x: x.cumsum(1), 12, "by position"),
    "sort": (lambda _, x: x.sort(1)[0], 12, "by position"),
    "topk": (lambda _, x: x.topk(4, 1)[0], 4, "orders channels"),
    "a window over channels": (lambda _, x: x.unfold(1, 3, 3).mean(-1), 4, "window over channels"),
    "neighbouring channels": (
        lambda net, x: x * net.across(x.mean((2, 3))[:, None]).mT[..., None],
        12,
        "side by side",
    ),
    "memory": (lambda _, x: x.as_strided((2, 6, 6, 6), (432, 72, 6, 1)), 6, "strides"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_depends_on_positions_is_refused_with_its_reason(name: str) -> None:
    function, width, reason = REFUSED[name]
    graph = cutback.trace(Net(function, width), IMAGES)
    assert not any("a" in group.layers for group in graph.groups)
    assert reason in " ".join(boundary.reason for boundary in graph.boundaries)


def test_sorting_over_space_leaves_channels_alone() -> None:
    for function in (lambda _, x: x.topk(3, 3)[0], lambda _, x: x.sort(2)[0], lambda _, x: x.cumsum(-1)):
        graph = cutback.trace(Net(function), IMAGES)
        plan = cutback.plan(graph, budget="channels=50%", score="random")
        prove(graph, plan)
        assert len(plan.slices["a.weight"][0].indices) == 6
