"""Settings: read back from JSON, refused out of range, and the learning rates they stand for."""

import json
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

from cutback.errors import UserMistake
from cutback.train import TrainSettings
from cutback.train.settings import Schedule

STEPS = 40


def rates(settings: TrainSettings) -> list[float]:
    """The learning rates that an optimiser has in each step."""
    optimizer = settings.make_optimizer([nn.Parameter(torch.zeros(1))])
    schedule, found = Schedule(optimizer, settings, STEPS), []
    for _ in range(STEPS):
        schedule.set()
        found.append(optimizer.param_groups[0]["lr"])
        schedule.advance()
    return found


def torch_rates(make) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    schedule, found = make(optimizer), []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("cosine", lambda optimizer: CosineAnnealingLR(optimizer, STEPS)),
        ("step", lambda optimizer: MultiStepLR(optimizer, [20, 30])),
        ("constant", lambda optimizer: MultiStepLR(optimizer, [])),
    ],
)
def test_schedules_are_those_of_torch(name, make) -> None:
    found = rates(TrainSettings(schedule=name, learning_rate=0.1, warm_up=0.0))
    assert found == pytest.approx(torch_rates(make))


def test_one_cycle_is_that_of_torch_but_for_a_step() -> None:
    steps = STEPS + 1  # torch reaches the peak and the end a step earlier
    expected = torch_rates(lambda optimizer: OneCycleLR(optimizer, 0.1, total_steps=steps, cycle_momentum=False))
    found = rates(TrainSettings(schedule="one-cycle", learning_rate=0.1))
    assert max(found) == pytest.approx(0.1)
    assert found[0] == pytest.approx(expected[0]) == pytest.approx(0.1 / 25)
    assert found == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("name", ["cosine", "step", "constant"])
def test_the_warm_up_rises_linearly(name) -> None:
    found = rates(TrainSettings(schedule=name, learning_rate=0.1, warm_up=0.25))
    assert found[:10] == pytest.approx([0.01 * number for number in range(1, 11)])
    assert all(after <= before for before, after in pairwise(found[10:]))


def test_a_group_that_is_added_later_follows_with_its_own_rate() -> None:
    settings = TrainSettings(schedule="constant", learning_rate=0.1, warm_up=0.5)
    optimizer = settings.make_optimizer([nn.Parameter(torch.zeros(1))])
    schedule = Schedule(optimizer, settings, 4)
    schedule.set()
    schedule.advance()
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.02})
    schedule.set()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.02])
    schedule.taken = 0
    schedule.set()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.01])


def test_the_optimiser_is_the_one_asked_for() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    sgd = TrainSettings(momentum=0.8, weight_decay=1e-3).make_optimizer([parameter])
    assert type(sgd) is torch.optim.SGD
    group = sgd.param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.8, 1e-3, True)
    assert type(TrainSettings(optimizer="adamw").make_optimizer([parameter])) is torch.optim.AdamW


def test_settings_come_back_from_json() -> None:
    settings = TrainSettings(epochs=3, optimizer="adamw", average=0.99, clip=1.5, patience=2, precision="bf16")
    assert TrainSettings.from_document(json.loads(json.dumps(settings.to_document()))) == settings
    with pytest.raises(UserMistake, match="no setting called 'epoch'; did you mean 'epochs'"):
        TrainSettings.from_document({"epoch": 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "needs epochs >= 0"),
        ({"learning_rate": math.nan}, "a learning rate > 0"),
        ({"optimizer": "adam"}, "optimizer is 'adam'; did you mean 'adamw'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, not 1"),
        ({"average": 1.0}, "average must be"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"checkpoint_steps": 0}, "checkpoint_steps must be at least 1"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message) -> None:
    with pytest.raises(UserMistake, match=message):
        TrainSettings(**options)
