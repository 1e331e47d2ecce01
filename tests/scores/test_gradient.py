"""What all scores of gradients share: the model stays as it is, memory, sizes of batches, processes, odd losses."""

import gc

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cutback
from cutback.errors import InvalidScore, UserMistake
from cutback.scores import SNIP, GroupFisher, Taylor, about, make_score, scores
from tests.helpers import image, randomised, snapshot
from tests.scores.networks import SAMPLES, Batches, assert_equal, numbers, projected, rated, traced
from tests.scores.two_ranks import rate
from tests.two_ranks import in_two_ranks

NAMES = [name for name in sorted(scores) if "gradients" in about(name).needs]
BATCHWISE = [name for name in NAMES if about(name).batchwise]


def made(name, loader, loss=functional.cross_entropy, **options):
    return scores.get(name)(loader, loss, **options)


def alone(name, sizes):
    batches = Batches(sizes=sizes, dtype=torch.float64)
    found = rated(traced("projected", torch.float64), made(name, batches))
    return {group: numbers(values) for group, values in found.items()}


@pytest.mark.parametrize("name", NAMES)
def test_train_mode_uses_each_batch_and_leaves_the_model_alone(name):
    model = projected()
    graph = cutback.trace(model, image())
    functional.cross_entropy(model(Batches().pictures), torch.arange(SAMPLES) % 4).backward()
    before = snapshot(model)
    found = rated(graph, made(name, Batches(), training=True))
    assert snapshot(model) == before
    by_default = rated(graph, name)
    assert any(not torch.allclose(found[group], values) for group, values in by_default.items())
    model.eval()
    assert_equal(rated(graph, name), {group: numbers(values) for group, values in by_default.items()})


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters_and_no_grad_make_no_difference(name):
    expected = alone(name, (4, 2))
    graph = traced("projected", torch.float64)
    graph.model.requires_grad_(False)
    try:
        with torch.no_grad():
            found = rated(graph, make_score(name, loader=Batches(dtype=torch.float64), loss=functional.cross_entropy))
    finally:
        graph.model.requires_grad_(True)
    assert_equal(found, expected, 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_loss_holds_gets_no_gradient(name):
    class Head(nn.Module):
        """A loss with parameters of its own, which also looks at the user's model."""

        def __init__(self, model):
            super().__init__()
            self.scale, self.held = nn.Parameter(torch.ones(4)), [model]

        def forward(self, outputs, labels):
            return functional.cross_entropy(outputs * self.scale, labels) + self.held[0].head.weight.square().sum()

    model = projected()
    loss = Head(model)
    rated(model, made(name, Batches(), loss))
    assert loss.scale.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_number_of_batches(name):
    held = []

    class Loader:
        def __iter__(self):
            for number in range(20):
                if number in (3, 19):
                    gc.collect()
                    held.append(sum(found.numel() for found in gc.get_objects() if type(found) is Tensor))
                yield image(number), torch.tensor([0, 1])

    rated(traced("projected"), made(name, Loader()))
    assert len(held) in (2, 4)
    assert held[-2] == held[-1]


@pytest.mark.parametrize("name", BATCHWISE)
def test_a_smaller_last_batch_is_left_out_and_other_sizes_are_refused(name):
    graph = traced("projected", torch.float64)
    batches = list(Batches(sizes=(2, 2, 2), dtype=torch.float64))
    pictures, labels = batches[2]
    smaller = (pictures[:1], labels[:1])
    whole = rated(graph, made(name, batches[:2]))
    found = rated(graph, made(name, [*batches[:2], smaller]))
    assert all(torch.equal(found[group], values) for group, values in whole.items())
    with pytest.raises(UserMistake, match="a batch of 2 samples follows others of 2 or fewer"):
        rated(graph, made(name, [batches[0], smaller, batches[1]]))
    with pytest.raises(UserMistake, match="a batch of 2 samples follows others of 1 or fewer"):
        rated(graph, made(name, [smaller, batches[0]]))


def test_two_processes_find_what_one_finds(tmp_path):
    """The first has two of three batches, then all of them; what is of each sample is summed.

    Gradients that are to be squared are averaged first: the first batches of both are one batch, and what one process
    has alone is left out.
    """
    in_two_ranks(rate, str(tmp_path), [2, 3], NAMES)
    first, third = list(Batches(sizes=(2, 2, 2)))[::2]
    merged = [tuple(torch.cat(parts) for parts in zip(first, third, strict=True))]
    for found in (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)):
        for name in NAMES:
            together = name in BATCHWISE
            expected = rated(traced("projected"), made(name, merged if together else Batches()))
            expected = {group: numbers(values) for group, values in expected.items()}
            assert_equal(found[0][name], expected, 1e-4)
            if together:
                assert "no batch that counts" in found[1][name]
            else:
                assert_equal(found[1][name], expected, 1e-4)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (lambda outputs, labels: outputs, r"gave shape \(4, 4\); return a scalar"),
        (lambda outputs, labels: 3.0, "gave float; return a scalar"),
        (lambda outputs, labels: outputs.detach().sum(), "has no gradient; compute it from the outputs"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_loss_is_named(name, loss, says):
    with pytest.raises(UserMistake, match=says):
        rated(traced("projected"), made(name, Batches(), loss))


@pytest.mark.parametrize("name", ["grasp", "taylor-second"])
def test_what_has_no_second_derivative_is_named(name):
    layers = nn.Conv2d(3, 6, 3), nn.Hardsigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    with pytest.raises(InvalidScore, match=r"hardsigmoid_backward.*score of first derivatives"):
        rated(randomised(nn.Sequential(*layers)), made(name, Batches()))


def test_a_loss_that_is_not_finite_gives_no_score():
    def loss(outputs, labels):
        return functional.cross_entropy(outputs, labels) / 0.0

    for score in (Taylor, GroupFisher, SNIP):
        with pytest.raises(InvalidScore, match="not finite"):
            rated(traced("projected"), score(Batches(), loss))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_groups_needs_no_batches(name):
    assert rated(nn.Sequential(nn.Conv2d(3, 4, 1)), made(name, [])) == {}
