"""Which channels get compactors, and the reason given for all others."""

import pytest
import torch
from torch import nn

from cutback.errors import BudgetUnreachable, InvalidBudget, UnknownName, UserMistake
from cutback.methods.resrep.targets import targets_of
from tests.helpers import chain, image, residual
from tests.methods.resrep.networks import (
    Basic,
    Bottleneck,
    Gated,
    Grouped,
    Separable,
    Unpaired,
    made,
    method_of,
    traced,
)


def found(model: nn.Module, *, coupled: bool = False, ignore: tuple[str, ...] = ()):
    targets, others = targets_of(traced(model), coupled=coupled, ignore=ignore)
    return {target.name: [pair.convolution for pair in target.pairs] for target in targets}, others


def test_of_a_basic_block_it_is_the_first_convolution():
    targets, others = found(made(Basic))
    assert targets == {"first1.0": ["first1.0"], "second1.0": ["second1.0"]}
    assert "coupled=True" in others["stem.0"]
    assert "coupled=True" in others["first2.0"]


def test_of_a_bottleneck_it_is_the_first_two():
    targets, others = found(made(Bottleneck))
    assert targets == {"first.0": ["first.0"], "second.0": ["second.0"]}
    assert list(others) == ["stem.0"]
    assert found(made(Bottleneck), coupled=True)[0]["stem.0"] == ["stem.0", "third.0"]


def test_coupled_streams_share_one_compactor():
    targets, others = found(made(Basic), coupled=True)
    assert targets["first2.0"] == ["first2.0", "project.0", "second2.0"]
    assert targets["stem.0"] == ["stem.0"]
    assert not others
    with method_of(made(Basic), coupled=True) as method:
        assert len(method._insertion.compactors) == 4
        assert len(method._insertion.mixed) == 6


def test_depthwise_layers_go_along():
    targets, others = found(made(Separable))
    assert targets == {"stem.0": ["stem.0"], "point1.0": ["point1.0"], "point2.0": ["point2.0"]}
    assert not others


def test_a_gate_goes_along_where_coupled_channels_may_have_compactors():
    targets, others = found(made(Gated))
    assert set(targets) == {"last.0"}
    assert "2 layers make them" in others["stem.0"]
    targets, others = found(made(Gated), coupled=True)
    assert targets["stem.0"] == ["stem.0"]
    assert "no convolution with a batch norm" in others["squeeze"]


def test_layers_that_would_go_on_speaking_are_refused():
    _, others = found(made(Unpaired), coupled=True)
    assert "no compactor stands behind" in others["one.0"]
    _, others = found(residual(), coupled=True)  # a convolution without a norm is added to the stream
    assert "no compactor stands behind" in others["stem"]


def test_blocks_of_a_grouped_convolution_are_refused():
    targets, others = found(made(Grouped), coupled=True)
    assert set(targets) == {"outer.0"}
    assert all("equally many" in why for why in others.values())


class Activated(nn.BatchNorm2d):
    """A batch norm whose module does more than normalise."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).relu()


def test_a_norm_that_does_more_than_normalise_is_none():
    net = chain((6, 8))
    net[1] = Activated(6)
    targets, others = found(net)
    assert set(targets) == {"3"}
    assert "no convolution with a batch norm of its own" in others["0"]


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(6, affine=False), nn.BatchNorm2d(6, track_running_stats=False), nn.GroupNorm(1, 6)]
)
def test_norms_that_cannot_be_folded_are_refused(norm):
    net = chain((6, 8))
    net[1] = norm
    assert set(found(net)[0]) == {"3"}


def test_layers_that_run_twice_are_refused():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.norm, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)

        def forward(self, images):
            return self.last(self.norm(self.shared(self.norm(self.shared(images)).relu())).relu())

    with pytest.raises(UserMistake, match="no channels of Twice"), method_of(Twice(), coupled=True):
        pass


def test_ignored_layers_stay_whole():
    targets, others = found(made(Basic), ignore=("first*",))
    assert set(targets) == {"second1.0"}
    assert others["first1.0"] == "they are ignored"
    with pytest.raises(UnknownName), method_of(made(Basic), ignore="nothing*"):
        pass


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"budget": None}, UserMistake, "give one"),
        ({"budget": "channels=50%"}, InvalidBudget, "bound a figure"),
        ({"steps": 0}, UserMistake, "steps=0"),
        ({"interval": 0}, UserMistake, "interval=0"),
        ({"added": True}, UserMistake, "added=True"),
        ({"before_masks": -1}, UserMistake, "before_masks=-1"),
        ({"strength": 0.0}, UserMistake, "strength"),
        ({"momentum": 1.0}, UserMistake, "momentum"),
        ({"threshold": float("nan")}, UserMistake, "threshold"),
        ({"min_channels": 0}, InvalidBudget, "min_channels"),
    ],
)
def test_bad_settings_are_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        method_of(made(Basic), **settings)


def test_a_budget_out_of_reach_is_refused_before_any_work():
    with pytest.raises(BudgetUnreachable, match="lowest reachable"), method_of(made(Basic), budget="macs=20%"):
        pass
    with method_of(made(Basic), budget="macs=20%", coupled=True):
        pass


def test_a_run_that_is_too_short_for_its_budget_is_warned_of():
    method = method_of(made(Basic), interval=3, added=1)
    with pytest.warns(UserWarning, match="in 10 steps resrep resets at most 3 rows"):
        method.attach()
    method.detach()


def test_the_model_runs_as_ever_once_left():
    model = made(Basic).eval()
    expected = model(image())
    with method_of(model):
        pass
    assert torch.equal(model(image()), expected)
