"""The sensitivity scan beside a naive loop, in one process and in several, interrupted and gone on with."""

import copy
import json

import pytest
import torch
from torch import Tensor, nn

import cutback
from cutback.errors import UserMistake
from cutback.trials.sensitivity import sensitivity as scan
from tests.helpers import Residual, chain, image

RATIOS = (0.25, 0.5, 0.9)


def agreement(model: nn.Module) -> float:
    """How many of sixteen pictures fall into the class that a fixed rule of theirs names."""
    assert not model.training
    images = image(seed=7, shape=(16, 3, 8, 8))
    with torch.no_grad():
        return float((model(images).argmax(1) == images.mean((1, 2, 3)).mul(100).long().remainder(4)).double().mean())


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def naive_chain(model: nn.Sequential, layer: int, following: int, ratio: float) -> float:
    """Prune one convolution of a chain by hand."""
    pruned = copy.deepcopy(model)
    convolution, norm, consumer = pruned[layer], pruned[layer + 1], pruned[following]
    norms = convolution.weight.detach().abs().flatten(1).sum(1).tolist()
    keep = max(int(len(norms) * (100 - round(100 * ratio)) // 100), 1)
    kept = sorted(sorted(range(len(norms)), key=lambda unit: -norms[unit])[:keep])
    for owner, names in ((convolution, ("weight", "bias")), (norm, ("weight", "bias"))):
        for name in names:
            setattr(owner, name, nn.Parameter(getattr(owner, name)[kept]))
    norm.running_mean, norm.running_var = norm.running_mean[kept], norm.running_var[kept]
    consumer.weight = nn.Parameter(consumer.weight[:, kept])
    return agreement(pruned.eval())


def test_it_is_what_a_naive_loop_finds_and_leaves_the_model_alone() -> None:
    model = chain((8, 12))
    before, graph = state_of(model), cutback.trace(model, image())
    found = scan(graph, agreement, ratios=RATIOS)
    assert found.dense == agreement(copy.deepcopy(model).eval())
    assert found.score == "l1"
    naive = {
        name: {ratio: naive_chain(model, int(name), following, ratio) for ratio in RATIOS}
        for name, following in (("0", 3), ("3", 8))
    }
    assert {group: dict(curve) for group, curve in found.curves.items()} == naive
    assert len({accuracy for curve in naive.values() for accuracy in curve.values()}) > 1
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_processes_find_the_same() -> None:
    graph = cutback.trace(Residual(), image())
    offset = 0.001  # a closure: forked processes need nothing sent

    def evaluate(model: nn.Module) -> float:
        return agreement(model) * (1 - offset)

    told = []
    one = scan(graph, evaluate, ratios=RATIOS)
    two = scan(graph, evaluate, ratios=RATIOS, processes=2, told=lambda *progress: told.append(progress))
    assert two == one
    assert [done for done, _, _ in told] == list(range(1, len(told) + 1))


def test_an_interrupted_scan_goes_on_and_a_finished_one_evaluates_nothing(tmp_path) -> None:
    graph = cutback.trace(chain((8, 12)), image())
    calls = []

    def evaluate(model: nn.Module) -> float:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(model)
        return agreement(model)

    with pytest.raises(KeyboardInterrupt):
        scan(graph, evaluate, ratios=RATIOS, cache=tmp_path)
    rest = []
    found = scan(graph, lambda model: rest.append(model) or agreement(model), ratios=RATIOS, cache=tmp_path)
    assert (len(calls), len(rest)) == (3, 1 + 2 * 3 - 3)
    assert found == scan(graph, agreement, ratios=RATIOS)

    def never(model: nn.Module) -> float:
        raise AssertionError("evaluated again")

    assert scan(graph, never, ratios=RATIOS, cache=tmp_path) == found
    assert scan(graph, never, ratios=RATIOS[:1], cache=tmp_path).curves["0"] == {0.25: found.curves["0"][0.25]}


def test_other_weights_data_and_damage_are_told_apart(tmp_path) -> None:
    graph = cutback.trace(chain((4,)), image())
    counts = []
    for traced, label in ((graph, "a"), (graph, "b"), (cutback.trace(chain((4,), seed=1), image()), "a")):
        calls = []
        scan(traced, lambda model, c=calls: c.append(model) or 0.5, ratios=(0.5,), cache=tmp_path, label=label)
        counts.append(len(calls))
    assert counts == [2, 2, 2]
    assert len(list(tmp_path.iterdir())) == 3
    for file in tmp_path.iterdir():
        file.write_text(json.dumps({"key": "no number"}))
    calls = []
    scan(graph, lambda model: calls.append(model) or 0.5, ratios=(0.5,), cache=tmp_path, label="a")
    assert len(calls) == 2


def test_another_forward_pass_over_the_same_weights_is_told_apart(tmp_path) -> None:
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.factor, self.chain = factor, chain((4,))

        def forward(self, images: Tensor) -> Tensor:
            return self.chain(images * self.factor)

    calls = []
    for factor in (1.5, 2.5, 1.5):
        graph = cutback.trace(Scaled(factor), image())
        scan(graph, lambda model: calls.append(model.factor) or 0.5, ratios=(0.5,), cache=tmp_path)
    assert calls == [1.5, 1.5, 2.5, 2.5]


def test_two_scans_of_one_model_keep_what_the_other_found(tmp_path) -> None:
    graph = cutback.trace(chain((4,)), image())
    calls: list[nn.Module] = []

    def meanwhile(model: nn.Module) -> float:
        if not calls:
            calls.append(model)
            scan(graph, lambda _: 0.5, ratios=(0.25,), cache=tmp_path)
        return 0.5

    scan(graph, meanwhile, ratios=(0.75,), cache=tmp_path)
    rest: list[nn.Module] = []
    scan(graph, lambda model: rest.append(model) or 0.5, ratios=(0.25, 0.75), cache=tmp_path)
    assert not rest
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ratios": ()}, "between 0 and 1"), ({"ratios": (1.0,)}, "between 0 and 1"), ({"processes": 0}, "1 process")],
)
def test_senseless_requests_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        scan(cutback.trace(chain((4,)), image()), agreement, **options)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_no_accuracy_is_refused(processes: int) -> None:
    with pytest.raises(UserMistake, match=r"in 0\.\.1"):
        scan(cutback.trace(chain((4,)), image()), lambda model: 93.0, processes=processes)


def test_an_error_of_the_function_in_a_process_is_told() -> None:
    def fails(model: nn.Module) -> float:
        raise ZeroDivisionError("no pictures")

    with pytest.raises(UserMistake, match="ZeroDivisionError: no pictures"):
        scan(cutback.trace(chain((4,)), image()), fails, processes=2)


class Balanced(nn.Module):
    """A grouped convolution: what goes must leave its groups equally wide."""

    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.grouped(self.first(images).relu()).relu()).mean((2, 3))


def test_balanced_groups_are_scanned_with_balanced_cuts() -> None:
    graph = cutback.trace(Balanced(), image())
    widths = []

    def evaluate(model: nn.Module) -> float:
        widths.append((model.first.out_channels, model.grouped.out_channels))
        return agreement(model)

    found = scan(graph, evaluate, ratios=(0.5,))
    assert set(found.curves) == {"first", "grouped"}
    assert set(widths) == {(8, 8), (4, 8), (8, 4)}


def test_where_a_balance_permits_none_of_the_ratios_its_lowest_width_is_scanned() -> None:
    graph = cutback.trace(Balanced(groups=4), image())
    widths = []

    def evaluate(model: nn.Module) -> float:
        widths.append((model.first.out_channels, model.grouped.out_channels))
        return agreement(model)

    found = scan(graph, evaluate, ratios=(0.9,))
    assert {group: set(curve) for group, curve in found.curves.items()} == {"first": {0.5}, "grouped": {0.5}}
    assert widths == [(8, 8), (4, 8), (8, 4)]
    plan = cutback.plan(graph, budget="macs=70%", allocate=found)
    assert any(len(group.kept) < group.total for group in plan.groups)
