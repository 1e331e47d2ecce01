"""The public verbs: what they accept, and that they leave alone what is not theirs."""

import copy
import dataclasses
import doctest
import importlib
import pkgutil
import random
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import cutback
from cutback.errors import CaptureError, InvalidBudget, UserMistake
from tests.helpers import Residual, chain, image, randomised, residual, snapshot

MODULES = [cutback.__name__, *(found.name for found in pkgutil.walk_packages(cutback.__path__, "cutback."))]
WITH_EXAMPLES = [
    name
    for name in MODULES
    if name != "cutback.__main__" and ">>>" in Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_are_true(name):
    torch.manual_seed(0)
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_whole_path_from_a_network_to_a_file_and_back(tmp_path):
    model = residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, score="l1", budget="macs=50%", ignore=["head*"])
    cutback.apply_(graph, plan, optimizers=[optimizer])
    model(image()).sum().backward()
    optimizer.step()
    cutback.save(model, plan, tmp_path / "small")
    loaded = cutback.load(tmp_path / "small", build=Residual)
    assert torch.equal(loaded.eval()(image()), model.eval()(image()))
    assert cutback.measure.macs(loaded, image()) <= 0.5 * cutback.measure.macs(residual(), image())


def test_pruning_returns_a_copy_and_leaves_the_original_alone():
    model = residual()
    model.inner.eval()
    model(image()).sum().backward()
    before = snapshot(model)
    small = cutback.prune(model, image(), macs=0.6, params=0.7, channels=0.9, round_to=1, allocate="global")
    assert snapshot(model) == before
    assert type(small) is Residual
    assert not {id(p) for p in small.parameters()} & {id(p) for p in model.parameters()}
    assert cutback.measure.macs(small, image()) <= 0.6 * cutback.measure.macs(model, image())
    assert cutback.measure.params(small) <= 0.7 * cutback.measure.params(model)
    assert small.stem.out_channels <= 7


@pytest.mark.parametrize("macs", ["50%", 0.5])
def test_a_share_may_be_written_either_way(macs):
    model = residual()
    small = cutback.prune(model, image(), macs=macs, ignore="stem", score=cutback.scores.L2)
    assert small.stem.out_channels == 8
    assert cutback.measure.macs(small, image()) <= 0.5 * cutback.measure.macs(model, image())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "give prune a share, for example macs=0.5"),
        ({"macs": None, "ignore": "head"}, "macs=0.5"),
        ({"macs": [0.5]}, "cannot read the share [0.5]"),
        ({"macs": "half"}, "cannot read the budget 'macs=half'"),
    ],
)
def test_what_prune_cannot_read_is_refused_before_any_work(given, says, monkeypatch):
    monkeypatch.setattr("cutback.api.trace", lambda *_: pytest.fail("worked before it checked"))
    with pytest.raises(InvalidBudget) as raised:
        cutback.prune(residual(), image(), **given)
    assert says in str(raised.value)


