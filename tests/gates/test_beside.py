"""What the next layer returns with and without units, beside the pass: against forward passes written by hand."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import cutback
from cutback.errors import Ungatable, UnknownName, UserMistake
from cutback.gates import Gates, lone_consumers
from tests.gates.networks import IMAGES, LABELS, traced, two_blocks
from tests.helpers import image, randomised, residual
from tests.scores.networks import flattened, projected

PICTURES = image(2, (5, 3, 8, 8)).double()


class Pooled(nn.Module):
    """Two convolutions with a pooling between them, and a hidden linear layer that reads flattened maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.second_norm = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.hidden, self.head = nn.Linear(5 * 4, 7), nn.Linear(7, 4)

    def forward(self, images):
        x = F.max_pool2d(F.relu_(self.first_norm(self.first(images))), 2)
        x = F.relu_(self.second_norm(self.second(x)))
        return self.head(F.relu(self.hidden(F.avg_pool2d(x, 2).flatten(1))))


def pooled():
    return randomised(Pooled()).double()


def told_by(model, masks, pictures=PICTURES):
    """Return what gates tell in one pass with units out, by group."""
    found = {}
    groups = list(masks)
    with Gates(
        traced(model), groups=groups, reading=False, beside=lambda *told: found.update({told[0]: told[1:]})
    ) as g:
        g.mask_beside(masks)
        outputs = model(pictures)
    return found, outputs


def normed(norm, whole, without):
    """Batch norm by hand: both by the statistics of the batch in train mode, by the running ones in eval mode."""
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        rows = whole.movedim(1, 0).flatten(1)
        mean = torch.stack([row.sum() / len(row) for row in rows])
        variance = torch.stack([((row - m) ** 2).sum() / len(row) for row, m in zip(rows, mean, strict=True)])
    scale = norm.weight / (variance + norm.eps).sqrt()
    return [(x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1) for x in (whole, without)]


@torch.no_grad()
def by_hand(model, first, second):
    """Return what the layers after the first and the second convolution return, with and without units."""
    (x, _), out = normed(model.first_norm, *[model.first(PICTURES)] * 2), {}
    x = F.relu(x)
    # Units go before the pooling here, behind it in the gates: zeros stay zeros.
    inputs = F.max_pool2d(x, 2), F.max_pool2d(x * first.view(-1, 1, 1), 2)
    out["first"] = tuple(map(F.relu, normed(model.second_norm, *map(model.second, inputs))))
    y = out["first"][0]
    flat = [F.avg_pool2d(z, 2).flatten(1) for z in (y, y * second.view(-1, 1, 1))]
    out["second"] = tuple(F.relu(model.hidden(z)) for z in flat)
    return out


@pytest.mark.parametrize("training", [False, True])
def test_the_next_layer_with_and_without_units_is_what_it_is_by_hand(training):
    model = pooled().train(training)
    masks = {"first": torch.tensor([1, 0, 0, 1, 1, 0.0]), "second": torch.tensor([0, 1, 1, 0, 1.0])}
    expected = by_hand(copy.deepcopy(model), masks["first"].double(), masks["second"].double())
    found, _ = told_by(model, masks)
    assert set(found) == {"first", "second"}
    for group, pair in expected.items():
        for own, wanted in zip(found[group], pair, strict=True):
            assert torch.allclose(own, wanted, rtol=1e-10, atol=1e-12), group


@pytest.mark.parametrize("training", [False, True])
def test_in_a_residual_block_it_ends_before_the_sum(training):
    model = two_blocks(inplace=True).train(training)
    mask = torch.tensor([0, 1, 1, 0, 1.0])
    found, _ = told_by(model, {"first": mask}, IMAGES)
    with torch.no_grad():
        again = two_blocks().train(training)
        inner = F.relu(again.first_norm(again.first(F.relu(again.stem_norm(again.stem(IMAGES))))))
        raw = again.second(inner), again.second(inner * mask.view(-1, 1, 1))
        expected = normed(again.second_norm, *raw)
    for own, wanted in zip(found["first"], expected, strict=True):
        assert torch.allclose(own, wanted, rtol=1e-10, atol=1e-12)
    assert found["first"][0].min() < 0, "no activation of its own follows"


