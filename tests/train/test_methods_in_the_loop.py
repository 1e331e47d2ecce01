"""The loop calls a method as its interface says, keeps its cuts in everything, and stops when it has finished."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import cutback
from cutback.methods import About, Method
from cutback.train import Data, TrainSettings, fit
from cutback.train.loop import Loop


class Noting(Method):
    """Writes down what is called, and cuts once."""

    about = About("Noted", "Nobody", 2026, "tests")

    def __init__(self, graph, *, ends=3, at_once=False, **given) -> None:
        super().__init__(graph, **given)
        self.calls, self.step, self.ends, self.at_once = [], 0, ends, at_once

    def attach(self) -> None:
        self.calls.append("attach")
        if self.at_once:
            self.cut(cutback.plan(self.graph, budget="channels=50%"))

    def detach(self) -> None:
        self.calls.append("detach")

    def penalty(self):
        self.calls.append("penalty")
        return super().penalty() + 1000

    def after_backward(self) -> None:
        self.calls.append("after_backward")
        self.gradients = [parameter.grad.clone() for parameter in self.graph.model.parameters()]

    def before_step(self, scaler=None) -> None:
        self.calls.append("before_step")
        for parameter in self.graph.model.parameters():
            parameter.grad *= 100

    def after_step(self) -> bool:
        self.calls.append("after_step")
        self.step += 1
        if self.step != 2:
            return False
        self.cut(cutback.plan(self.graph, budget="channels=50%"))
        return True

    @property
    def finished(self) -> bool:
        return self.at_once or self.step == self.ends


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 3))


def data(count: int = 24) -> Data:
    generator = torch.Generator().manual_seed(0)
    split = TensorDataset(
        torch.randn(count, 1, 8, 8, generator=generator), torch.randint(3, (count,), generator=generator)
    )
    return Data("small", split, split, split, num_classes=3, input_shape=(1, 8, 8))


def run(settings: TrainSettings, **options):
    made = []

    def method(loop: Loop) -> Method:
        graph = cutback.trace(loop.wrapped, torch.zeros(2, 1, 8, 8))
        made.extend([loop, Noting(graph, optimizers=[loop.optimizer], copies=loop.copies, **options)])
        return made[1]

    model = network()
    result = fit(model, data(), settings, make_method=method)
    return model, result, *made


def test_each_hook_is_called_in_its_place() -> None:
    settings = TrainSettings(epochs=5, batch_size=8, accumulate=2, clip=1.0, average=0.5)
    model, result, loop, method = run(settings, ends=4)
    micro = ["penalty", "after_backward"]
    assert method.calls == ["attach", *[*micro, *micro, "before_step", "after_step"] * 4, "detach"]
    assert [epoch.number for epoch in result.epochs] == [1, 2]  # three steps an epoch, the last in the second
    assert result.epochs[0].train_loss < 10  # the penalty is no part of the loss that is told
    assert result.chosen_epoch == 2
    held = [parameter for group in loop.optimizer.param_groups for parameter in group["params"]]
    total = torch.cat([parameter.grad.flatten() for parameter in held]).norm()
    assert total == pytest.approx(1.0, rel=1e-4)  # clipped after the method had edited them
    assert model[0].out_channels == 4
    assert loop.average.module[0].out_channels == 4
    assert all(state["momentum_buffer"].shape == p.shape for p, state in loop.optimizer.state.items())
    assert torch.equal(model[0].weight, loop.average.module[0].weight)


def test_one_that_is_finished_at_once_takes_no_step() -> None:
    model, result, _, method = run(TrainSettings(epochs=3, batch_size=8), at_once=True)
    assert method.calls == ["attach", "detach"]
    assert (result.epochs, result.chosen_epoch) == ((), 0)
    assert model[0].out_channels == 4


def test_micro_batches_add_up_to_the_whole_batch() -> None:
    models = []
    for accumulate in (1, 2, 4):
        models.append(network())
        fit(models[-1], data(), epochs=1, batch_size=8, accumulate=accumulate, keep="last")
    for other in models[1:]:
        for a, b in zip(models[0].parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_patience_stops_and_the_latest_of_equal_epochs_is_kept() -> None:
    still = fit(network(), data(), epochs=9, batch_size=8, learning_rate=1e-9, weight_decay=0.0, patience=3)
    assert (len(still.epochs), still.chosen_epoch) == (3, 3)
    assert still.stopped == "no better epoch in 3"
    moving = fit(network(), data(), epochs=9, batch_size=8, learning_rate=0.05, patience=3)
    assert moving.chosen > moving.start
    figures = [moving.start, *(epoch.validation for epoch in moving.epochs)]
    since = len(figures) - 1 - figures.index(max(figures))
    assert (since == 3 and moving.stopped) or (since < 3 and len(moving.epochs) == 9)
