"""Activations sorted by unit."""

import torch
from torch import nn

import cutback
from cutback.gates import Gates
from cutback.gates.by_unit import by_unit
from tests.helpers import image


def seen(model: nn.Module, number: int, units: int) -> list[torch.Tensor | None]:
    found: list[torch.Tensor | None] = []
    graph = cutback.trace(model.eval(), image())

    def see(place, activation) -> None:
        if place.has([number]):
            found.append(by_unit(place, activation, number, units))

    with Gates(graph, "consumer", reading=False, observe=see), torch.no_grad():
        model(image(1))
    return found


def test_each_unit_has_its_elements_in_one_order_also_when_flattened() -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 5, 1)
    with torch.no_grad():
        maps = first(image(1)).relu()
    (table,) = seen(nn.Sequential(first, nn.ReLU(), nn.Conv2d(5, 4, 1)), 0, 5)
    assert torch.allclose(table, maps.transpose(0, 1).flatten(1))
    (flat,) = seen(nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(5 * 64, 4)), 0, 5)
    assert torch.allclose(flat, maps.permute(1, 2, 3, 0).flatten(1))


def test_where_a_group_is_not_there_is_none() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    graph = cutback.trace(model.eval(), image())
    places = []
    with Gates(graph, "consumer", groups=["2"], reading=False, observe=lambda *pair: places.append(pair)):
        model(image(1))
    ((place, activation),) = places
    assert by_unit(place, activation, 0, 5) is None
    assert by_unit(place, activation, 1, 4).shape == (4, 2 * 64)
