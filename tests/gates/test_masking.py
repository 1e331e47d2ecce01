"""Factors on activations: a masked network is the cut one, and rows are refused where samples mix."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import cutback
from cutback.errors import Ungatable, UnknownName, UserMistake
from cutback.gates import SITES, Gates
from tests.gates.networks import BATCH, IMAGES, LABELS, UNITS, relative, traced, two_blocks
from tests.helpers import chain, image, randomised, residual


def drawn(rows=None):
    generator = torch.Generator().manual_seed(3)
    shape = () if rows is None else (rows,)
    return {name: torch.rand(*shape, units, generator=generator).double() for name, units in UNITS.items()}


@pytest.mark.parametrize("site", SITES)
def test_a_factor_for_each_sample_is_what_it_is_by_hand(site):
    model = two_blocks().eval()
    factors = drawn(BATCH)
    with Gates(traced(model), site, reading=False) as gates:
        gates.mask(factors)
        found = model(IMAGES)
        gates.mask({})
        assert torch.allclose(model(IMAGES), model.gated(IMAGES, "", {}), rtol=1e-12)
    expected = model.gated(IMAGES, site, factors)
    assert torch.allclose(found, expected, rtol=1e-10)
    assert not torch.allclose(found, model(IMAGES), rtol=1e-3)


@pytest.mark.parametrize("training", [False, True])
def test_a_factor_for_the_batch_is_what_it_is_by_hand_also_in_train_mode(training):
    model = two_blocks().train(training)
    factors = {name: factor.requires_grad_() for name, factor in drawn().items()}
    with Gates(traced(model), reading=False) as gates:
        gates.mask(factors)
        F.cross_entropy(model(IMAGES), LABELS).backward()
    again = {name: factor.detach().expand(BATCH, -1).clone().requires_grad_() for name, factor in factors.items()}
    F.cross_entropy(two_blocks().train(training).gated(IMAGES, "consumer", again), LABELS).backward()
    for name, factor in factors.items():
        assert relative(factor.grad, again[name].grad.sum(0)) < 1e-10


def test_gradients_are_read_at_masked_gates_too():
    model = two_blocks().eval()
    factors = drawn(BATCH)
    with Gates(traced(model)) as gates:
        gates.mask(factors)
        F.cross_entropy(model(IMAGES), LABELS).backward()
        found = gates.take()
    leaves = {name: factor.clone().requires_grad_() for name, factor in factors.items()}
    F.cross_entropy(two_blocks().eval().gated(IMAGES, "consumer", leaves), LABELS).backward()
    for name, leaf in leaves.items():
        assert relative(found[name], leaf.grad) < 1e-10


class Varied(nn.Module):
    """A grouped and a depthwise convolution, a flattened head and a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.point = nn.Conv2d(12, 6, 1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.hidden = nn.Linear(6 * 16, 10)
        self.head = nn.Linear(10, 4)

    def forward(self, images):
        x = F.relu(self.stem(images))
        x = F.relu(self.depthwise(F.relu(self.grouped(x))))
        x = F.relu(self.point(x))
        x = F.relu(self.twice(F.relu(self.twice(x))))
        return self.head(F.relu(self.hidden(F.avg_pool2d(x, 2).flatten(1))))


@pytest.mark.parametrize("make", [residual, chain, lambda: randomised(Varied())])
def test_masked_is_cut(make):
    model = make().eval()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, score="random", budget="channels=50%")
    masks = {}
    for group in plan.groups:
        masks[group.name] = torch.zeros(next(g.units for g in graph.groups if g.name == group.name))
        masks[group.name][list(group.kept)] = 1
    images = image(5, (4, 3, 8, 8))
    with Gates(graph, reading=False) as gates, torch.no_grad():
        gates.mask(masks)
        masked = model(images)
    small = cutback.apply(graph, plan)
    assert relative(masked, small(images)) < 1e-5
    assert relative(masked, model(images)) > 1e-2


def test_rows_are_refused_where_samples_meet():
    model = two_blocks().train()
    with Gates(traced(model), reading=False) as gates:
        gates.mask(drawn(BATCH))
        with pytest.raises(Ungatable, match=r"first_norm \(aten::batch_norm\) normalises over the batch.*eval mode"):
            model(IMAGES)


