"""Every quantity, for any widths, is what the network really cut has."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

import cutback
from cutback.errors import BudgetUnreachable, InvalidBudget
from cutback.models import build
from cutback.planning.budget import Budget, parse_budgets
from cutback.planning.cost import CostModel
from cutback.planning.make import plan_for
from cutback.planning.quantity import Quantity, quantities, shown
from tests.helpers import chain, image, randomised, residual

CIFAR = torch.zeros(2, 3, 32, 32)
NETWORKS = {
    "residual": lambda: (residual(), image()),
    "resnet20": lambda: (build("resnet20"), CIFAR),
    "half": lambda: (chain((8, 12)).to(torch.bfloat16), image().to(torch.bfloat16)),
    "tied": lambda: (Tied(), image()),
    "densenet": lambda: (torchvision.models.DenseNet(8, (2, 2), 8, num_classes=4), CIFAR),
    "grouped": lambda: (
        torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=4, groups=4, width_per_group=4
        ),
        CIFAR,
    ),
    "shuffled": lambda: (torchvision.models.ShuffleNetV2([2, 2, 2], [8, 16, 32, 64, 32], num_classes=4), CIFAR),
}


class Tied(nn.Module):
    """Uses one convolution under two names and keeps a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.second = self.first
        self.head = nn.Conv2d(8, 2, 1)
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, images):
        return self.head(self.second(self.first(self.stem(images)).relu()).relu())


def measured(model, inputs, folder) -> dict[str, int]:
    return {
        "macs": cutback.measure.macs(model, inputs),
        "params": cutback.measure.params(model),
        "memory": cutback.measure.memory(model, inputs),
        "peak": cutback.measure.peak_memory(model, inputs),
        "size": (folder / "model.safetensors").stat().st_size,
    }


@pytest.mark.parametrize("share", [0.9, 0.3])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_quantity_is_that_of_the_network_really_cut(name, share, tmp_path):
    torch.manual_seed(0)
    model, inputs = NETWORKS[name]()
    graph = cutback.trace(model, inputs)
    if graph.systems:
        plan = cutback.plan(graph, budget=f"channels={share:.0%}")
    else:
        random = np.random.default_rng(0)
        kept = {group.name: range(max(int(group.units * share), int(random.integers(1, 3)))) for group in graph.groups}
        plan = plan_for(graph, kept)
    widths = np.array([len(group.kept) for group in plan.groups])
    whole = np.array([group.units for group in graph.groups])
    cost = CostModel(graph)
    found = {name: quantities.get(name)(graph, cost) for name in ("macs", "params", "memory", "peak", "size")}
    untouched = plan_for(graph, {})
    cutback.save(model, untouched, tmp_path / "dense")
    dense = measured(model, inputs, tmp_path / "dense")
    assert {name: quantity.dense for name, quantity in found.items()} == dense
    assert {name: quantity.of(whole) for name, quantity in found.items()} == dense
    predicted = {name: quantity.of(widths) for name, quantity in found.items()}
    cutback.apply_(graph, plan, prove=False)
    cutback.save(model, plan, tmp_path / "cut")
    assert predicted == measured(model, inputs, tmp_path / "cut")
    assert all(predicted[name] < dense[name] for name in predicted)