@pytest.mark.parametrize("verb", [cutback.trace, lambda *given: cutback.prune(*given, macs=0.5)])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: "resnet18", "expected a model, not 'resnet18'; pass an instance of torch.nn.Module"),
        (lambda: Residual, "expected a model, not the class Residual"),
        (lambda: torch.jit.script(chain()), "the model is compiled by TorchScript and cannot be traced"),
        (lambda: torch.jit.trace(chain().eval(), image()), "the model is compiled by TorchScript"),
        (lambda: nn.Sequential(nn.ReLU(), torch.jit.script(chain())), "its module 1 is compiled by TorchScript"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_no_plain_module_is_refused(verb, make, says):
    with pytest.raises(UserMistake) as raised:
        verb(make(), image())
    assert says in str(raised.value)


def test_one_optimizer_and_one_copy_need_no_list():
    model, ema = chain(), chain(seed=1)  # nn.Sequential is iterable itself
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(image()).sum().backward()
    optimizer.step()
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"), optimizers=optimizer, copies=ema)
    assert ema[0].out_channels == model[0].out_channels == 4
    assert optimizer.state[model[0].weight]["momentum_buffer"].shape == model[0].weight.shape


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"optimizers": 3}, "optimizers holds int; pass objects of torch.optim.optimizer.Optimizer"),
        ({"optimizers": ["sgd"]}, "optimizers holds 'sgd'"),
        ({"copies": {"0.weight": 1}}, "copies holds '0.weight'"),
        ({"copies": [Residual]}, "copies holds the class Residual"),
        ({"copies": None}, "copies holds NoneType"),
    ],
)
def test_what_cannot_follow_the_cut_is_refused_before_any_work(given, says):
    graph = cutback.trace(residual(), image())
    plan = cutback.plan(graph, budget="channels=50%")
    before = snapshot(graph.model)
    with pytest.raises(UserMistake) as raised:
        cutback.apply_(graph, plan, **given)
    assert says in str(raised.value)
    assert snapshot(graph.model) == before


def test_applying_needs_a_graph_and_a_plan():
    graph = cutback.trace(residual(), image())
    plan = cutback.plan(graph, budget="channels=50%")
    with pytest.raises(UserMistake, match=r"expected a graph, not Residual; pass what cutback\.trace"):
        cutback.apply_(graph.model, plan)
    with pytest.raises(UserMistake, match="expected a plan, not 'macs=50%'"):
        cutback.apply_(graph, "macs=50%")


@pytest.mark.parametrize("given", [8, {"batch": 1}])
def test_what_latency_refers_to_is_a_setting(given):
    graph = cutback.trace(residual(), image())
    with pytest.raises(UserMistake, match=r"expected a latency setting, not .*LatencySetting\(batch=1\)"):
        cutback.plan(graph, budget="latency=50%", latency=given)


def test_loading_needs_a_function(tmp_path):
    for build in (residual(), "resnet18"):
        with pytest.raises(UserMistake, match="pass a function that returns a fresh model"):
            cutback.load(tmp_path, build)


def test_the_silenced_original_computes_the_same():
    """The proof, once more by hand: zero the removed columns of every consumer and compare the outputs."""
    model = residual().eval()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    silenced = copy.deepcopy(model)
    stem, inner = (plan.slices[name][1].indices for name in ("inner.weight", "outer.weight"))
    with torch.no_grad():
        for layer, kept in ((silenced.inner, stem), (silenced.head, stem), (silenced.outer, inner)):
            removed = [column for column in range(layer.weight.shape[1]) if column not in kept]
            layer.weight[:, removed] = 0
    cutback.apply_(graph, plan)
    torch.testing.assert_close(model(image()), silenced(image()), rtol=1e-5, atol=1e-6)


def random_states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


class Noisy(nn.Module):
    """Draws from every random generator, and may fail after that."""

    def __init__(self, *, fails):
        super().__init__()
        self.body, self.norm, self.head, self.fails = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1), fails

    def forward(self, images):
        random.random()
        np.random.rand(3)  # noqa: NPY002
        features = nn.functional.dropout(self.norm(self.body(images)), 0.5, self.training)
        self.last = features
        if self.fails:
            raise RuntimeError("on purpose")
        return self.head(features) + 0 * torch.rand(1)


@pytest.mark.parametrize("fails", [False, True])
def test_tracing_leaves_everything_as_it_was(fails):
    model = Noisy(fails=fails)
    model.train()
    model.norm.eval()  # a mode of its own for one module
    model.body.weight.grad = torch.ones_like(model.body.weight)
    model.head.register_forward_hook(lambda *_: None)
    before, states, grad = snapshot(model), random_states(), torch.is_grad_enabled()
    if fails:
        with pytest.raises(CaptureError, match="on purpose"):
            cutback.trace(model, image())
    else:
        assert [group.name for group in cutback.trace(model, image()).groups] == ["body"]
    assert snapshot(model) == before
    assert not hasattr(model, "last")
    assert random_states() == states
    assert torch.is_grad_enabled() == grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_gradient_mode_around_the_verbs_will_do(context):
    model = residual()
    with context():
        graph = cutback.trace(model, image())
        plan = cutback.plan(graph, budget="channels=50%")
        cutback.apply_(graph, plan)
    model(image()).sum().backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())