def test_nothing_of_the_pass_itself_changes():
    plain, watched = two_blocks().train(), two_blocks().train()
    expected = plain(IMAGES)
    F.cross_entropy(expected, LABELS).backward()
    found, outputs = told_by(watched, {"first": torch.zeros(5), "third": torch.zeros(7)}, IMAGES)
    F.cross_entropy(outputs, LABELS).backward()
    assert set(found) == {"first", "third"}
    assert torch.equal(outputs, expected)
    for (name, a), (_, b) in zip(plain.state_dict().items(), watched.state_dict().items(), strict=True):
        assert torch.equal(a, b), f"{name}: statistics move as without"
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert not any(tensor.requires_grad for pair in found.values() for tensor in pair)


def test_masks_of_the_pass_hold_beside_it_too():
    model, alive = pooled().eval(), torch.tensor([1, 1, 0, 1, 0, 1.0])
    found = []
    with Gates(traced(model), groups=["first"], reading=False, beside=lambda *told: found.append(told[1:])) as gates:
        gates.mask({"first": alive})
        gates.mask_beside({"first": torch.tensor([0, 1, 1, 1, 1, 1.0])})
        model(PICTURES)
    expected = by_hand(model, alive.double(), torch.ones(5).double())["first"][1]
    without = by_hand(model, (alive * torch.tensor([0, 1, 1, 1, 1, 1.0])).double(), torch.ones(5).double())["first"][1]
    assert torch.allclose(found[0][0], expected, rtol=1e-10)
    assert torch.allclose(found[0][1], without, rtol=1e-10)


def test_it_ends_when_told_so_and_where_no_gradient_is_recorded():
    model, told = pooled().eval(), []
    with Gates(traced(model), groups=["first"], reading=False, beside=lambda *given: told.append(given)) as gates:
        model(PICTURES)
        gates.mask_beside({"first": torch.zeros(6)})
        with torch.no_grad():
            model(PICTURES)
        assert not told
        model(PICTURES)
        assert len(told) == 1
        gates.mask_beside({})
        model(PICTURES)
    assert len(told) == 1


def test_what_is_done_beside_the_pass_is_counted():
    model = pooled().float().eval()
    pictures = PICTURES.float()
    masks = {"first": torch.zeros(6), "second": torch.zeros(5)}
    counts = []
    for given in ({}, masks):
        with Gates(cutback.trace(model, image()), groups=list(masks), reading=False, beside=lambda *_: None) as gates:
            gates.mask_beside(given)
            model(pictures)  # recorded at this batch size
            before = gates.macs_beside
            with FlopCounterMode(display=False) as counter:
                model(pictures)
            counts.append((counter.get_total_flops() // 2, gates.macs_beside - before))
    (plain, none), (both, beside) = counts
    assert none == 0
    assert beside == both - plain == 5 * (5 * 6 * 9 * 16 + 20 * 7)


def test_groups_that_one_layer_alone_consumes():
    assert lone_consumers(cutback.trace(residual(), image())) == {"inner"}
    assert lone_consumers(cutback.trace(projected(), image())) == {"inner"}
    assert lone_consumers(cutback.trace(flattened(), image())) == {"0"}
    assert lone_consumers(traced(pooled())) == {"first", "second", "hidden"}


def test_what_makes_no_sense_is_refused():
    graph = traced(two_blocks())
    with pytest.raises(Ungatable, match="beside the pass for stem"):
        Gates(graph, reading=False, beside=lambda *_: None)
    with pytest.raises(Ungatable, match="site consumer"):
        Gates(graph, "norm", groups=["first"], reading=False, beside=lambda *_: None)
    gates = Gates(graph, groups=["first"], reading=False)
    with pytest.raises(UserMistake, match="beside="):
        gates.mask_beside({})
    gates = Gates(graph, groups=["first"], reading=False, beside=lambda *_: None)
    with pytest.raises(UserMistake, match=r"write \(5,\)$"):
        gates.mask_beside({"first": torch.ones(2, 5)})
    with pytest.raises(UnknownName, match="third"):
        gates.mask_beside({"third": torch.ones(7)})
