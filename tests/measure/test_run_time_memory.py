"""What a forward pass of the model itself takes."""

import torch
from torch import nn

import cutback
from cutback.measure import peak_memory, run_time_memory
from cutback.models import build
from tests.helpers import chain, image


class Holding(nn.Module):
    """Keeps its first result until the end, though nothing uses it any more."""

    def __init__(self, *, holds: bool) -> None:
        super().__init__()
        self.first, self.second, self.holds = nn.Linear(10, 1000), nn.Linear(1000, 500), holds

    def forward(self, x):
        wide = self.first(x)
        narrow = self.second(wide)
        if not self.holds:
            del wide
        return narrow.exp().exp()


def test_it_is_what_lives_at_once_in_the_model_s_own_code() -> None:
    x = torch.zeros(8, 10)
    # Two results of a layer lie side by side; held on to, the wide one lies beside two narrow ones.
    assert run_time_memory(Holding(holds=False), x).activations == 8 * (1000 + 500) * 4
    assert run_time_memory(Holding(holds=True), x).activations == 8 * (1000 + 3 * 500) * 4
    assert run_time_memory(Holding(holds=False), x).model == (10 * 1000 + 1000 + 1000 * 500 + 500) * 4
    found = run_time_memory(Holding(holds=True), x)
    assert found.peak == found.model + found.activations
    assert peak_memory(Holding(holds=True), x) == (1000 + 500) * 4, "the graph drops what nothing uses"


def test_views_and_writes_in_place_take_nothing() -> None:
    net = nn.Sequential(nn.Linear(10, 1000), nn.ReLU(inplace=True), nn.Unflatten(1, (10, 100)), nn.Flatten())
    assert run_time_memory(net, torch.zeros(2, 10)).activations == 2 * 1000 * 4


def test_the_mode_is_put_back_and_nothing_is_left() -> None:
    model = chain().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run_time_memory(model, image())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_cut_network_takes_less() -> None:
    model, pictures = build("resnet20"), torch.zeros(4, 3, 32, 32)
    whole = run_time_memory(model, pictures)
    graph = cutback.trace(model, pictures)
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    small = run_time_memory(model, pictures)
    assert small.activations * 2 == whole.activations
    assert small.model < whole.model / 2