class TwoInputs(nn.Module):
    """Takes two tensors and a flag."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, left, right, *, double=False):
        features = self.left(left) + self.right(right)
        return self.head(features * 2 if double else features)


@pytest.mark.parametrize(
    "inputs",
    [
        (image(0), image(1)),
        [image(0), image(1)],
        {"left": image(0), "right": image(1)},
        {"right": image(1), "left": image(0), "double": True},
        (image(0), image(1).double().float()),
    ],
)
def test_inputs_in_any_form(inputs):
    small = cutback.prune(randomised(TwoInputs()), inputs, channels=0.5)
    assert (small.left.out_channels, small.right.out_channels, small.head.in_channels) == (4, 4, 4)


def test_a_batch_of_one_and_a_lone_tensor_in_a_tuple():
    for inputs in (image(shape=(1, 3, 8, 8)), (image(shape=(1, 3, 8, 8)),)):
        assert cutback.prune(residual(), inputs, channels=0.5).inner.out_channels == 5


@dataclasses.dataclass
class Found:
    """A dataclass of outputs."""

    logits: torch.Tensor
    more: dict


class Pair(NamedTuple):
    """A named tuple of outputs."""

    first: torch.Tensor
    second: object


NESTS = {
    "dict": lambda a, b: {"a": a, "b": b},
    "tuple": lambda a, b: (a, b),
    "nest": lambda a, b: [(a, None), {"b": [b, 3]}],
    "dataclass": lambda a, b: Found(a, {"b": b, "name": "cat"}),
    "named tuple": lambda a, b: Pair(a, (b,)),
}


class Returns(nn.Module):
    """Returns the result of its head and its inner features, in any nest."""

    def __init__(self, nest):
        super().__init__()
        self.stem, self.side, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)
        self.nest = nest

    def forward(self, images):
        stem = self.stem(images)
        return NESTS[self.nest](self.head(self.side(stem).relu()), stem)


@pytest.mark.parametrize("nest", NESTS)
def test_outputs_in_any_nest_stay_whole(nest):
    graph = cutback.trace(randomised(Returns(nest)), image())
    assert [group.name for group in graph.groups] == ["side"]
    assert "stem" in {layer.layer for layer in graph.kept}
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    assert graph.model.side.out_channels == 3
    assert type(graph.model(image())) is type(NESTS[nest](1, 2))


def test_a_hook_of_the_users_still_fires_and_is_not_duplicated():
    model = chain()
    calls = []
    handle = model[0].register_forward_hook(lambda _module, _inputs, output: calls.append(tuple(output.shape)))
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    calls.clear()
    model(image())
    assert calls == [(2, 4, 8, 8)]
    handle.remove()
    model(image())
    assert len(calls) == 1


def test_a_hook_that_changes_the_output_is_part_of_the_network():
    model = chain()
    model[0].register_forward_hook(lambda _module, _inputs, output: output * 2)
    expected = model.eval()(image())
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, keep={"3": 11}))
    assert (model(image()) - expected).abs().max() < expected.abs().max()


def test_the_table_shows_groups_and_what_stays():
    text = str(cutback.trace(residual(), image()))
    assert text.splitlines()[1].split() == ["stem", "8", "stem,", "outer,", "depthwise"]
    assert any(line.startswith("head") and "network's output" in line for line in text.splitlines())


def test_everything_public_is_there_and_documented():
    for name in cutback.__all__:
        found = getattr(cutback, name)
        assert isinstance(found, types.ModuleType) or found.__doc__
