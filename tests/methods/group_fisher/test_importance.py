"""What is added up for each unit is the square of each sample's derivative by an explicit shared mask."""

import pytest
import torch
from torch.nn import functional as F

import cutback
from cutback.methods import GroupFisher
from cutback.methods.group_fisher import importance
from tests.methods.group_fisher.networks import NETWORKS, Basic, Pyramid, made, masks, units

SAMPLES = 32
PICTURES = torch.randn(SAMPLES, 1, 12, 12, generator=torch.Generator().manual_seed(3)).double()
CLASSES = torch.arange(SAMPLES) % 10


def attached(network, training=False, **settings):
    model = made(network).double().train(training)
    graph = cutback.trace(model, PICTURES[:2])
    return GroupFisher(graph, **{"budget": "macs=50%", "normalise": "none", **settings})


def backward(method, scale=1.0, part=slice(None)):
    (scale * F.cross_entropy(method.graph.model(PICTURES[part]), CLASSES[part])).backward()
    method.after_backward()


def added(method):
    method.before_step()
    return method._sums.take()


def explicit(network, training, apart=False):
    """Return for each group the derivatives of the batch's loss by masks ``(N, units)``, at each place by itself."""
    model = made(network).double().train(training)
    ones = {g: torch.ones(SAMPLES, n, dtype=torch.float64, requires_grad=True) for g, n in units(network).items()}
    with masks(model, ones, apart=apart) as used:
        loss = F.cross_entropy(model(PICTURES), CLASSES)
    leaves = [leaf for places in used.values() for leaf in places]
    found = iter(torch.autograd.grad(loss, leaves))
    return {group: [next(found) for _ in places] for group, places in used.items()}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_sum_over_places_and_calls_is_squared_for_each_sample(network, training):
    with attached(network, training) as method:
        backward(method)
        found = added(method)
    expected = explicit(network, training)
    assert set(found) == set(expected)
    for group, (gradient,) in expected.items():
        squares = torch.zeros(gradient.shape[1], dtype=torch.float64)
        for row in gradient:  # N times a sample's share of the batch's mean loss is its own loss
            squares += (SAMPLES * row) ** 2
        assert (found[group] - squares).abs().max() <= 1e-10 * squares.max(), group


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("network", [Basic, Pyramid])
def test_squaring_before_the_sum_would_differ_on_coupled_groups_alone(network, training):
    with attached(network, training) as method:
        backward(method)
        found = added(method)
    coupled = set()
    for group, places in explicit(network, training, apart=True).items():
        wrong = sum((SAMPLES * place).square().sum(0) for place in places)
        difference = float((found[group] - wrong).abs().max() / found[group].max())
        if len(places) > 1:
            coupled.add(group)
            assert difference > 0.1, group
        else:
            assert difference <= 1e-10, group
    assert coupled == ({"stem.0", "b2.0"} if network is Basic else set(units(Pyramid)) - {"coarse.0"})


def test_micro_batches_add_up_and_shares_of_uneven_ones_count_alike():
    with attached(Basic) as method:
        backward(method)
        whole = added(method)
        for part in (slice(0, 20), slice(20, 32)):
            backward(method, part=part)
        parts = added(method)
    for group, sums in whole.items():
        assert torch.allclose(sums, parts[group], rtol=1e-9)


def test_the_scale_of_mixed_precision_is_taken_out_and_overflows_are_left_out():
    class Scaler:
        def is_enabled(self):
            return True

        def get_scale(self):
            return 1024.0

    with attached(Basic) as method:
        backward(method)
        plain = added(method)
        backward(method, scale=1024.0)
        method.before_step(Scaler())
        backward(method, scale=float("inf"))
        method.before_step(Scaler())
        scaled = method._sums.take()
    for group, sums in plain.items():
        assert torch.allclose(sums, scaled[group], rtol=1e-9)


def test_processes_add_their_squares_not_their_gradients(monkeypatch):
    with attached(Basic) as method:
        backward(method)
        method.before_step()
        other = torch.rand_like(method._sums.total)
        expected = method._sums.total + other
        monkeypatch.setattr(importance, "over_ranks", lambda tensor: tensor + other)
        found = method._sums.take()
    assert torch.equal(torch.cat(list(found.values())), expected)


def test_the_first_order_ablation_is_the_magnitude_of_the_batchs_gradient():
    with attached(Basic, importance="gradient") as method:
        backward(method)
        found = added(method)
    for group, (gradient,) in explicit(Basic, training=False).items():
        expected = [abs(sum(column)) for column in gradient.T.tolist()]
        assert found[group].tolist() == pytest.approx(expected, rel=1e-9)
