"""Recovery against brute force over all coalitions, and where it is exact."""

import itertools
import math

import numpy as np
import torch
from torch import nn

import cutback
from cutback.methods import SNPFI
from cutback.methods.activations import looked_at, products
from cutback.methods.snpfi.calibration import calibration
from cutback.methods.snpfi.joining import joined
from cutback.planning.make import plan_for
from tests.helpers import chain, image, randomised

IMAGES, LABELS = image(3, (10, 3, 8, 8)), torch.arange(10) % 4


def twins() -> nn.Sequential:
    """Return three convolutions of which each filter of the second is there twice, the copy as twice the first."""
    model = randomised(
        nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 10, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(10, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
        ),
        seed=1,
    )
    with torch.no_grad():
        second, third = model[2], model[4]
        second.weight[5:], second.bias[5:] = 2 * second.weight[:5], 2 * second.bias[:5]
        original = third.weight[:, :5].clone()
        third.weight[:, :5], third.weight[:, 5:] = 0.3 * original, 0.35 * original
    return model


class ByHand(SNPFI):
    """Keeps what it is told instead of what it finds."""

    kept: dict[str, list[int]]

    def _chosen(self, players):
        return plan_for(self.graph, self.kept)


def pruned(model: nn.Module, kept: dict[str, list[int]], **settings) -> ByHand:
    graph = cutback.trace(model, IMAGES[:2])
    method = ByHand(graph, budget="macs=50%", loader=[(IMAGES, LABELS)], images=10, **settings)
    method.kept = kept
    with method:
        pass
    return method


def test_of_twins_one_does_the_work_of_both() -> None:
    dense, bare, model = twins().eval(), twins().eval(), twins().eval()
    kept = {"2": [0, 6, 2, 8, 9]}
    pruned(bare, kept, recover=False)
    method = pruned(model, kept)
    with torch.no_grad():
        before, after = ((net(IMAGES) - dense(IMAGES)).abs().max() for net in (bare, model))
    assert float(before) > 1
    assert float(after) <= 1e-3
    apart = method.findings()["interaction_difference"]["2"]
    assert apart["before"]["mean"] > 100 * apart["after"]["mean"]
    assert method.findings()["recovered"] == ["4.weight"]


def test_removed_filters_join_the_one_that_goes_with_them() -> None:
    graph = cutback.trace(twins(), IMAGES[:2])
    with looked_at(graph):
        pictures = calibration(graph, [(IMAGES, LABELS)], 10, 4)
        found = products(graph, ["2"], (inputs for inputs, _ in pictures.batches))["2"].correlation
        with torch.no_grad():
            maps = graph.model[:4](IMAGES).transpose(0, 1).flatten(1).double()
    expected = np.corrcoef(maps.numpy())
    assert np.allclose(np.nan_to_num(expected), found, atol=1e-6)
    kept = [0, 6, 2, 8, 9]
    assert joined(found, kept).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def sizes_of_coalitions(units: int) -> dict[tuple[int, ...], float]:
    """Return all coalitions with their probability, every size from none to all being equally likely."""
    found = {}
    for size in range(units + 1):
        for members in itertools.combinations(range(units), size):
            found[members] = 1 / (units + 1) / math.comb(units, size)
    return found


def test_the_change_is_the_best_one_over_all_coalitions() -> None:
    """A linear layer behind five filters: least squares with one row for each picture and coalition."""
    torch.manual_seed(0)
    images, labels = torch.randn(30, 4, 1, 1), torch.arange(30) % 3
    model = nn.Sequential(nn.Conv2d(4, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(5, 3)).eval()
    with torch.no_grad():
        maps, weight, bias = model[:3](images).double(), model[3].weight.double().clone(), model[3].bias.double()
        bias = bias.clone()
    kept, ridge = [0, 2, 4], 1e-6
    correlation = np.nan_to_num(np.corrcoef(maps.T.numpy()))
    joins = {r: max(kept, key=lambda k: correlation[r][k]) for r in (1, 3)}
    rows, wanted, shares = [], [], []
    for members, share in sizes_of_coalitions(3).items():
        inside = [kept[place] for place in members]
        for picture in maps:
            given = torch.tensor([picture[k] if k in inside else 0.0 for k in kept])
            lost = torch.zeros(3, dtype=torch.float64)
            for r, k in joins.items():
                if k in inside:
                    lost += weight[:, r] * picture[r]
            rows.append(given)
            wanted.append(lost)
            shares.append(share / len(maps) / 0.5)  # a filter is there half the time
    a, t, s = torch.stack(rows).double(), torch.stack(wanted), torch.tensor(shares)[:, None].double()
    scale = ridge * maps[:, kept].square().mean()
    change = torch.linalg.solve(a.T @ (s * a) + scale * torch.eye(3).double(), a.T @ (s * t)).T
    graph = cutback.trace(model, images[:2])
    method = ByHand(graph, budget="macs=50%", loader=[(images, labels)], images=30, ridge=ridge)
    method.kept = {"0": kept}
    with method:
        pass
    expected = weight[:, kept] + change
    assert torch.allclose(model[3].weight.double(), expected, atol=1e-5)
    full = maps @ weight.T - maps[:, kept] @ expected.T
    assert torch.allclose(model[3].bias.double(), bias + full.mean(0), atol=1e-5)


def test_with_rho_one_it_is_plain_least_squares_and_batch_norms_take_up_the_mean() -> None:
    dense, model = chain((8, 6)).eval(), chain((8, 6)).eval()
    model[3].bias = dense[3].bias = None
    norm = model[4].running_mean.clone()
    pruned(model, {"0": [0, 1, 3, 5, 6, 7]}, rho=1.0, ridge=1e-9)
    with torch.no_grad():
        wanted = dense[:4](IMAGES)
        given = nn.functional.unfold(dense[:3](IMAGES)[:, [0, 1, 3, 5, 6, 7]], 3, padding=1)
        rows = given.transpose(1, 2).flatten(0, 1).double()
        best = torch.linalg.lstsq(rows, wanted.flatten(2).transpose(1, 2).flatten(0, 1).double()).solution.T
        assert torch.allclose(model[3].weight.flatten(1).double(), best, atol=1e-4)
        left = (wanted.double() - model[3](dense[:3](IMAGES)[:, [0, 1, 3, 5, 6, 7]]).double()).mean((0, 2, 3))
        assert torch.allclose(model[4].running_mean.double(), norm - left, atol=1e-5)


def test_averages_begin_anew_with_what_was_recovered() -> None:
    model = twins()
    average = torch.optim.swa_utils.AveragedModel(model)
    pruned(model, {"2": [0, 6, 2, 8, 9]}, copies=[average])
    for name, value in model.state_dict().items():
        assert torch.equal(average.module.state_dict()[name], value), name


def test_the_layer_behind_depthwise_convolutions_makes_up_and_grouped_ones_are_told() -> None:
    def build() -> nn.Sequential:
        layers = [nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(8, 6, 1)]
        tail = [nn.ReLU(), nn.Conv2d(6, 6, 1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
        return randomised(nn.Sequential(*layers, *tail), seed=2)

    model = build().eval()
    method = pruned(model, {"0": [0, 1, 2, 5, 6, 7], "3": [0, 1, 3, 4]})
    told = method.findings()
    assert told["recovered"][:1] == ["3.weight"]
    assert "5.weight" in told["not_recovered"]
