"""Small models that mislead pruning tools: each is cut rightly, or its channels stay."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import cutback
from cutback.errors import CutbackError, DataDependentControlFlow, NotEquivalent
from cutback.planning.plan import Kept

IMAGES = torch.randn(2, 3, 6, 6)


class Net(nn.Module):
    """conv a (8) -> the given function -> conv b -> relu -> conv c."""

    def __init__(self, function=lambda _, x: x, **extra) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.function = function
        for name, value in extra.items():
            if isinstance(value, torch.Tensor) and name.startswith("buffer"):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x):
        return self.c(self.b(self.function(self, self.a(x))).relu())


def naively_silenced(model: nn.Module, plan) -> nn.Module:
    """The original with the columns of removed channels set to zero, by hand."""
    silent = copy.deepcopy(model)
    for path, module in silent.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and getattr(module, "groups", 1) == 1:
            kept = plan.slices.get(f"{path}.weight", {}).get(1)
            if kept:
                gone = [index for index in range(kept.total) if index not in kept.indices]
                with torch.no_grad():
                    module.weight[:, gone] = 0
    return silent


def checkpointed(net, x):
    return checkpoint(lambda t: (net.inner(t) * 1.5).relu(), x, use_reentrant=False)


HARD = {
    "index_select over height": (lambda _, x: x.index_select(2, torch.tensor([0, 2])), {}),
    "index_select by a buffer": (lambda net, x: x.index_select(2, net.buffer), {"buffer": torch.tensor([0, 2])}),
    "in-place unsqueeze": (lambda _, x: (x.clone().unsqueeze_(2) * 2).squeeze(2), {}),
    "in-place unsqueeze of a parameter": (
        lambda net, x: x * net.p.clone().unsqueeze_(-1).unsqueeze_(-1) + net.p[:, None, None],
        {"p": nn.Parameter(torch.rand(8))},
    ),
    "checkpoint": (checkpointed, {"inner": nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))}),
    "a plain tensor attribute": (lambda net, x: x + net.t, {"t": torch.rand(1, 1, 6, 6)}),
    "a plain tensor of channels": (lambda net, x: x + net.t, {"t": torch.rand(1, 8, 1, 1)}),
    "a buffer of channels": (lambda net, x: x * net.buffer, {"buffer": torch.rand(1, 8, 1, 1)}),
    "a lone gate expanded to a literal": (lambda _, x: x * x[:, :1].sigmoid().expand(-1, 8, -1, -1), {}),
    "a lone gate expanded to the shape": (lambda _, x: x * x.mean(1, keepdim=True).expand(x.shape), {}),
    "layer norm without scale": (
        lambda net, x: net.norm(x.movedim(1, 3)).movedim(3, 1),
        {"norm": nn.LayerNorm(8, elementwise_affine=False)},
    ),
    "group norm without scale": (lambda net, x: net.norm(x), {"norm": nn.GroupNorm(4, 8, affine=False)}),
    "instance norm without scale": (lambda net, x: net.norm(x), {"norm": nn.InstanceNorm2d(8)}),
    "noise for each channel": (lambda net, x: x + torch.rand_like(x) * net.training, {}),
    "a mean by hand": (lambda _, x: x - (x.sum(1) / x.shape[1])[:, None], {}),
    "slice assignment": (lambda _, x: assigned(x), {}),
}


def assigned(x):
    x = x.clone()
    x[:, 0:4] = x[:, 4:8]
    return x


@pytest.mark.parametrize("name", sorted(HARD))
def test_a_hard_case_is_cut_rightly_or_kept(name: str) -> None:
    torch.manual_seed(0)
    function, extra = HARD[name]
    model = Net(function, **extra).eval()
    graph = cutback.trace(model, IMAGES)
    for share in (70, 50, 30):
        pruned = copy.deepcopy(model)
        graph = cutback.trace(pruned, IMAGES)
        plan = cutback.plan(graph, budget=f"channels={share}%")
        cutback.apply_(graph, plan)
        assert pruned.b.out_channels < 8
        if not any(word in name for word in ("norm", "mean", "shape")):  # those see only the kept channels, by design
            assert torch.allclose(pruned(IMAGES), naively_silenced(model, plan)(IMAGES), atol=1e-5)
    pruned.train()(IMAGES).sum().backward()


def test_no_number_proves_nothing() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))
    nn.init.zeros_(model[2].weight)

    class Rooted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = model, nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.inner(x.sqrt()).relu().mean((2, 3)))

    graph = cutback.trace(Rooted(), torch.rand(2, 3, 6, 6))
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.prove(graph, plan)
    slices = {name: dict(found) for name, found in plan.slices.items()}
    kept = slices["inner.4.weight"][1].indices
    other = next(index for index in range(8) if index not in kept)
    slices["inner.4.weight"][1] = Kept(8, (*kept[:-1], other))
    tampered = type(plan)(plan.architecture, plan.result, plan.groups, slices, plan.attributes, plan.costs)
    with pytest.raises(NotEquivalent):
        cutback.prove(graph, tampered)


def test_a_cut_that_makes_nan_is_refused() -> None:
    model = Net(lambda _, x: x / (1 + x.std(1, keepdim=True)))
    graph = cutback.trace(model, IMAGES)
    plan = cutback.plan(graph, keep={"a": 1})
    with pytest.raises(NotEquivalent, match="not a number"):
        cutback.prove(graph, plan)


def test_two_cuts_of_a_grouped_convolution_save_and_load_as_one(tmp_path) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 4, 1))

    model = build()
    plans = []
    for _ in range(2):
        graph = cutback.trace(model, IMAGES)
        plans.append(cutback.plan(graph, budget="channels=50%"))
        cutback.apply_(graph, plans[-1])
    cutback.save(model, plans[0].then(plans[1]), tmp_path / "twice")
    assert torch.equal(cutback.load(tmp_path / "twice", build=build)(IMAGES), model(IMAGES))


def test_half_precision_that_names_its_type() -> None:
    model = Net(lambda net, x: (x * 2).to(net.a.weight.dtype) + torch.ones(1, dtype=net.a.weight.dtype)).bfloat16()
    graph = cutback.trace(model, IMAGES.bfloat16())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    assert model(IMAGES.bfloat16()).dtype == torch.bfloat16


def test_a_forward_that_counts_is_named() -> None:
    class Counting(Net):
        runs = 0

        def forward(self, x):
            type(self).runs += 1
            return super().forward(x) * self.runs

    graph = cutback.trace(Counting(), IMAGES)
    with pytest.raises(DataDependentControlFlow, match="counter"):
        cutback.prove(graph, cutback.plan(graph, budget="channels=50%"))


def test_a_weight_shared_with_a_transposed_convolution_is_silenced_in_both_roles() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.weight = nn.Conv2d(3, 6, 1), nn.Parameter(torch.randn(8, 6, 3, 3))

        def forward(self, x):
            hidden = F.conv2d(self.stem(x), self.weight, padding=1).relu()
            return F.conv_transpose2d(hidden, self.weight, padding=1)

    graph = cutback.trace(Tied(), IMAGES)
    cutback.prove(graph, cutback.plan(graph, budget="channels=50%"))


def test_a_model_that_cannot_be_differentiated_can_still_be_cut() -> None:
    def spoiled(_, x):
        gate = x.sigmoid()
        product = gate * x
        gate.mul_(2)
        return product

    graph = cutback.trace(Net(spoiled), IMAGES)
    cutback.prove(graph, cutback.plan(graph, budget="channels=50%"))


def test_a_copy_of_a_model_that_torch_cannot_copy() -> None:
    model = Net()
    with pytest.warns(FutureWarning):
        model.c = torch.nn.utils.weight_norm(model.c)
    model(IMAGES)
    pruned = cutback.prune(model, IMAGES, channels=0.5)
    assert pruned.a.out_channels == 4
    assert model.a.out_channels == model.b.out_channels == 8
    assert pruned.b.out_channels == 4


def test_every_error_is_one_of_ours() -> None:
    for function in (lambda _, x: x @ x, lambda _, x: torch.linalg.qr(x)[0], lambda _, x: x.sort(1)[0]):
        try:
            cutback.trace(Net(function), IMAGES)
        except CutbackError:
            continue
