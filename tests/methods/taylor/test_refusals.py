"""What the method refuses: settings, budgets and loops that cannot be meant."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from cutback.errors import BudgetUnreachable, InvalidBudget, InvalidScore, Ungatable, UserMistake
from cutback.methods.taylor import Taylor
from tests.helpers import chain, image
from tests.methods.taylor.loop import batch, run, sgd


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({}, InvalidBudget, "in one way"),
        ({"budget": "macs=50%", "removals": 2}, InvalidBudget, "in one way"),
        ({"removals": 0}, UserMistake, "removals=0"),
        ({"removals": 1, "units": 0}, UserMistake, "units=0"),
        ({"removals": 1, "momentum": 1.0}, UserMistake, "momentum"),
        ({"removals": 1, "mu": -1.0}, UserMistake, "mu"),
        ({"removals": 1, "regularise": "joules"}, UserMistake, "joules"),
        ({"removals": 1, "units": 4, "group_size": 8}, UserMistake, "group_size"),
        ({"removals": 1, "score": "taylor-second"}, UserMistake, "loader"),
        ({"removals": 1, "score": "tailor"}, UserMistake, "did you mean"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, error, says):
    with pytest.raises(error, match=says):
        Taylor(cutback.trace(chain(), image()), **settings)


def test_more_than_there_is_is_refused_before_any_step():
    graph = cutback.trace(chain(), image())
    with pytest.raises(UserMistake, match="only 18 of this network can go"), Taylor(graph, removals=19, units=1):
        pass
    with pytest.raises(BudgetUnreachable), Taylor(graph, budget="macs=1%"):
        pass
    assert "forward" not in vars(graph.model)


def attached(model: nn.Module, **settings: object) -> Taylor:
    return Taylor(cutback.trace(model, image()), removals=1, units=1, minibatches=2, **settings)


def test_without_labels_nothing_reaches_the_gates_and_it_says_so():
    with pytest.raises(UserMistake, match="needs data"):
        cutback.plan(cutback.trace(chain(), image()), score="taylor", budget="macs=50%")
    model = chain()
    with attached(model) as method, pytest.raises(UserMistake, match="no forward pass"):
        method.after_backward()
    with attached(model) as method:
        outputs = model(image())
        (outputs.detach().sum() + model[0].weight.sum()).backward()  # a loss that no output enters
        method.after_backward()
        with pytest.raises(UserMistake, match="from labels"):
            method.before_step()
    with attached(model) as method, pytest.raises(UserMistake, match="after_backward"):
        method.before_step()


def test_minibatches_may_be_smaller_but_not_larger_and_must_be_finite():
    model = chain()

    def step(method: Taylor, size: int, factor: float = 1.0, scaler: torch.amp.GradScaler | None = None) -> None:
        images, labels = batch(0, torch.float32, size)
        (factor * cross_entropy(model(images), labels)).backward()
        method.after_backward()
        method.before_step(scaler)

    with attached(model) as method:
        step(method, 4)
        step(method, 3)
        assert method.state_dict()["importance"]["count"] == 1
        with pytest.raises(UserMistake, match="5 samples follows others of 4"):
            step(method, 5)
        with pytest.raises(InvalidScore, match="diverged"):
            step(method, 4, float("nan"))
        step(
            method, 4, float("inf"), torch.amp.GradScaler("cpu")
        )  # scaled too far: the step is skipped, and counts not
        assert method.state_dict()["importance"]["count"] == 1


class Sequential(nn.Module):
    """A convolution, and an LSTM whose hidden channels no gate can silence."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.cells, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        rows = torch.relu(self.norm(self.stem(images))).mean(2).transpose(1, 2)
        return self.head(self.cells(rows)[0][:, -1])


def test_what_cannot_be_gated_is_named_and_may_be_left_out():
    graph = cutback.trace(Sequential(), image())
    with pytest.raises(Ungatable, match=r"cells.*ignore="), Taylor(graph, removals=1, units=1):
        pass
    model = graph.model
    method = Taylor(graph, removals=1, units=2, minibatches=1, ignore="cells")
    with method:
        run(model, method, sgd(model, 0.0), 1, dtype=torch.float32)
    assert (model.stem.out_channels, model.cells.hidden_size) == (4, 5)
