"""What holds for every registered score; the tests are made from the registry, so that a new score cannot miss them."""

import inspect
import random
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cutback
from cutback.errors import UserMistake
from cutback.graph.graph import Graph
from cutback.scores import about, describe, make_score, score_groups, scores
from tests.helpers import image, plain, residual, snapshot
from tests.scores.networks import NETWORKS, SAMPLES, Batches, projected, rated, traced

NAMES = sorted(scores)
WITH_DATA = [name for name in NAMES if about(name).data]
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def made(name: str, loader: object = None, loss: Callable[..., Tensor] = functional.cross_entropy) -> object:
    return make_score(name, loader=Batches() if loader is None else loader, loss=loss)


def double(name: str, graph: Graph, **batches: object) -> dict[str, Tensor]:
    return rated(graph, made(name, Batches(dtype=torch.float64, **batches)))


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert set(found) == set(expected)
    for group, values in expected.items():
        scale = float(values.abs().max()) or 1.0
        assert torch.allclose(found[group], values, rtol=tolerance, atol=tolerance * scale), group


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_it_comes_from_and_can_be_made_by_hand(name):
    found, entry = describe(name), scores.get(name)
    assert found.summary.endswith(".")
    assert len(found.summary) <= 60, "the list has one line for each score"
    assert len(found.source) <= 40
    assert re.search(r"\b(19|20)\d\d\b", found.source)
    assert set(found.needs) <= {"weights", "activations", "gradients", "labels"}
    assert found.needs
    assert found.coupled == (found.aggregate or about(name).coupled) != ""
    assert getattr(cutback.scores, entry.__name__) is entry
    parameters = list(inspect.signature(entry).parameters)
    expected = ["loader", "loss"] if "labels" in found.needs else ["loader"] if about(name).data else []
    assert parameters[: len(expected)] == expected


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_one_finite_number_a_unit_the_same_ones_each_time(name, network):
    graph = traced(network)
    first, second = (score_groups(graph, made(name)) for _ in range(2))
    for group, values, again in zip(graph.groups, first, second, strict=True):
        assert values.shape == (group.units,)
        assert np.isfinite(values).all()
        assert np.array_equal(values, again)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_float32_and_float64_agree(name, network):
    assert_close(rated(traced(network), name), double(name, traced(network, torch.float64)), 1e-4)


@CUDA
@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_the_device_makes_no_difference(name):
    found = rated(residual().cuda(), made(name, Batches(device="cuda")))
    assert_close(found, rated(residual(), name), 1e-3)