class Mixer(nn.Module):
    """Mixes places by a layer whose weight stays, blurs by a buffer, and reads the channels by a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.places = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(64, 64)
        self.register_buffer("blur", torch.ones(8, 1, 3, 3) / 9)
        self.matrix = nn.Parameter(torch.randn(6, 8))
        self.read, self.head = nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True), nn.Linear(10, 4)

    def forward(self, images):
        x = functional.conv2d(self.stem(images), self.blur, padding=1, groups=self.blur.shape[0])
        x = torch.einsum("oc,ncl->nol", self.matrix, self.places(x.flatten(2)).relu())
        return self.head(self.read(x.mT)[0])


PRODUCTS = {
    "transformer": lambda: torchvision.models.VisionTransformer(32, 8, 2, 4, 24, 32, num_classes=4),
    "places": Mixer,
}


@pytest.mark.parametrize("granularity", ["channels", "blocks"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_macs_of_products_are_those_of_the_network_really_cut(name, granularity):
    torch.manual_seed(0)
    model = PRODUCTS[name]()
    graph = cutback.trace(model, CIFAR, granularity=granularity)
    plan = cutback.plan(graph, budget="channels=50%")
    assert plan.costs["macs"].before == cutback.measure.macs(model, CIFAR)
    cutback.apply_(graph, plan)
    assert plan.costs["macs"].after == cutback.measure.macs(model, CIFAR)
    assert plan.costs["macs"].after < 0.65 * plan.costs["macs"].before


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        ("memory=2MiB", 2 * 2**20),
        ("peak=1.5KiB", 1536),
        ("size=5MB", 5_000_000),
        ("size=700B", 700),
        ("size=1GiB", 2**30),
        ("memory=12.5%", 2**39 // 8),
    ],
)
def test_bytes_are_read_exactly(written, limit):
    (budget,) = parse_budgets(written)
    assert budget.limit(2**39) == limit
    assert parse_budgets(str(budget)) == (budget,)


@pytest.mark.parametrize("written", ["memory=20M", "size=5", "peak=8mib", "memory=3ms", "macs=3MiB", "params=2x"])
def test_a_unit_of_another_quantity_is_refused(written):
    with pytest.raises(InvalidBudget, match=r"has no unit of .*write for example"):
        parse_budgets(written)


def test_a_network_without_convolutions_has_no_memory_to_bound():
    graph = cutback.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(2, 4))
    with pytest.raises(InvalidBudget, match=r"memory=50% bounds nothing: the dense network has no memory"):
        cutback.plan(graph, budget="memory=50%")


def test_the_plan_tells_every_budgeted_figure_and_keeps_it_in_json():
    graph = cutback.trace(build("resnet20"), CIFAR)
    plan = cutback.plan(graph, budget=["memory=60%", "size=50%"])
    assert list(plan.costs) == ["macs", "params", "memory", "size"]
    assert f"memory: {shown('memory', plan.costs['memory'].before)} -> " in str(plan)
    assert cutback.Plan.from_json(plan.to_json()) == plan
    assert shown("memory", 3 * 2**19) == "1.50 MiB (1,572,864 bytes)"
    assert shown("peak", 1234) == "1,234 bytes"
    assert shown("nothing registered", 1234) == "1,234"


def test_plans_for_different_quantities_compose():
    model = randomised(build("resnet20"))
    first_graph = cutback.trace(model, CIFAR)
    first = cutback.plan(first_graph, budget="memory=70%")
    cutback.apply_(first_graph, first, prove=False)
    second = cutback.plan(cutback.trace(model, CIFAR), budget="size=60%")
    both = first.then(second)
    assert set(both.costs) == {"macs", "params"}
    assert (both.costs["macs"].before, both.costs["macs"].after) == (
        first.costs["macs"].before,
        second.costs["macs"].after,
    )


def test_an_unreachable_budget_tells_the_lowest_figure_and_that_is_reachable():
    graph = cutback.trace(chain((8, 12)), image())
    with pytest.raises(BudgetUnreachable, match=r"peak at most 10 bytes, lowest reachable [\d,]+ bytes") as raised:
        cutback.plan(graph, budget="peak=10B", max_removed="50%")
    lowest = raised.value.lowest["peak"]
    assert cutback.plan(graph, budget=f"peak={lowest}B", max_removed="50%").costs["peak"].after == lowest
    with pytest.raises(BudgetUnreachable):
        cutback.plan(graph, budget=f"peak={lowest - 1}B", max_removed="50%")


def test_a_peak_budget_leaves_alone_what_has_no_part_in_the_peak():
    model = randomised(
        nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(32, 8, 1), nn.Conv2d(8, 2, 1))
    )
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="peak=60%")
    assert [len(group.kept) for group in plan.groups] == [19, 8]


def test_a_memory_budget_leaves_linear_layers_alone():
    convolutions = nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = randomised(nn.Sequential(*convolutions, nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 2)))
    plan = cutback.plan(cutback.trace(model, image()), budget="memory=50%")
    assert plan.costs["memory"].after * 2 == plan.costs["memory"].before
    assert {group.name: len(group.kept) for group in plan.groups}["5"] == 512


class Parity(Quantity):
    """A figure that only every second channel lowers, as measured times may."""

    everywhere = False

    def of(self, kept):
        return int((kept + 1).sum() // 2)


def test_a_budget_may_bring_its_own_quantity():
    graph = cutback.trace(chain((8, 12)), image())
    (half,) = parse_budgets("channels=50%")
    own = Budget("parity", half.amount, relative=True, measure=Parity)
    plan = cutback.plan(graph, budget=[own, "macs=90%"])
    assert plan.costs["parity"].before == 11
    assert plan.costs["parity"].after == 5
    assert plan.budgets == ("parity=50%", "macs=90%")
