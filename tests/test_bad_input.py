"""What users get wrong: each its own error, with a message that names what matters."""

import os
import re

import pytest
import torch
from torch import nn

import cutback
from cutback.errors import (
    CaptureError,
    DataDependentControlFlow,
    InvalidBudget,
    InvalidScore,
    NothingToPrune,
    SaveError,
    UserMistake,
)
from tests.helpers import chain, image, residual, snapshot


def test_inputs_of_the_wrong_shape():
    model = chain()
    before = snapshot(model)
    with pytest.raises(
        CaptureError, match=r"Sequential failed in eval mode on inputs of shape \(2, 4, 8, 8\).*channels"
    ):
        cutback.trace(model, image(shape=(2, 4, 8, 8)))
    assert snapshot(model) == before


@pytest.mark.parametrize("budget", ["macs=0%", "macs=100%", "macs=250%", "50"])
def test_budgets_that_ask_for_nothing_or_everything(budget):
    with pytest.raises(InvalidBudget, match=re.escape(repr(budget)) + ".*macs=50%"):
        cutback.plan(cutback.trace(chain(), image()), budget=budget)


@pytest.mark.parametrize("share", [0, 1, 2.5, -0.5, 50])
def test_shares_that_ask_for_nothing_or_everything(share):
    with pytest.raises(InvalidBudget, match="macs=50%"):
        cutback.prune(chain(), image(), macs=share)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (nn.Conv2d(3, 4, 1), "network's output"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), r"1 \(.*network's output"),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), "no layer with channels"),
        (nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 1)), "one channel stays everywhere"),
    ],
)
def test_a_model_with_nothing_to_prune(model, names):
    with pytest.raises(NothingToPrune, match=names):
        cutback.plan(cutback.trace(model, image()), budget="macs=50%")


class Maxout(nn.Module):
    """The larger of two channels each, which therefore go in pairs or not at all."""

    def __init__(self):
        super().__init__()
        self.wide, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(8, 5, 1)

    def forward(self, x):
        x = self.wide(x)
        return self.head(x.view(x.shape[0], x.shape[1] // 2, 2, *x.shape[2:]).amax(2))


def test_a_balance_that_no_narrower_width_meets():
    with pytest.raises(NothingToPrune, match=r"wide whole because of its balance \(.*8 blocks of 2\).*'blocks'"):
        cutback.plan(cutback.trace(Maxout(), image()), budget="channels=50%")
    plan = cutback.plan(cutback.trace(Maxout(), image(), granularity="blocks"), budget="channels=50%")
    assert len(plan.groups[0].kept) == 4


def test_a_model_whose_layers_are_all_ignored():
    with pytest.raises(NothingToPrune, match="ignored modules"):
        cutback.plan(cutback.trace(chain(), image()), budget="macs=50%", ignore=["*"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value):
    model = residual()
    with torch.no_grad():
        model.inner.weight[0, 0, 0, 0] = value
    with pytest.raises(InvalidScore, match=r"inner\.weight holds NaN or infinity; load sound weights"):
        cutback.prune(model, image(), macs=0.5)


def test_all_parameters_frozen_is_no_obstacle():
    small = cutback.prune(residual().requires_grad_(False), image(), macs=0.5)
    assert small.head.in_features < 8


@pytest.mark.parametrize("inputs", [None, "cat.png", (), {}, (1, 2), {"images": [3]}])
def test_inputs_without_a_tensor(inputs):
    with pytest.raises(UserMistake, match=f"hold no tensor .got {type(inputs).__name__}.*pass a tensor"):
        cutback.trace(chain(), inputs)


class Raises(nn.Module):
    """Has a forward that raises after its first layer, always or in train mode only."""

    def __init__(self, *, always):
        super().__init__()
        self.body, self.head, self.always = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), always

    def forward(self, images):
        features = self.body(images)
        if self.always or self.training:
            raise KeyError("the cat is missing")
        return self.head(features)


def test_a_model_whose_forward_raises():
    model = Raises(always=True)
    before = snapshot(model)
    with pytest.raises(CaptureError, match=r"Raises failed in eval mode.*KeyError: 'the cat is missing'") as raised:
        cutback.trace(model, image())
    assert isinstance(raised.value.__cause__, KeyError)
    assert snapshot(model) == before


def test_a_model_whose_forward_raises_in_train_mode_only_is_cut_for_eval():
    graph = cutback.trace(Raises(always=False), image())
    assert "the cat is missing" in graph.train_failure
    assert "not captured in train mode" in str(graph)
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    assert graph.model.body.out_channels == 4


class Decides(nn.Module):
    """Takes another path for other values."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, images):
        features = self.body(images)
        return self.head(features if features.sum() > 0 else -features)


class Counts(nn.Module):
    """Does something else every time it is called."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    calls = 0

    def forward(self, images):
        type(self).calls += 1
        return self.head(self.body(images)) * self.calls


class Shapes(nn.Module):
    """Returns as many numbers as there are positive ones."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 1)

    def forward(self, images):
        features = self.body(images)
        return features[features > 0]


@pytest.mark.parametrize("kind", [Decides, Shapes])
def test_control_flow_that_depends_on_values(kind):
    model = kind()
    before = snapshot(model)
    with pytest.raises(DataDependentControlFlow, match=f"{kind.__name__} decides by the values.*take the decision out"):
        cutback.trace(model, image())
    assert snapshot(model) == before


def test_a_forward_that_changes_from_call_to_call():
    model = Counts()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    before = snapshot(model)
    with pytest.raises(DataDependentControlFlow, match="Counts computes something else than was recorded"):
        cutback.apply_(graph, plan)
    assert snapshot(model) == before


def test_an_output_folder_that_cannot_be_written(tmp_path, monkeypatch):
    model = chain()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="macs=50%")
    cutback.apply_(graph, plan)
    tmp_path.chmod(0o500)
    if os.geteuid() == 0:  # root may write anywhere: let the system call say what it says to others

        def refuse(path, *_, **__):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "mkdir", refuse)
    try:
        with pytest.raises(SaveError, match=r"cannot write .*small: Permission denied; name a folder you may write to"):
            cutback.save(model, plan, tmp_path / "small")
    finally:
        tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []
