"""The search in a loop: whose gradient the numbers follow, when weights are drawn, and what is extracted."""

import copy
import math
import re
from importlib import resources

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import cutback
from cutback import measure
from cutback.errors import ArchitectureMismatch, BudgetUnreachable, InvalidBudget, NothingToPrune, UserMistake
from cutback.gates import Gates
from cutback.graph.clone import state_tensors
from cutback.methods import Subarchitecture
from cutback.methods.subarchitecture import method as module
from tests.helpers import chain, image, residual

IMAGES, CLASSES = image(3, (8, 3, 8, 8)), torch.arange(8) % 4


class Masked(nn.Module):
    """``chain((6, 8))`` with masks written by hand, behind the activations and so in front of what consumes them."""

    def __init__(self, layers, masks):
        super().__init__()
        self.layers, self.masks = layers, masks

    def forward(self, images):
        for number, layer in enumerate(self.layers):
            images = layer(images)
            if number in (2, 5):
                images = images * self.masks[number // 3].view(1, -1, 1, 1)
        return images


def made(model=None, **settings):
    model = chain((6, 8)) if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    graph = cutback.trace(model.train(), IMAGES[:2])
    usual = {"steps": 6, "cycles": 3, "optimizers": optimizer, "budget": "macs=50%"}
    return Subarchitecture(graph, **{**usual, **settings})


def step(method, scale=1.0, scaler=None):
    (optimizer,) = method.optimizers
    optimizer.zero_grad()
    loss = cross_entropy(method.graph.model(IMAGES), CLASSES) + method.penalty()
    (scale * loss).backward()
    method.after_backward()
    method.before_step(scaler)
    optimizer.step()
    return method.after_step()


def weights(model):
    return torch.cat([value.detach().double().flatten() for value in state_tensors(model).values()])


@pytest.mark.parametrize("site", ["consumer", "feature", "map"])
def test_numbers_follow_the_loss_and_the_price_of_their_masks(site):
    method = made(site=site, cycles=1, cold=0.5, strength=0.3, budget=None)
    with method:
        before = {name: own.double() for name, own in method.theta.items()}
        layers = copy.deepcopy(list(method.graph.model))
        masks = [(1 / (1 + torch.exp(-own / 0.5))).requires_grad_() for own in before.values()]
        loss = cross_entropy(Masked([layer.double() for layer in layers], masks)(IMAGES.double()), CLASSES)
        first, second = (mask.sum() for mask in masks)
        price = (64 * 9 * (3 * first + first * second) + 4 * second) / (64 * 9 * (3 * 6 + 6 * 8) + 4 * 8)
        gradients = torch.autograd.grad(loss + 0.3 * price, masks)
        step(method)
    for (name, theta), gradient in zip(before.items(), gradients, strict=True):
        warm = 1 / (1 + torch.exp(-theta))
        expected = theta - 0.1 * gradient * warm * (1 - warm)
        assert torch.allclose(method.theta[name].double(), expected, atol=1e-6), name
        assert float((expected - theta).abs().max()) > 1e-4


def test_micro_batches_and_the_scale_of_mixed_precision_change_nothing():
    class Scaler:
        def is_enabled(self):
            return True

        def get_scale(self):
            return 1024.0

    found = []
    for scale, scaler in ((1.0, None), (1024.0, Scaler()), (float("inf"), Scaler())):
        method = made(budget=None)
        with method:
            start = torch.cat(list(method.theta.values()))
            step(method, scale, scaler)
            found.append(torch.cat(list(method.theta.values())))
    assert torch.allclose(found[0], found[1], atol=1e-7)
    assert torch.equal(found[2], start), "a step that overflowed does not count"
    assert not torch.equal(found[0], start)


def test_processes_average_the_gradients_of_masks(monkeypatch):
    method = made(budget=None)
    other = torch.linspace(-1, 1, 14)

    def two(tensor):  # what this process has found, and another one's
        return tensor + torch.cat([other, torch.ones(1)])

    with method:
        start, slope = method._relaxation.theta, method._relaxation.direction(torch.ones(14))
        loss = cross_entropy(method.graph.model(IMAGES), CLASSES) + method.penalty()
        loss.backward()
        own = torch.cat([mask.grad for mask in method._masks])
        monkeypatch.setattr(module, "over_ranks", two)
        method.before_step()
        method.after_step()
        assert torch.allclose(method._relaxation.theta, start - 0.1 * slope * (own + other) / 2, atol=1e-7)


def test_the_masked_network_is_the_extracted_one():
    model = residual()
    method = made(model, weights="reused", cold=1e-4, floor=0.0, budget=None, steps=1, cycles=1)
    with method:
        for number in range(len(method._groups)):
            method._relaxation.theta[sum(method._complexity.sizes[:number])] = 0.5
        units = torch.arange(len(method._relaxation.theta))
        method._relaxation.theta = torch.where(units % 3 == 0, 0.5, -0.5)
        method._put_masks()
        model.eval()
        masked = model(IMAGES)
        assert method.after_step()
    small = {path: value.shape for path, value in model.named_parameters()}
    assert torch.allclose(model(IMAGES), masked, rtol=1e-4, atol=1e-5)
    assert small != {path: value.shape for path, value in residual().named_parameters()}


def test_weights_are_drawn_at_the_start_of_each_cycle_and_at_the_end():
    method, drawn = made(steps=7, cycles=3), []
    model = method.graph.model
    given = weights(model)
    with method:
        assert not torch.equal(weights(model), given)
        start = weights(model)
        for _ in range(7):
            before = weights(model)
            momentum = bool(method.optimizers[0].state)
            step(method)
            jumped = weights(model).shape != before.shape or not method.optimizers[0].state
            drawn.append(jumped)
            assert momentum == (len(drawn) > 1 and not drawn[-2])
    assert drawn == [False, True, False, True, False, False, True]
    assert method.finished
    again = made(steps=7, cycles=3)
    with again:
        assert torch.equal(weights(again.graph.model), start), "of one seed"


def test_weights_that_are_reused_are_the_models_own_to_the_end():
    method = made(weights="reused", steps=2, cycles=1)
    given = weights(method.graph.model)
    with method:
        assert torch.equal(weights(method.graph.model), given)
        step(method)
        step(method)
    assert method.optimizers[0].state
    assert method.finished


def test_weights_that_are_random_are_not_trained():
    method = made(weights="random", steps=4, cycles=2)
    with method:
        theta = torch.cat(list(method.theta.values()))
        start = torch.cat([p.detach().flatten().clone() for p in method.graph.model.parameters()])
        step(method)
        now = torch.cat([p.detach().flatten() for p in method.graph.model.parameters()])
        assert torch.equal(start, now)
        assert not torch.equal(torch.cat(list(method.theta.values())), theta)


def test_the_penalty_is_the_strength_times_the_share_of_macs():
    method = made(start=4.0, scatter=0.0, strength=0.7)
    with method:
        assert float(method.penalty().detach()) == pytest.approx(0.7)
    assert float(method.penalty()) == 0


def test_the_strength_follows_the_budget_at_the_end_of_each_cycle():
    method = made(strength=0.1, control=0.5, rate=0.0)
    dense = measure.macs(method.graph.model, IMAGES[:1])
    with method:
        step(method)
        assert method.strength == 0.1
        step(method)
        assert method.strength == pytest.approx(0.1 * math.exp(0.5 * (dense / (dense // 2) - 1)))


def test_it_ends_early_once_the_choice_has_settled():
    method, steps = made(steps=40, cycles=20, patience=3, rate=0.0, budget=None), 0
    with method:
        method._relaxation.theta[0] = 1e-3
        while not method.finished:
            steps += 1
            if steps == 3:  # in the second cycle
                method._relaxation.theta[0] = -0.5
                method._note(torch.ones(14, dtype=torch.bool))
            step(method)
    assert steps == 4 + 3 * 2


def test_without_a_change_it_goes_on_to_the_end_and_says_that_nothing_went():
    method = made(steps=8, cycles=8, patience=1, rate=0.0, budget=None)
    with method:
        for _ in range(7):
            assert not step(method)
            assert not method.finished
        with pytest.warns(UserWarning, match="every unit's number ended above zero, so nothing is cut"):
            assert not step(method)
    assert method.finished
    assert method.plan() is None


def test_what_is_ignored_or_cannot_be_masked_stays_whole():
    method = made(ignore="0", steps=2, cycles=1)
    with method:
        assert list(method.theta) == ["3"]
        step(method)
        assert method.records()["units"] == 8
        assert step(method)
        assert method.records() == {}
    assert method.graph.model[0].out_channels == 6
    assert measure.macs(method.graph.model, IMAGES[:1]) <= measure.macs(chain((6, 8)), IMAGES[:1]) / 2


def test_records_tell_of_the_search():
    method = made(start=0.0, scatter=0.2, cold=0.1, strength=0.25)
    with method:
        theta, records = torch.cat(list(method.theta.values())), method.records()
        mask = torch.sigmoid(theta / 0.1)
        assert records["strength"] == 0.25
        assert records["units"] == sum(value > 0 for value in theta.tolist())
        assert records["undecided"] == sum(0.05 < value < 0.95 for value in mask.tolist())
        assert 0 < records["cost"] < 1


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"steps": 0}, UserMistake, "steps=0 of subarchitecture must be a whole number from 1"),
        ({"cycles": 0}, UserMistake, "cycles=0 of subarchitecture must be a whole number from 1"),
        ({"patience": -1}, UserMistake, "patience=-1 of subarchitecture must be a whole number from 0"),
        ({"cycles": 7}, UserMistake, "cycles=7 needs at least as many steps, not steps=6"),
        ({"cold": 0.0}, UserMistake, r"cold=0.0 must be above 0 and at most warm=1.0"),
        ({"cold": 2.0}, UserMistake, r"cold=2.0 must be above 0 and at most warm=1.0"),
        ({"momentum": 1.0}, UserMistake, "momentum=1.0 of subarchitecture must be from 0 and below 1"),
        ({"strength": -0.1}, UserMistake, "strength=-0.1 of subarchitecture must be from 0"),
        ({"floor": 1.0}, UserMistake, "floor=1.0 of subarchitecture must be from 0 and below 1"),
        ({"cost": "time"}, UserMistake, "cost='time' is none of macs, units"),
        ({"weights": "old"}, UserMistake, "weights='old' is none of trained, random, reused"),
        ({"site": "norm"}, UserMistake, "site='norm' is none of consumer, feature, map"),
        ({"budget": "channels=50%"}, InvalidBudget, "itself finds how many channels of each layer stay"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        made(**settings)


def test_models_that_it_can_do_nothing_with_are_refused_and_left_alone():
    class Own(nn.Sequential):
        def __init__(self):
            super().__init__(*chain((6, 8)))
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, images):
            return super().forward(images) * self.scale

    for model, settings, kind, message in (
        (chain((6, 8)), {"budget": "macs=1%"}, BudgetUnreachable, "no permitted cut meets the budget"),
        (chain((6, 8)), {"ignore": "*"}, NothingToPrune, "no channels of Sequential can be masked and go"),
        (Own(), {}, UserMistake, r"has no reset_parameters"),
    ):
        given = weights(model)
        with pytest.raises(kind, match=message):
            made(model, **settings).__enter__()
        assert torch.equal(weights(model), given)


def test_inside_the_gates_of_another_method_it_is_refused_and_the_weights_stay():
    method = made()
    given = weights(method.graph.model)
    with Gates(method.graph, "consumer"), pytest.raises(UserMistake, match="inside other gates already"):
        method.__enter__()
    assert torch.equal(weights(method.graph.model), given)


def test_loaded_after_its_cut_it_is_finished_and_has_no_numbers_to_show():
    method = made(steps=1, cycles=1)
    with method:
        step(method)
    model = method.graph.model
    again = Subarchitecture(cutback.trace(model, IMAGES[:2]), steps=1, cycles=1, budget="macs=50%")
    again.load_state_dict(method.state_dict())
    assert again.finished
    assert again.theta == {}
    assert list(method.theta) == ["0", "3"]
    given = weights(model)
    with again:
        assert torch.equal(weights(model), given)


def test_a_reset_of_ones_own_draws_the_weights():
    def reset(model):
        for parameter in model.parameters():
            nn.init.constant_(parameter, 0.125)

    with made(reset=reset) as method:
        assert all(bool((parameter == 0.125).all()) for parameter in method.graph.model.parameters())


def test_a_state_of_another_network_is_refused():
    with made() as method:
        step(method)
        state = method.state_dict()
    with pytest.raises(ArchitectureMismatch, match="has 14 units, the model at hand 12"):
        made(chain((4, 8))).load_state_dict(state)


def test_the_example_of_its_page_runs(capsys):
    page = resources.files("cutback.methods.subarchitecture").joinpath("README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    found: dict = {"__name__": "page"}
    exec(compile(example, "README.md", "exec"), found)  # noqa: S102
    assert found["method"].finished
    assert "macs: " in capsys.readouterr().out
