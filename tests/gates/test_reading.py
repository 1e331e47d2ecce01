"""The gradients that gates read against those of gates written out by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cutback
from cutback.gates import SITES, Gates
from tests.gates.networks import BATCH, IMAGES, LABELS, UNITS, relative, traced, two_blocks
from tests.helpers import image, randomised


def read(model, site, **options):
    with Gates(traced(model), site, **options) as gates:
        F.cross_entropy(model(IMAGES), LABELS).backward()
        return gates.take()


def by_hand(model, site):
    """The gradients of explicit gates, one row a sample."""
    gates = {name: torch.ones(BATCH, units, dtype=torch.double, requires_grad=True) for name, units in UNITS.items()}
    F.cross_entropy(model.gated(IMAGES, site, gates), LABELS).backward()
    return {name: gate.grad for name, gate in gates.items()}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_what_is_read_is_the_gradient_of_a_gate_for_each_sample(site, training, inplace):
    model = two_blocks(inplace=inplace).train(training)
    found = read(model, site)
    expected = by_hand(two_blocks().train(training), site)
    assert set(found) == set(UNITS)
    for name in UNITS:
        assert found[name].shape == (BATCH, UNITS[name])
        assert relative(found[name], expected[name]) < 1e-10


@pytest.mark.parametrize("training", [False, True])
def test_after_a_norm_it_is_what_scale_and_shift_say(training):
    model = two_blocks().train(training)
    found = read(model, "norm")
    norm = model.first_norm
    expected = norm.weight * norm.weight.grad + norm.bias * norm.bias.grad
    assert relative(found["first"].sum(0), expected) < 1e-10
    assert relative(found["first"].sum(0), norm.weight * norm.weight.grad) > 1e-4


def test_a_gate_shared_by_two_blocks_has_the_sum_of_two_gradients():
    model = two_blocks()
    graph = traced(model)
    (eval_places, train_places), parts = (Gates(graph, "stream").places, [])
    stem = [place for place in train_places if graph.groups[int(place.group.max())].name == "stem"]
    assert len(stem) == 2
    for lone in stem:
        gates = Gates(graph, "stream", groups=["stem"])
        gates.places = [eval_places, [lone]]
        with gates:
            F.cross_entropy(model(IMAGES), LABELS).backward()
            parts.append(gates.take()["stem"])
    both = read(model, "stream", groups=["stem"])["stem"]
    assert relative(parts[0] + parts[1], both) < 1e-12
    assert relative(parts[0], both) > 1e-2


@pytest.mark.parametrize("training", [False, True])
def test_group_fisher_sums_over_coupled_places_before_it_squares(training):
    found = read(two_blocks().train(training), "consumer")
    expected = by_hand(two_blocks().train(training), "consumer")
    for name, gradient in found.items():
        assert relative(gradient.square().sum(0), expected[name].square().sum(0)) < 1e-10


def test_a_training_step_is_the_same_inside_gates():
    plain, gated = two_blocks().train(), two_blocks().train()
    F.cross_entropy(plain(IMAGES), LABELS).backward()
    read(gated, "consumer")
    for (name, expected), found in zip(plain.named_parameters(), gated.parameters(), strict=True):
        assert torch.allclose(found.grad, expected.grad, rtol=1e-10, atol=1e-14), name
    for (name, expected), found in zip(plain.named_buffers(), gated.buffers(), strict=True):
        assert torch.allclose(found, expected, rtol=1e-12), name


def test_parameters_that_do_not_learn_hide_no_gradient():
    model = two_blocks()
    expected = read(model, "consumer")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    found = read(model, "consumer")
    for name in UNITS:
        assert relative(found[name], expected[name]) < 1e-12


def test_places_can_be_taken_apart_and_nothing_stays_in_any_grad():
    model = two_blocks().requires_grad_(False)
    with Gates(traced(model), "stream") as gates:
        loss = F.cross_entropy(model(IMAGES), LABELS)
        torch.autograd.grad(loss, gates.roots)
        assert all(root.grad is None for root in gates.roots)
        parts = gates.take_apart()
        assert gates.roots == []
    assert {name: len(found) for name, found in parts.items()} == {"stem": 2, "first": 1, "third": 1}
    expected = read(two_blocks(), "stream")
    for name, found in parts.items():
        assert relative(sum(found), expected[name]) < 1e-12


class Rectified(nn.Module):
    """Rectifies in place what something else reads too, itself or a view of it."""

    def __init__(self, how, *, inplace):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head, self.how, self.inplace = nn.Linear(6, 4), how, inplace

    def forward(self, images):
        y = self.norm(self.stem(images))
        beside = y.mean((2, 3)) if self.how == "read" else 0
        viewed = y.view(y.shape) if self.how == "viewed" else y
        beside = y.exp().mean((2, 3)) if self.how == "viewed" else beside
        after = F.relu(viewed, inplace=self.inplace)
        return self.head(after.mean((2, 3)) + beside)


@pytest.mark.parametrize("how", ["read", "viewed"])
def test_what_is_rectified_in_place_is_read_as_it_was(how):
    plain, inplace = (randomised(Rectified(how, inplace=inplace)).double().eval() for inplace in (False, True))
    expected, found = read(plain, "norm"), read(inplace, "norm")
    assert relative(found["stem"], expected["stem"]) < 1e-12


def test_gradients_keep_their_precision_where_backward_runs_under_autocast():
    model = two_blocks().float().eval()
    found = []
    for inside in (False, True):
        with Gates(cutback.trace(model, image())) as gates:
            loss = F.cross_entropy(model(IMAGES.float()), LABELS)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
                loss.backward()
            found.append(gates.take())
    for name in UNITS:
        assert found[1][name].dtype == torch.float32
        assert relative(found[1][name], found[0][name]) < 1e-2  # the backward pass of the head rounds


def test_roots_of_passes_that_are_not_differentiated_are_not_kept():
    model = two_blocks().requires_grad_(False)
    with Gates(traced(model), "stream") as gates:
        model(IMAGES)
        count = len(gates.roots)
        model(IMAGES)
        assert len(gates.roots) == count > 0
