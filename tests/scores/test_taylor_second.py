"""Second-order Taylor scores against differences of gate gradients."""

import pytest
import torch
from torch.nn import functional

from cutback.errors import UserMistake
from cutback.scores import TaylorSecond
from tests.scores.gated import LABELS, PICTURES, double, run
from tests.scores.networks import NETWORKS, Batches, assert_equal, numbers, rated, traced

STEP = 1e-5


def slopes(network, images, labels, gates):
    """The derivatives of the loss by shared gates, one a unit, at given values; and at how many places each stands."""
    counts = dict.fromkeys(gates, 0)

    def gate(tensor, at, group):
        if at != "stream":
            return tensor
        counts[group] += 1
        return tensor * gates[group].view(-1, *[1] * (tensor.dim() - 2))

    loss = functional.cross_entropy(run(network, double(network), images, gate), labels)
    return dict(zip(gates, torch.autograd.grad(loss, list(gates.values())), strict=True)), counts


def gates_of(graph, moved="", unit=0, by=0.0):
    gates = {group.name: torch.ones(group.units, dtype=torch.float64) for group in graph.groups}
    if moved:
        gates[moved][unit] += by
    return {name: values.requires_grad_() for name, values in gates.items()}


def loop(network, sizes):
    graph = traced(network, torch.float64)
    expected = {}
    for images, labels in zip(PICTURES.split(sizes), LABELS.split(sizes), strict=True):
        gradient, counts = slopes(network, images, labels, gates_of(graph))
        for group in graph.groups:
            values = expected.setdefault(group.name, [0.0] * group.units)
            for unit in range(group.units):
                ahead, behind = (
                    slopes(network, images, labels, gates_of(graph, group.name, unit, by))[0][group.name][unit]
                    for by in (STEP, -STEP)
                )
                curvature = float(ahead - behind) / (2 * STEP)
                change = -float(gradient[group.name][unit]) + curvature / 2
                values[unit] += change**2 / len(sizes) / counts[group.name]
    return expected


@pytest.mark.parametrize("network", NETWORKS)
def test_it_squares_the_change_of_each_batch_to_second_order(network):
    expected = loop(network, (3, 3))
    batches = Batches(sizes=(3, 3), dtype=torch.float64)
    found = rated(traced(network, torch.float64), TaylorSecond(batches, functional.cross_entropy))
    for group, values in expected.items():
        assert numbers(found[group]) == pytest.approx(values, rel=1e-5, abs=1e-7 * max(values))


def test_by_name_it_is_exact_for_small_networks():
    graph = traced("projected", torch.float64)
    expected = rated(graph, TaylorSecond(Batches(dtype=torch.float64), functional.cross_entropy, probes=1000))
    found = rated(graph, "taylor-second", torch.float64)
    assert_equal(found, {group: numbers(values) for group, values in expected.items()}, 1e-12)


def test_with_few_probes_the_diagonal_is_right_on_average():
    """Of a quadratic form, whose second derivatives are known."""
    matrix = torch.randn(40, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    matrix = matrix + matrix.T
    factors = torch.ones(40, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(factors @ matrix @ factors / 2, factors, create_graph=True)
    score, generator = TaylorSecond([], functional.cross_entropy, probes=20), torch.Generator().manual_seed(0)
    draws = torch.stack([score._diagonal(gradient, factors, generator) for _ in range(500)])
    expected = matrix.diagonal()
    error = (matrix.square().sum(1) - expected.square()).sqrt() / (500 * 20) ** 0.5
    assert ((draws.mean(0) - expected).abs() < 5 * error).all()
    exact = TaylorSecond([], functional.cross_entropy, probes=40)._diagonal(gradient, factors, generator)
    assert torch.allclose(exact, expected, rtol=1e-12)


def test_the_seed_decides_where_there_are_fewer_probes_than_units():
    graph, batches = traced("flattened"), Batches()
    made = [TaylorSecond(batches, functional.cross_entropy, probes=2, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (rated(graph, score)["0"] for score in made)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_probes_are_refused():
    with pytest.raises(UserMistake, match="probes=0; write 1 or more"):
        TaylorSecond([], functional.cross_entropy, probes=0)