class Centred(nn.Module):
    """Subtracts the batch's mean, in either mode."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 3)

    def forward(self, images):
        x = F.relu(self.stem(images))
        return self.head(x - x.mean(0, keepdim=True))


def test_rows_are_refused_by_the_operator_that_mixes():
    model = Centred().eval()
    graph = cutback.trace(model, image())
    with Gates(graph, "feature", reading=False) as gates:
        gates.mask({"stem": torch.rand(2, 6)})
        with pytest.raises(Ungatable, match=r"\(model\) \(aten::mean\) mixes samples"):
            model(image())
        gates.mask({"stem": torch.rand(6)})
        assert model(image()).shape == (2, 2, 4, 4)


def test_wrong_factors_are_named():
    with Gates(traced(two_blocks())) as gates:
        with pytest.raises(UnknownName, match=r"'stm'; did you mean 'stem' or"):
            gates.mask({"stm": torch.ones(6)})
        with pytest.raises(UserMistake, match=r"group stem have shape \(5,\); write \(6,\) or \(N, 6\)"):
            gates.mask({"stem": torch.ones(5)})
        gates.mask({"stem": torch.ones(4, 6)})
        gates.graph.model.eval()
        with pytest.raises(UserMistake, match="group stem have 4 rows for 5 samples"):
            gates.graph.model(IMAGES)


@pytest.mark.parametrize("training", [False, True])
def test_masks_at_a_site_of_their_own_leave_gates_where_they_are(training):
    """As if masked copies of the weights were used, with gates written out at the reading site."""
    model = two_blocks().train(training)
    factors = {name: (factor > 0.4).double() for name, factor in drawn().items()}
    with Gates(traced(model), "stream", masks="consumer") as gates:
        gates.mask(factors)
        F.cross_entropy(model(IMAGES), LABELS).backward()
        found = gates.take()
    again = two_blocks().train(training)
    with torch.no_grad():
        again.first.weight.mul_(factors["stem"][:, None, None])
        again.third.weight.mul_(factors["stem"][:, None, None])
        again.head.weight.mul_(factors["stem"])
        again.second.weight.mul_(factors["first"][:, None, None])
        again.fourth.weight.mul_(factors["third"][:, None, None])
    leaves = {name: torch.ones(BATCH, units).double().requires_grad_() for name, units in UNITS.items()}
    F.cross_entropy(again.gated(IMAGES, "stream", leaves), LABELS).backward()
    for name, leaf in leaves.items():
        assert relative(found[name], leaf.grad) < 1e-10
        assert not found[name][:, factors[name] == 0].any()


def test_masks_of_each_sample_ask_only_what_comes_after_them():
    model = two_blocks().eval()
    rows = drawn(BATCH)
    with Gates(traced(model), "norm", masks="consumer", reading=False) as gates:
        gates.mask(rows)
        found = model(IMAGES)
    assert torch.allclose(found, model.gated(IMAGES, "consumer", rows), rtol=1e-10)


def test_lifted_gates_show_the_model_as_it_is():
    model = two_blocks().eval()
    with Gates(traced(model), reading=False) as gates:
        gates.mask(drawn())
        masked = model(IMAGES)
        with gates.lifted():
            assert torch.equal(model(IMAGES), model.gated(IMAGES, "", {}))
        assert torch.equal(model(IMAGES), masked)


@pytest.mark.parametrize("site", SITES)
def test_a_weight_that_is_computed_is_not_masked_besides_what_it_makes(site):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1)).double()
    normed = copy.deepcopy(plain)
    for layer in (normed[0], normed[2]):
        parametrizations.weight_norm(layer)
    found = []
    for model in (plain, normed):
        graph = cutback.trace(model, IMAGES)
        with Gates(graph, site, reading=False) as gates:
            gates.mask({group.name: torch.linspace(0.2, 2, group.units).double() for group in graph.groups})
            found.append(model(IMAGES))
    assert [group.units for group in graph.groups] == [6, 5]
    assert torch.allclose(*found, rtol=1e-10)
    assert not torch.allclose(found[0], plain(IMAGES), rtol=1e-3)
