"""The oracle against a plain loop that zeroes the weights which read a unit, and runs the whole network."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from cutback.errors import UserMistake
from cutback.scores import Oracle
from tests.scores.networks import NETWORKS, Batches, rated, traced

UNITS = {
    "residual": {"stem": 8, "inner": 10},
    "projected": {"stem": 6, "inner": 7, "outer": 8},
    "flattened": {"0": 5},
    "grouped": {"0": 8, "3": 12, "6": 6},
}

# Written by hand: views of all weights that read unit u of a group of a network m.
READERS = {
    "residual": {
        "stem": lambda m, u: [m.inner.weight[:, u], m.head.weight[:, u]],
        "inner": lambda m, u: [m.outer.weight[:, u]],
    },
    "projected": {
        "stem": lambda m, u: [m.inner.weight[:, u], m.projection.weight[:, u]],
        "inner": lambda m, u: [m.outer.weight[:, u]],
        "outer": lambda m, u: [m.second.weight[:, u], m.head.weight[:, u]],
    },
    "flattened": {"0": lambda m, u: [m[4].weight[:, 16 * u : 16 * (u + 1)]]},
    "grouped": {
        "0": lambda m, u: [m[3].weight[:6, u] if u < 4 else m[3].weight[6:, u - 4]],
        "3": lambda m, u: [m[6].weight[u]],
        "6": lambda m, u: [m[11].weight[:, u]],
    },
}


@torch.no_grad()
def loss_of(model, batches):
    losses = [float(cross_entropy(model(pictures), labels)) * len(labels) for pictures, labels in batches]
    return sum(losses) / 6


@torch.no_grad()
def loop(network, model, batches):
    dense = loss_of(model, batches)
    found = {}
    for group, units in UNITS[network].items():
        found[group] = []
        for unit in range(units):
            states = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            for weights in READERS[network][group](model, unit):
                weights.zero_()
            found[group].append(loss_of(model, batches) - dense)
            model.load_state_dict(states)
    return found


@pytest.mark.parametrize("samples", [1, 12, 256])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_change_is_that_of_a_whole_pass(network, samples):
    graph = traced(network, torch.float64)
    batches = Batches(dtype=torch.float64)
    graph.model.train()
    found = rated(graph, Oracle(batches, cross_entropy, samples=samples))
    assert all(module.training for module in graph.model.modules())
    expected = loop(network, graph.model.eval(), batches)
    assert set(found) == set(expected)
    for group, changes in expected.items():
        assert found[group].tolist() == pytest.approx(changes, rel=1e-6, abs=1e-12)


def test_by_the_size_of_the_change():
    graph = traced("residual")
    signed, size = (rated(graph, Oracle(Batches(), cross_entropy, absolute=absolute)) for absolute in (False, True))
    assert any((values < 0).any() for values in signed.values())
    for group, values in signed.items():
        assert torch.equal(size[group], values.abs())


def test_squares_are_of_each_batch_before_they_are_averaged():
    model, batches = NETWORKS["projected"]().double().eval(), list(Batches(sizes=(4, 2), dtype=torch.float64))
    found = rated(traced("projected", torch.float64), Oracle(batches, cross_entropy, squared=True))
    for group, units in UNITS["projected"].items():
        expected = torch.zeros(units, dtype=torch.float64)
        for pictures, labels in batches:
            change = loop("projected", model, [(pictures, labels)])[group]  # of what loss_of divides by all six samples
            expected += torch.tensor(change).mul(6 / len(labels)).square() * len(labels) / 6
        assert torch.allclose(found[group], expected.double(), rtol=1e-6)


def test_a_change_is_absolute_or_squared():
    with pytest.raises(UserMistake, match="absolute"):
        Oracle([], cross_entropy, absolute=True, squared=True)


@pytest.mark.parametrize(
    ("loss", "says"), [(lambda outputs, labels: outputs, r"gave shape \(4, 4\)"), (lambda *_: None, "gave NoneType")]
)
def test_what_is_no_loss_is_named(loss, says):
    with pytest.raises(UserMistake, match=f"{says}; return a scalar tensor"):
        rated(traced("residual"), Oracle(Batches(), loss))
