"""Many masks in one pass, restarted where they begin, against one whole pass for each mask."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import cutback
from cutback.errors import Ungatable, UserMistake
from cutback.gates import Gates, Restarts, restart
from cutback.gates.difference import brought
from tests.gates.networks import BATCH, IMAGES, UNITS, relative, traced, two_blocks
from tests.helpers import image, randomised, snapshot


def one_by_one(graph, inputs, masks, site="consumer"):
    """Return the outputs under each mask, each from a whole pass."""
    found = []
    with Gates(graph, site, reading=False) as gates, torch.no_grad():
        for number in range(len(next(iter(masks.values())))):
            gates.mask({name: mask[number] for name, mask in masks.items()})
            found.append(graph.model(*inputs))
    return torch.cat(found)


@pytest.mark.parametrize("site", ["consumer", "norm", "stream"])
@pytest.mark.parametrize("inplace", [False, True])
def test_every_mask_gives_what_a_whole_pass_gives(site, inplace):
    model = two_blocks(inplace=inplace).eval()
    graph = traced(model)
    before = snapshot(model)
    run = Restarts(graph, site).on(IMAGES)
    assert torch.equal(run.plain(), model(IMAGES))
    for name in ("third", "stem", "first"):  # also back to earlier layers
        masks = {name: 1 - torch.eye(UNITS[name]).double()}
        assert relative(run.masked(masks), one_by_one(graph, (IMAGES,), masks, site)) < 1e-12
        assert relative(run.masked(masks), model(IMAGES).repeat(UNITS[name], 1)) > 1e-3
    assert snapshot(model) == before


def test_groups_are_masked_together():
    model = two_blocks().eval()
    graph = traced(model)
    generator = torch.Generator().manual_seed(0)
    masks = {name: (torch.rand(4, units, generator=generator) > 0.5).double() for name, units in UNITS.items()}
    found = Restarts(graph).on(IMAGES).masked(masks)
    assert found.shape == (4 * BATCH, 4)
    assert relative(found, one_by_one(graph, (IMAGES,), masks)) < 1e-12


def test_only_what_follows_is_run_again():
    model = two_blocks().eval()
    run = Restarts(traced(model), groups=["third"]).on(IMAGES)
    masks = {"third": torch.ones(2, 7).double()}
    run.masked(masks)  # what comes before has run
    with FlopCounterMode(display=False) as counted:
        run.masked(masks)
    copies = 2 * BATCH
    last = copies * (model.fourth.weight.numel() * 64 + model.head.weight.numel())
    assert counted.get_total_flops() == 2 * last


class Consumed(nn.Module):
    """A layer whose channels another one consumes, with what stands between them."""

    def __init__(self, between: nn.Module, consumer: nn.Module):
        super().__init__()
        self.stem, self.between, self.consumer = nn.Conv2d(3, 6, 3, padding=1), between, consumer

    def forward(self, images):
        return F.relu(self.consumer(self.between(F.relu(self.stem(images))))).flatten(1)


CONSUMERS = {
    "strided": (nn.Identity, lambda: nn.Conv2d(6, 5, 3, stride=2, padding=(1, 0), dilation=2, bias=False)),
    "same": (nn.Identity, lambda: nn.Conv2d(6, 5, 3, padding="same")),
    "circular": (nn.Identity, lambda: nn.Conv2d(6, 5, 3, padding=1, padding_mode="circular")),
    "one dimension": (lambda: nn.Flatten(2), lambda: nn.Conv1d(6, 5, 3)),
    "three dimensions": (lambda: nn.Unflatten(2, (2, 4)), lambda: nn.Conv3d(6, 5, 2)),
    "flattened": (nn.Flatten, lambda: nn.Linear(6 * 64, 5)),
    "groups": (nn.Identity, lambda: nn.Conv2d(6, 4, 3, groups=2)),
    "transposed": (nn.Identity, lambda: nn.ConvTranspose2d(6, 5, 3)),
}


@pytest.mark.parametrize("name", CONSUMERS)
def test_a_unit_at_a_time_is_what_a_whole_pass_gives(name, monkeypatch):
    between, consumer = (make() for make in CONSUMERS[name])
    model = randomised(Consumed(between, consumer)).double().eval()
    graph = traced(model)
    run = Restarts(graph).on(IMAGES)
    factors = torch.tensor([0.0, 0.0, 0.3, -1.0, 2.0, 0.0]).double()
    masks = {"stem": torch.ones(6, 6).double().index_put((torch.arange(6), torch.arange(6)), factors)}
    differences = []
    monkeypatch.setattr(restart, "brought", lambda *given: differences.append(brought(*given)) or differences[-1])
    for chosen in (masks, {"stem": masks["stem"][[4, 1]]}):
        assert relative(run.masked(chosen), one_by_one(graph, (IMAGES,), chosen)) < 1e-12
    assert len(differences) == (0 if name in {"groups", "transposed"} else 2)


def test_of_the_first_consumer_only_what_changes_is_computed():
    model = two_blocks().eval()
    run = Restarts(traced(model)).on(IMAGES)
    masks = {"third": 1 - torch.eye(7).double()}
    expected = run.masked(masks)
    with FlopCounterMode(display=False) as counted:
        assert torch.equal(run.masked(masks), expected)
    copies = 7 * BATCH
    assert counted.get_total_flops() == 2 * copies * (
        model.fourth.weight[:, 0].numel() * 64 + model.head.weight.numel()
    )


class Windowed(nn.Module):
    """Windows folded into the batch in either order, a split, and a stream of a sequence that comes first."""

    def __init__(self, outer: bool):
        super().__init__()
        self.outer = outer
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.mixed = nn.Linear(8, 6)
        self.back = nn.Linear(6, 8)
        self.left, self.right = nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(5, 4)

    def forward(self, images):
        x = F.relu(self.stem(images))
        n, c, h, w = x.shape
        windows = x.view(n, c, 2, h // 2, w).permute(2, 0, 3, 4, 1) if self.outer else None
        if windows is None:
            windows = x.view(n, c, 2, h // 2, w).permute(0, 2, 3, 4, 1)
        windows = windows.reshape(n * 2, h // 2 * w, c)
        windows = self.back(F.gelu(self.mixed(windows)))
        shape = (2, n, h // 2, w, c) if self.outer else (n, 2, h // 2, w, c)
        windows = windows.view(shape).permute((1, 4, 0, 2, 3) if self.outer else (0, 4, 1, 2, 3))
        left, right = windows.reshape(n, c, h, w).chunk(2, 1)
        sequence = F.relu(self.left(left) + self.right(right)).flatten(2).permute(2, 0, 1)  # (positions, N, C)
        return self.head(sequence.mean(0))


@pytest.mark.parametrize("outer", [False, True])
def test_windows_are_followed_to_their_samples(outer):
    model = randomised(Windowed(outer)).double().eval()
    graph = cutback.trace(model, image().double())
    run = Restarts(graph).on(IMAGES)
    generator = torch.Generator().manual_seed(0)
    for group in graph.groups:
        masks = {group.name: torch.rand(3, group.units, generator=generator).double()}
        assert relative(run.masked(masks), one_by_one(graph, (IMAGES,), masks)) < 1e-12
    with Gates(graph) as gates:
        model(IMAGES).square().sum().backward()
        together = gates.take()
        for n in range(BATCH):
            model(IMAGES[n : n + 1]).square().sum().backward()
            for name, gradient in gates.take().items():
                assert relative(gradient[0], together[name][n]) < 1e-10


def test_where_samples_meet_masks_are_refused():
    run = Restarts(traced(two_blocks().train())).on(IMAGES)
    with pytest.raises(Ungatable, match="normalises over the batch"):
        run.masked({"stem": torch.ones(2, 6)})


def test_masks_of_different_numbers_are_refused():
    run = Restarts(traced(two_blocks().eval())).on(IMAGES)
    with pytest.raises(UserMistake, match=r"masks of \[2, 3\] rows"):
        run.masked({"stem": torch.ones(2, 6), "first": torch.ones(3, 5)})


class Conditioned(nn.Module):
    """Adds a learned vector, the same for all samples, to the maps of a convolution; with numbers, one a sample."""

    def __init__(self):
        super().__init__()
        self.embedding, self.project = nn.Embedding(3, 4), nn.Linear(4, 6)
        self.stem, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 6)

    def forward(self, images, classes=None):
        classes = torch.zeros(1, dtype=torch.long) if classes is None else classes
        shift = self.project(F.relu(self.embedding(classes)))
        return self.head(F.relu(self.stem(images) + shift[:, :, None, None])).flatten(1)


@pytest.mark.parametrize("given", [False, True])
def test_masks_on_what_belongs_to_no_sample_run_one_at_a_time(given):
    model = randomised(Conditioned()).double().eval()
    inputs = (IMAGES, torch.tensor([0, 1, 2, 0, 1])) if given else (IMAGES,)
    graph = cutback.trace(model, (image().double(), torch.tensor([0, 1])) if given else image().double())
    run = Restarts(graph).on(inputs)
    names = [group.name for group in graph.groups if group.units == 4]
    assert names
    masks = {names[0]: 1 - torch.eye(4).double()}
    expected = one_by_one(graph, inputs, masks)
    assert relative(torch.cat(run.each(masks)), expected) < 1e-12
    rows = expected.unflatten(0, (4, BATCH))
    assert all(not torch.allclose(rows[0], other) for other in rows[1:])
    with pytest.raises(Ungatable, match=r"no samples can be told apart at project.*one mask at a time|do not grow"):
        run.masked(masks)
    with Gates(graph, reading=False) as gates:
        gates.mask({names[0]: torch.rand(BATCH, 4)})
        with pytest.raises(Ungatable, match="no samples can be told apart at project"):
            model(*inputs)
    with Gates(graph, groups=names), pytest.raises(Ungatable, match="no samples can be told apart at project"):
        model(*inputs)


def test_what_is_run_is_counted():
    model = two_blocks().float().eval()
    pictures = IMAGES.float()
    restarts = Restarts(cutback.trace(model, image()))
    one, several = {"first": 1 - torch.eye(5)}, {"third": torch.ones(2, 7), "stem": torch.ones(2, 6)}
    order = [lambda run: run.plain(), lambda run: run.masked(one), lambda run: run.masked(several)]
    for call in order:
        call(restarts.on(pictures))  # recorded, and where samples lie is known
    run, before = restarts.on(pictures), 0
    for call in order:
        with FlopCounterMode(display=False) as counted:
            call(run)
        assert run.macs - before == counted.get_total_flops() // 2 > 0
        before = run.macs
