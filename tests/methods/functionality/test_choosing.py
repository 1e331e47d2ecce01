"""Contribution, quotas, weight transfer and what stays."""

import numpy as np
import pytest
import torch
from torch import nn

import cutback
from cutback.graph.inputs import Inputs
from cutback.methods import Functionality
from cutback.methods.functionality.contribution import contributions
from cutback.methods.functionality.quota import Layer, by_value, inside_clusters
from tests.helpers import chain, image, residual
from tests.methods.functionality.planted import pictures, planted

LABELS = torch.zeros(24, dtype=torch.int64)
LOADER = [(pictures(), LABELS)]


def index_of(model: nn.Module, groups: list[str], batches: list[torch.Tensor]):
    graph = cutback.trace(model, batches[0][:2])
    return contributions(graph, groups, [Inputs.of(batch) for batch in batches])


def test_the_index_is_that_of_plain_loops() -> None:
    model, images = chain((6, 5)).eval(), image(4, (7, 3, 8, 8))
    found = index_of(model, ["0", "3"], [images[:4], images[4:]])
    for group, tail in (("0", 3), ("3", 6)):
        plain, scaled = torch.zeros(2, found[group].plain.numel(), dtype=torch.float64)
        for picture in images:
            maps = model[:tail](picture[None]).detach().requires_grad_()
            logits = model[tail:](maps)
            logits[0, int(logits.argmax())].backward()
            for unit in range(maps.shape[1]):
                plain[unit] += maps.grad[0, unit].abs().double().mean() / len(images)
                scaled[unit] += (maps[0, unit] * maps.grad[0, unit]).double().sum().abs().detach() / len(images)
        assert torch.allclose(found[group].plain, plain, rtol=1e-4)
        assert torch.allclose(found[group].scaled, scaled, rtol=1e-4)


def test_a_filter_that_nothing_reads_contributes_nothing_and_goes_first() -> None:
    model, truth = planted(0)
    unread = next(unit for unit, function in enumerate(truth) if function == 1)
    with torch.no_grad():
        model[4].weight[:, unread] = 0.0
    found = index_of(model, ["2"], [pictures()])["2"]
    assert found.plain[unread] == 0
    assert (np.delete(found.plain.numpy(), unread) > 0).all()
    order = inside_clusters(Layer(np.array(truth), found.plain.numpy(), found.scaled.numpy())).order
    same = [unit for unit in order if truth[unit] == 1]
    assert same[0] == unread


def test_streams_are_added_up_over_all_that_write_to_them_and_the_model_is_left_alone() -> None:
    model = residual().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = index_of(model, ["stem", "inner"], [image(1, (5, 3, 8, 8))])
    assert (found["stem"].plain > 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def layer(labels: list[int], seed: int = 0) -> Layer:
    generator = np.random.default_rng(seed)
    return Layer(np.array(labels), *generator.random((2, len(labels))))


@pytest.mark.parametrize("seed", range(4))
def test_no_function_is_lost_as_long_as_one_is_there_twice(seed) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(5, size=14).tolist()
    given = layer(labels, seed)
    order = inside_clusters(given).order
    assert sorted(order) == list(range(14))
    left = {label: [unit for unit in range(14) if labels[unit] == label] for label in set(labels)}
    for removed, unit in enumerate(order, 1):
        own = left[labels[unit]]
        if removed <= given.repeats:
            assert len(own) == max(map(len, left.values())) > 1
            assert given.plain[unit] == min(given.plain[other] for other in own)
            rivals = [m for m in left.values() if len(m) == len(own)]
            assert given.plain[unit] == min(given.plain[m].min() for m in rivals)
            assert given.coverage(order[removed:]) == 1
        else:
            assert given.scaled[unit] == min(given.scaled[m[0]] for m in left.values() if m)
            assert given.coverage(order[removed:]) == pytest.approx(1 - (removed - given.repeats) / given.clusters)
        own.remove(unit)


def test_dead_filters_go_before_all_others() -> None:
    given = layer([0, -1, 0, 1, -1])
    assert set(inside_clusters(given).order[:2]) == {1, 4}
    assert (given.clusters, given.repeats) == (2, 3)
    assert given.coverage([2, 3]) == 1
    assert given.coverage([0, 1]) == 0.5
    assert layer([-1, -1]).coverage([0]) == 1


def test_budgets_of_layers_are_shares_of_their_redundancy() -> None:
    given = layer([0, 0, 0, 0, 1, 1, 2, 3])  # n = 8, K = 4, r = 1/2
    for alpha in (0.2, 0.25, 0.5, 0.74, 1.0, 1.2):
        assert 8 - inside_clusters(given).width(alpha) == int(alpha * (1 - 4 / 8) * 8)
    assert inside_clusters(layer([0, 1, 2])).width(100.0) == 3
    assert by_value(given, np.arange(8.0)[::-1]).order[:3] == [7, 6, 5]


def run(model: nn.Module, **settings) -> Functionality:
    graph = cutback.trace(model, pictures(2))
    method = Functionality(graph, loader=LOADER, **{"ignore": "0,4", **settings})
    with method:
        pass
    return method


def test_every_function_keeps_a_filter_where_the_norm_loses_some() -> None:
    model, truth = planted(1, flipped=False)
    method = run(model, alpha=1.0)
    (kept,) = (group.kept for group in method.plan().groups if group.name == "2")
    assert sorted(truth[unit] for unit in kept) == [0, 1, 2, 3]
    told = method.findings()["layers"]["2"]
    assert (told["functions"], told["coverage"], told["functions_lost"]) == (4, 1.0, 0)
    assert told["activations_correlate"] > 0.9
    other, _ = planted(1, flipped=False)
    norm = run(other, alpha=1.0, order="l1")
    (kept,) = (group.kept for group in norm.plan().groups if group.name == "2")
    assert len(kept) == 4
    assert len({truth[unit] for unit in kept}) <= 3
    norms = planted(1, flipped=False)[0][2].weight.abs().sum((1, 2, 3))
    assert set(kept) == set(norms.topk(4).indices.tolist())
    assert norm.findings()["layers"]["2"]["functions_lost"] >= 1


def test_transferred_weights_do_the_work_of_removed_ones() -> None:
    dense, _ = planted(0)
    images = pictures(8, 51)
    outputs = {}
    for transfer in (False, True):
        model, _ = planted(0)
        average = torch.optim.swa_utils.AveragedModel(model)
        method = run(model, alpha=1.0, transfer=transfer, copies=[average])
        assert model[2].out_channels == 5
        outputs[transfer] = float((model(images) - dense(images)).abs().max().detach())
        assert torch.equal(average.module[4].weight, model[4].weight)
    assert outputs[True] <= 1e-4
    assert outputs[False] > 0.1
    assert method.findings()["transferred"] == ["4.weight"]


def test_by_chance_inside_clusters_loses_no_function_either() -> None:
    model, truth = planted(2)
    method = run(model, alpha=1.0, order="random-inside")
    (kept,) = (group.kept for group in method.plan().groups if group.name == "2")
    assert {truth[unit] for unit in kept} == set(range(5))
    other, _ = planted(2)
    assert len(run(other, alpha=1.0, order="random").plan().groups[1].kept) == 5