def everything(model: nn.Module) -> list[object]:
    """All that a score may not leave changed."""
    draws = [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002 (what users share)
    switches = [
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    ]
    hooks = [
        len(held)
        for module in model.modules()
        for name, held in vars(module).items()
        if "hooks" in name and isinstance(held, dict)
    ]
    tensor_hooks = [tensor._backward_hooks for tensor in model.parameters()]
    return [snapshot(model), list(vars(model)), draws, switches, hooks, tensor_hooks]


def used(graph: Graph) -> nn.Module:
    """A model in the midst of training, one module frozen."""
    model = graph.model
    model.train()
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    model(image()).square().sum().backward()
    return model


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_behind(name):
    graph = cutback.trace(projected(), image())
    model = used(graph)
    before = everything(model)
    score_groups(graph, made(name))
    assert everything(model) == before


@pytest.mark.parametrize("name", WITH_DATA)
def test_nothing_is_left_behind_when_the_loader_fails(name):
    graph = cutback.trace(projected(), image())
    model = used(graph)
    before = everything(model)
    with pytest.raises(OSError, match="the disk is gone"):
        score_groups(graph, made(name, Batches(fails=True)))
    assert everything(model) == before


@pytest.mark.parametrize("name", [name for name in NAMES if "labels" in about(name).needs])
def test_nothing_is_left_behind_when_the_loss_fails(name):
    graph = cutback.trace(projected(), image())
    model = used(graph)
    before = everything(model)

    def fails(outputs, labels):
        raise ZeroDivisionError("in the loss")

    with pytest.raises(ZeroDivisionError, match="in the loss"):
        score_groups(graph, made(name, loss=fails))
    assert everything(model) == before


@pytest.mark.parametrize("sizes", [(6,), (1, 5), (2, 2, 2), (1,) * SAMPLES])
@pytest.mark.parametrize("name", [name for name in WITH_DATA if not about(name).batchwise])
def test_how_samples_are_put_into_batches_makes_no_difference(name, sizes):
    graph = traced("residual", torch.float64)
    assert_close(double(name, graph, sizes=sizes), double(name, graph), 1e-9)


@pytest.mark.parametrize("network", ["residual", "projected", "flattened"])
@pytest.mark.parametrize("name", NAMES)
def test_units_that_change_places_take_their_scores_along(name, network):
    graph = traced(network, torch.float64)
    before, states = double(name, graph), graph.model.state_dict()
    orders = {}
    for group in graph.groups:
        orders[group.name] = torch.randperm(group.units, generator=torch.Generator().manual_seed(group.units))
        for slot, indices in group.slices.items():
            state, places = states[slot.state], torch.from_numpy(indices)
            moved = state.index_select(slot.dimension, places[orders[group.name]].flatten())
            state.index_copy_(slot.dimension, places.flatten(), moved)
    after = double(name, graph)
    if about(name).equivariant:
        assert_close(after, {group: before[group][order] for group, order in orders.items()}, 1e-6)
    else:
        assert_close(after, before, 0.0)


UNIT = 3


def bury(graph: Graph) -> list[int]:
    """Make everything of one unit of each group zero."""
    states = graph.model.state_dict()
    for group in graph.groups:
        for slot, indices in group.slices.items():
            if not slot.state.endswith(("running_mean", "running_var")):
                states[slot.state].index_fill_(slot.dimension, torch.from_numpy(indices[UNIT]), 0.0)
    return [UNIT]


def repeat(graph: Graph) -> list[int]:
    """Make one unit of each group the twin of another."""
    states = graph.model.state_dict()
    for group in graph.groups:
        for slot, indices in group.slices.items():
            twin = states[slot.state].index_select(slot.dimension, torch.from_numpy(indices[0]))
            states[slot.state].index_copy_(slot.dimension, torch.from_numpy(indices[UNIT]), twin)
    return [0, UNIT]


def centre(graph: Graph) -> list[int]:
    """Put the filters of each layer around one of them: in pairs on either side, a spare one far away."""
    states = graph.model.state_dict()
    for group in graph.groups:
        for slot in (slot for slot in group.slices if slot.role in ("filter", "depthwise")):
            filters = states[slot.state]
            others = [unit for unit in range(group.units) if unit != UNIT]
            for left, right in zip(others[::2], others[1::2], strict=False):
                filters[right] = 2 * filters[UNIT] - filters[left]
            if len(others) % 2:
                filters[others[-1]] = filters[UNIT] + 9
    return [UNIT]


PLANTS = {"dead": bury, "duplicate": repeat, "median": centre}


@pytest.mark.parametrize("network", ["residual", "projected", "flattened"])
@pytest.mark.parametrize(("name", "plant"), [(name, plant) for name in NAMES for plant in about(name).lowest])
def test_planted_units_have_the_lowest_score(name, plant, network):
    graph = traced(network, torch.float64)
    lowest = PLANTS[plant](graph)
    for group, values in double(name, graph).items():
        order = values.argsort().tolist()
        assert sorted(order[: len(lowest)]) == lowest, group
        assert values[order[len(lowest)]] > values[lowest].max() + 1e-9 * values.abs().max(), group


@pytest.mark.parametrize("name", WITH_DATA)
def test_without_data_it_says_how_to_give_some(name):
    graph = traced("residual")
    entry = scores.get(name)
    for score in (name, entry):
        with pytest.raises(UserMistake, match=rf"cutback\.scores\.{entry.__name__}\(loader"):
            cutback.plan(graph, score=score, budget="macs=50%")


@pytest.mark.parametrize("name", WITH_DATA)
def test_a_loader_without_batches_is_named(name):
    with pytest.raises(UserMistake, match="no batch"):
        rated(traced("residual"), made(name, []))


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_can_be_made_with_it_and_cut(name):
    model = projected()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, score=made(name), budget="channels=50%")
    assert cutback.apply_(graph, plan).error <= 1e-5
    assert model.head.in_features == 4


def test_snapshots_see_what_scores_might_leave():
    model = residual()
    before = everything(model)
    handle = model.stem.register_forward_hook(lambda *_: None)
    assert everything(model) != before
    handle.remove()
    assert everything(model) == before
    model.stem.weight.grad = torch.ones_like(model.stem.weight)
    assert everything(model) != before
    assert plain(model.stem.weight.grad) != plain(None)
