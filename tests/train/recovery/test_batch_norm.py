"""Batch norms' statistics, estimated anew: those of all values together, with nothing of the old ones."""

import pytest
import torch
from torch import Tensor, nn

from cutback.errors import DataError
from cutback.train.recovery import BatchNormStatistics, parse_recovery
from tests.helpers import plain, randomised
from tests.train.recovery.situations import situation


class Net(nn.Module):
    """Batch norms behind each other and behind dropout, one that keeps no statistics, one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 1)
        self.norm, self.free = nn.BatchNorm2d(4), nn.Identity()
        self.last, self.unused = nn.BatchNorm1d(3, momentum=0.5), nn.BatchNorm2d(5)
        self.drop = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.free(self.second(self.drop(self.norm(self.first(images))))).mean((2, 3)))


def made() -> Net:
    net = randomised(Net())
    net.free = nn.BatchNorm2d(3, track_running_stats=False)
    return net


def test_statistics_are_those_of_all_values_whatever_the_batches() -> None:
    net = made()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(11, 2, 5, 5, generator=generator) * 3 + 1
    batches = [(images[:5], None), (images[5:8], None), (images[8:], None)]
    outcome = BatchNormStatistics().apply(situation(net, batches))
    assert outcome.done == ("norm", "last")
    assert outcome.skipped == (("unused", "no forward pass in eval mode has used it"),)
    with torch.no_grad():
        values = net.first(images)
    for channel in range(4):
        numbers = values[:, channel].double().flatten().tolist()
        mean = sum(numbers) / len(numbers)
        variance = sum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1)
        assert net.norm.running_mean[channel].item() == pytest.approx(mean, rel=1e-5, abs=1e-6)
        assert net.norm.running_var[channel].item() == pytest.approx(variance, rel=1e-5)
    # What comes to the last one was normalised with the statistics of each batch, as in training.
    pieces = []
    with torch.no_grad():
        for images_of_batch, _ in batches:
            here = net.first(images_of_batch)
            mean, variance = here.mean((0, 2, 3)), here.var((0, 2, 3), correction=0)
            here = (here - mean[:, None, None]) / (variance[:, None, None] + net.norm.eps).sqrt()
            here = net.second(here * net.norm.weight[:, None, None] + net.norm.bias[:, None, None])
            mean, variance = here.mean((0, 2, 3)), here.var((0, 2, 3), correction=0)
            here = (here - mean[:, None, None]) / (variance[:, None, None] + net.free.eps).sqrt()
            pieces.append((here * net.free.weight[:, None, None] + net.free.bias[:, None, None]).mean((2, 3)))
    together = torch.cat(pieces)
    torch.testing.assert_close(net.last.running_mean, together.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.last.running_var, together.var(0), rtol=1e-4, atol=1e-5)
    assert net.last.momentum == 0.5
    assert net.unused.running_mean.abs().sum() > 0


def test_nothing_else_changes_and_old_statistics_have_no_part() -> None:
    net, images = made(), torch.randn(6, 2, 5, 5)
    net.drop.eval()
    state, random = {n: p.clone() for n, p in net.named_parameters()}, torch.get_rng_state()
    for _ in range(2):
        net.norm.running_var.fill_(77)
        BatchNormStatistics().apply(situation(net, [(images, None)]))
    assert plain(dict(net.named_parameters())) == plain(state)
    assert torch.equal(torch.get_rng_state(), random)
    assert net.norm.training
    assert not net.drop.training
    assert all(norm.track_running_stats for norm in (net.norm, net.last))
    torch.testing.assert_close(net.norm.running_var, net.first(images).var((0, 2, 3)), rtol=1e-5, atol=1e-5)
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_single_picture_at_the_end_is_left_out() -> None:
    images, found = torch.randn(7, 2, 5, 5), []
    for batches in ([(images[:6], None)], [(images[:6], None), (images[6:], None)]):
        net = made()
        BatchNormStatistics().apply(situation(net, batches))
        found.append(plain(dict(net.named_buffers())))
    assert found[0] == found[1]


def test_a_failure_leaves_the_statistics_as_they_were() -> None:
    net = made()
    before = plain(dict(net.named_buffers()))
    for batches, message in (
        ([(torch.randn(4, 2, 5, 5), None), (torch.randn(4, 3, 5, 5), None)], "does not run on calibration batch 2"),
        ([(torch.randn(1, 2, 5, 5), None)], "does not run on calibration batch 1 .*Expected more than 1 value"),
        ([], "there are no calibration batches"),
    ):
        with pytest.raises(DataError, match=message):
            BatchNormStatistics().apply(situation(net, batches))
        assert plain(dict(net.named_buffers())) == before
        assert all(norm.track_running_stats for norm in (net.norm, net.last))
        assert net.norm.training


def test_a_network_without_batch_norms_is_told() -> None:
    outcome = parse_recovery("bn")[0].apply(situation(nn.Linear(2, 2), [(torch.zeros(1, 2), None)]))
    assert outcome.notes == ("the network has no batch norm that keeps statistics",)
