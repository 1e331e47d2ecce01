"""Sizes in a model's code: attributes that follow, coincidences that do not, literals, widths taken from elsewhere."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cutback
from cutback.errors import ArchitectureMismatch, NothingToPrune
from cutback.graph import replay

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """conv a (8) -> a layer or function -> conv b (8) -> relu -> conv c."""

    def __init__(self, middle, inner: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(inner, 8, 1), nn.Conv2d(8, 2, 1)
        self.middle = middle

    def forward(self, x):
        return self.c(self.b(self.middle(self.a(x))).relu())


class Layer(nn.Module):
    """Attributes, and a function of the layer and its input."""

    def __init__(self, function, **attributes) -> None:
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            if isinstance(value, torch.Tensor):
                self.register_buffer(name, value.clone())
            else:
                setattr(self, name, value)

    def forward(self, x):
        return self.function(self, x)


def cut(model: nn.Module, share: str = "50%"):
    """Trace, plan, prove and cut; return the graph and the plan."""
    graph = cutback.trace(model, IMAGES)
    plan = cutback.plan(graph, budget=f"channels={share}")
    cutback.apply_(graph, plan)
    model(IMAGES)
    return graph, plan


def blur(layer, x):
    return F.conv2d(F.pad(x, [1] * 4, mode="reflect"), layer.filt, stride=2, groups=layer.channels)


FOLLOWING = {
    "view": (lambda layer, x: x.view(-1, layer.dim, 36).relu().view(-1, layer.dim, 6, 6), {"dim": 8}, {"dim": 4}),
    "depthwise groups beside a buffer": (blur, {"channels": 8, "filt": torch.rand(8, 1, 3, 3)}, {"channels": 4}),
    "expand": (lambda layer, x: x.mean((2, 3), keepdim=True).expand(-1, layer.dim, 6, 6), {"dim": 8}, {"dim": 4}),
    "layer norm": (
        lambda layer, x: F.layer_norm(x.movedim(1, 3), (layer.dim,)).movedim(3, 1),
        {"dim": 8},
        {"dim": 4},
    ),
    "a tuple": (
        lambda layer, x: F.layer_norm(x.movedim(1, 3), layer.shape).movedim(3, 1),
        {"shape": (8,)},
        {"shape": (4,)},
    ),
    "one entry of a list": (
        lambda layer, x: x.view(-1, layer.sizes[1], layer.sizes[0]).relu().view(-1, layer.sizes[1], 6, 6),
        {"sizes": [36, 8]},
        {"sizes": [36, 4]},
    ),
    "heads and their width": (
        lambda layer, x: (
            (x.flatten(2).mT.reshape(2, 36, layer.heads, layer.dim) * 2).reshape(2, 6, 6, -1).movedim(3, 1)
        ),
        {"heads": 2, "dim": 4},
        {"heads": 2, "dim": 2},
    ),
    "a product": (
        lambda layer, x: (x.view(2, layer.heads, layer.dim, 36) * 2).view(2, layer.heads * layer.dim, 6, 6),
        {"heads": 2, "dim": 4},
        {"heads": 2, "dim": 2},
    ),
    "a quotient": (
        lambda layer, x: (x.view(2, layer.heads, layer.dim // layer.heads, 36) * 2).view(2, layer.dim, 6, 6),
        {"heads": 2, "dim": 8},
        {"heads": 2, "dim": 4},
    ),
    "split": (
        lambda layer, x: torch.cat([part.relu() for part in x.split(layer.half, 1)], 1),
        {"half": 4},
        {"half": 2},
    ),
    "slices": (
        lambda layer, x: torch.cat([x[:, : layer.half].relu(), x[:, layer.half :].sigmoid()], 1),
        {"half": 4},
        {"half": 2},
    ),
    "a comparison": (lambda layer, x: x * 2 if x.shape[1] == layer.dim else x.view(0), {"dim": 8}, {"dim": 4}),
    "coincidence: heads as many as their width": (
        lambda layer, x: (F.pad(x, [0] * 4).view(2, layer.heads, layer.dim, 36) * 2).view(2, -1, 6, 6),
        {"heads": 2, "dim": 4, "other": 4, "four": 4},
        {"heads": 2, "dim": 2, "other": 4, "four": 4},
    ),
    "a scale made of the width": (
        lambda layer, x: (x.view(2, layer.dim, 36) * layer.scale).view(2, layer.dim, 6, 6),
        {"dim": 8, "scale": 8**-0.5},
        {"dim": 4, "scale": 8**-0.5},
    ),
}


@pytest.mark.parametrize("name", sorted(FOLLOWING))
def test_an_attribute_that_holds_a_width_follows(name: str, tmp_path) -> None:
    function, before, after = FOLLOWING[name]
    model = Net(Layer(function, **before))
    _, plan = cut(model)
    assert model.a.out_channels == 4
    assert {key: getattr(model.middle, key) for key in after} == after
    assert {key: type(getattr(model.middle, key)) for key in after} == {key: type(before[key]) for key in after}
    cutback.save(model, plan, tmp_path / "small")
    loaded = cutback.load(tmp_path / "small", build=lambda: Net(Layer(function, **before)))
    assert torch.equal(loaded(IMAGES), model(IMAGES))
    assert {key: getattr(loaded.middle, key) for key in after} == after


@pytest.mark.parametrize("build", [{"other": 8}, {"dim": (8,)}, {"dim": 3}, {"dim": 8.0}])
def test_a_plan_does_not_fit_a_model_whose_attributes_differ(build, tmp_path) -> None:
    function, before, _ = FOLLOWING["expand"]
    model = Net(Layer(function, **before))
    _, plan = cut(model)
    cutback.save(model, plan, tmp_path / "small")
    with pytest.raises(ArchitectureMismatch, match=r"middle\.dim"):
        cutback.load(tmp_path / "small", build=lambda: Net(Layer(function, **build)))


def test_attributes_of_the_model_itself_of_an_ancestor_and_of_an_object() -> None:
    class Inner(nn.Module):
        def forward(self, x, width):
            return x.view(2, width, 36).relu().view(2, width, 6, 6)

    class Outer(Net):
        def __init__(self) -> None:
            super().__init__(Inner())
            self.width, self.config = 8, SimpleNamespace(hidden=8, layers=8)

        def forward(self, x):
            x = self.middle(self.a(x), self.width)
            return self.c(self.b(x).view(2, self.config.hidden, 6, 6).relu())

    model = Outer()
    cut(model)
    assert (model.a.out_channels, model.b.out_channels) == (4, 4)
    assert (model.width, model.config.hidden, model.config.layers) == (4, 4, 8)


KEPT = {
    "computed with": (lambda layer, x: x.view(2, layer.dim, 36).view(2, -1, 6, 6) / layer.dim, {"dim": 8}, "div"),
    "a power": (lambda layer, x: x.view(2, layer.dim, 36).view(2, -1, 6, 6) * layer.dim**-0.5, {"dim": 8}, "mul"),
    "a kernel size, too": (
        lambda layer, x: F.max_pool2d(F.pad(x.view(2, 2, layer.n, 6, 6).flatten(1, 2), [1] * 4), layer.n, 1, 1),
        {"n": 4},
        "kernel_size",
    ),
    "also the height": (
        lambda layer, x: x.view(2, layer.n, 6, 6)[:, :, :].view(2, 8, 36)[:, :, : layer.n],
        {"n": 8},
        "literal",
    ),
    "a literal": (lambda _, x: x.view(2, 8, 36).view(2, -1, 6, 6), {}, "literal"),
}


@pytest.mark.parametrize("name", sorted(set(KEPT) - {"also the height"}))
def test_a_number_that_cannot_follow_keeps_its_channels_with_the_reason(name: str) -> None:
    function, attributes, reason = KEPT[name]
    model = Net(Layer(function, **attributes))
    graph, _ = cut(model)
    assert model.a.out_channels == 8
    assert model.b.out_channels == 4
    assert {key: getattr(model.middle, key) for key in attributes} == attributes
    assert any(reason in boundary.reason for boundary in graph.boundaries), graph.boundaries


def test_an_attribute_of_two_widths_keeps_them_equal() -> None:
    class Two(Net):
        def forward(self, x):
            x = self.a(x).view(2, self.middle.n, 36).view(2, -1, 6, 6)
            return self.c(self.b(x).view(2, self.middle.n, 36).view(2, -1, 6, 6).relu())

    model = Two(Layer(lambda _, x: x, n=8))
    graph = cutback.trace(model, IMAGES)
    ((first, second),) = [system.groups for system in graph.systems]
    assert [graph.groups[number].name for number in (first, second)] == ["a", "b"]
    by_hand = {group.name: len(group.kept) for group in cutback.plan(graph, keep={"a": 3}).groups}
    assert by_hand == {"a": 3, "b": 3}
    cut(model)
    assert model.a.out_channels == model.b.out_channels == model.middle.n == 4


def test_a_size_of_another_tensor_keeps_both_widths_equal() -> None:
    class Borrowed(Net):
        def forward(self, x):
            x = self.a(x)
            y = self.b(x)
            return self.c(y.view(2, x.shape[1], 36).view(2, -1, 6, 6).relu())

    model = Borrowed(None)
    graph = cutback.trace(model, IMAGES)
    (system,) = graph.systems
    assert system.balanced(np.array([3, 3]))
    assert not system.balanced(np.array([3, 4]))
    cut(model)
    assert model.a.out_channels == model.b.out_channels == 4


def test_a_size_of_a_tensor_whose_channels_stay_keeps_the_other_whole() -> None:
    class Borrowed(Net):
        def forward(self, x):
            x = self.a(x)
            y = self.b(x)
            return self.c(y.view(2, x.shape[1], 36).view(2, -1, 6, 6).relu()), x

    graph = cutback.trace(Borrowed(None), IMAGES)
    assert all(np.array_equal(system.levels, [system.sizes]) for system in graph.systems)
    with pytest.raises(NothingToPrune):
        cutback.plan(graph, budget="channels=50%")


def test_a_scale_computed_from_another_tensors_width_keeps_that_tensor() -> None:
    class Scaled(Net):
        def forward(self, x):
            x = self.a(x)
            return self.c((self.b(x) * x.shape[1] ** -0.5).relu())

    model = Scaled(None)
    cut(model)
    assert (model.a.out_channels, model.b.out_channels) == (8, 4)


def test_a_scale_hidden_from_the_recorder_is_found_by_halving() -> None:
    class Hidden(Net):
        def forward(self, x):
            x = self.a(x)
            return self.c((self.b(x).view(2, -1, 36).view(2, self.width, 6, 6) * int(str(x.shape[1]))).relu())

    model = Hidden(None)
    model.width = 8
    graph = cutback.trace(model, IMAGES)
    assert "a" not in [group.name for group in graph.groups]
    assert any("depends on this width" in boundary.reason for boundary in graph.boundaries)


def test_a_verdict_holds_for_every_module_of_the_class(monkeypatch) -> None:
    captures: list[object] = []
    inner = replay.capture
    monkeypatch.setattr(replay, "capture", lambda *args, **options: captures.append(0) or inner(*args, **options))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)

        def forward(self, x):
            return x + self.down(self.up(x).view(2, 16, 36).relu().view(2, -1, 6, 6))

    model = Net(nn.Sequential(*(Block() for _ in range(10))))
    graph = cutback.trace(model, IMAGES)
    assert len(captures) <= 6
    assert sum("literal" in boundary.reason for boundary in graph.boundaries) == 10
    assert [group.name for group in graph.groups] == ["a", "b"]


def test_attributes_need_no_more_captures_than_one_for_each_check(monkeypatch) -> None:
    captures: list[object] = []
    inner = replay.capture
    monkeypatch.setattr(replay, "capture", lambda *args, **options: captures.append(0) or inner(*args, **options))
    function, before, _ = FOLLOWING["a product"]
    graph = cutback.trace(Net(nn.Sequential(*(Layer(function, **before) for _ in range(12)))), IMAGES)
    assert sum(followed.attribute == "dim" for followed in graph.coupling.followed) == 12
    assert len(captures) == 4  # two probes, in eval and in train mode


def test_a_model_without_written_sizes_is_not_captured_again(monkeypatch) -> None:
    monkeypatch.setattr(replay, "capture", None)
    assert cutback.trace(Net(nn.BatchNorm2d(8)), IMAGES).groups
