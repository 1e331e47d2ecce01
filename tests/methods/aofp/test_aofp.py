"""When filters are tried, when they go, and where it ends."""

import json
import re
from importlib import resources

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

import cutback
from cutback.errors import (
    ArchitectureMismatch,
    BudgetUnreachable,
    InvalidBudget,
    InvalidScore,
    NothingToPrune,
    UserMistake,
)
from cutback.measure import macs
from cutback.methods import AOFP
from tests.helpers import chain, image, residual

PICTURES, CLASSES = image(5, (12, 3, 8, 8)), torch.arange(12) % 4


def method_of(build=lambda: chain((8, 6)), **settings):
    model = build().train()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    graph = cutback.trace(model, PICTURES[:2])
    return AOFP(graph, **{"optimizers": optimizer, "half": 3, "warm_up": 2, "threshold": 1e-9, **settings})


def step(method):
    optimizer = method.optimizers[0]
    optimizer.zero_grad()
    cross_entropy(method.graph.model(PICTURES), CLASSES).backward()
    method.after_backward()
    method.before_step()
    optimizer.step()
    return method.after_step()


def test_every_half_has_so_many_iterations_after_a_staggered_start():
    # Convolutions 0 and 1 of two that are searched: the second begins half // 2 iterations later.
    with method_of(half=4, steps=30) as method:
        ends = {"0": [], "3": []}
        for number in range(30):
            step(method)
            for decision in method.history[sum(map(len, ends.values())) :]:
                assert decision["iteration"] == number
                ends[decision["layer"]].append(number)
    assert ends["0"][:3] == [5, 9, 13]
    assert ends["3"][:3] == [7, 11, 15]
    sizes = [(d["searched"], len(d["picked"]), d["action"]) for d in method.history if d["layer"] == "0"]
    assert sizes[:4] == [(8, 4, "halve"), (4, 2, "halve"), (2, 1, "restart"), (8, 4, "halve")]
    assert method.finished
    assert method.plan() is None, "nothing was harmless"
    assert method.widths() == {"0": 8, "3": 6}


def test_the_damage_of_a_step_is_counted_to_the_filters_that_were_out():
    with method_of(half=50, warm_up=0, steps=60) as method:
        search = method._searches["0"]
        out, model = torch.from_numpy(search.out.copy()), method.graph.model
        assert int(out.sum()) == 4
        with torch.no_grad():
            conv, norm, *_ = model[:2]
            x = conv(PICTURES)
            x = torch.relu(nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps))
            raw, lost = model[3](x), model[3](x * (~out).view(-1, 1, 1))
            mean, variance = raw.mean((0, 2, 3), keepdim=True), raw.var((0, 2, 3), keepdim=True, correction=0)
            scale, shift = model[4].weight.view(-1, 1, 1), model[4].bias.view(-1, 1, 1)
            whole, without = (
                torch.relu((y - mean) / (variance + model[4].eps).sqrt() * scale + shift) for y in (raw, lost)
            )
        step(method)
        expected = float((whole - without).square().sum() / whole.square().sum())
        assert search.damage.tolist() == pytest.approx([expected if k else 0 for k in out.tolist()], rel=1e-5)
        assert search.drawn.tolist() == out.int().tolist()


def test_passes_in_eval_mode_do_not_count():
    with method_of(half=50, warm_up=0, steps=60) as method:
        model = method.graph.model.eval()
        model(PICTURES)
        assert method._damages.take() == {"0": None, "3": None}
        model.train()
        step(method)
        assert method._searches["0"].done == 1


def test_without_a_budget_it_ends_after_its_steps_with_the_widths_it_found():
    method = method_of(threshold=1e9, steps=20)
    model = method.graph.model
    with method:
        cuts = [step(method) for _ in range(20)]
        assert method.finished
    assert any(cuts)
    assert method.widths() == {"0": model[0].out_channels, "3": model[3].out_channels}
    assert method.widths() == {group.name: len(group.kept) for group in method.plan().groups}
    assert min(method.widths().values()) == 1, "down to a single filter, which is left alone"
    assert method.plan().budgets == ()
    assert method.history[-1]["macs"] == macs(model, PICTURES[:1]) / method.plan().costs["macs"].before
    assert sum(decision["gone"] for decision in method.history) == 8 + 6 - sum(method.widths().values())


def test_the_move_that_meets_the_budget_takes_no_more_filters_than_it_must():
    method = method_of(lambda: chain((16, 12)), threshold=1e9, budget="macs=90%")
    with method:
        while not method.finished:
            step(method)
    last, costs = method.history[-1], method.plan().costs["macs"]
    assert 0 < last["gone"] < len(last["picked"]), "the lowest damage first"
    assert costs.after <= 0.9 * costs.before
    width, other = last["width"], "3" if last["layer"] == "0" else "0"
    kept = {last["layer"]: width + 1, other: method.widths()[other]}
    assert macs(chain((kept["0"], kept["3"])), PICTURES[:1]) > 0.9 * costs.before
    assert method.plan().budgets == ("macs=90%",)
    group = next(group for group in method.plan().groups if group.name == last["layer"])
    if len(method.history) == 1:
        assert set(range(group.total)) - set(group.kept) == set(last["picked"][: last["gone"]])


def test_a_threshold_in_between_takes_fewer_than_a_high_one():
    found = {}
    for threshold in (1e-9, 0.3, 1e9):
        with method_of(lambda: chain((16, 12)), threshold=threshold, steps=30, half=8, warm_up=0) as method:
            while not method.finished:
                step(method)
        found[threshold] = sum(method.widths().values())
        for decision in method.history:
            below = decision["worst"] is not None and decision["worst"] < threshold
            assert below == (decision["action"] == "prune")
    assert found[1e9] < found[0.3] < found[1e-9] == 28


def test_planted_dead_filters_are_found_in_the_full_loop():
    def planted():
        model = chain((8, 6))
        with torch.no_grad():
            model[1].weight[[1, 4, 6]], model[1].bias[[1, 4, 6]] = 0, -1
        return model

    method = method_of(planted, threshold=1e-12, half=15, warm_up=0, steps=600)
    with method:
        while not method.finished and method.widths()["0"] > 5:
            step(method)
    group = next(group for group in method.plan().groups if group.name == "0")
    assert set(range(8)) - set(group.kept) == {1, 4, 6}, "these, and no others"
    assert method.widths()["3"] == 6


def test_a_cut_in_one_layer_leaves_the_search_of_another_as_it_is():
    method = method_of(threshold=1e9, steps=60, half=6, warm_up=0)
    with method:
        while not method.history:
            step(method)
        assert method.history[0]["layer"] == "0"
        search = method._searches["3"]
        assert search.done == 3
        assert int(search.drawn.sum()) == 3 * 3
        assert method.graph.model[0].out_channels == 4
        assert method._searches["0"].done == 0
        step(method)
        assert search.done == 4


def test_of_a_residual_network_the_inner_layer_alone_gets_narrower():
    method = method_of(residual, threshold=1e9, steps=12)
    with method:
        while not method.finished:
            step(method)
    assert set(method.widths()) == {"inner"}
    assert {g.name: len(g.kept) == g.total for g in method.plan().groups} == {"stem": True, "inner": False}


def test_it_tells_a_log_the_widths_and_what_the_search_has_cost():
    with method_of(threshold=1e9, steps=10, warm_up=0) as method:
        assert method.records() == {
            "decisions": 0, "gone": 0, "scoring_macs": 0, "width of 0": 8, "width of 3": 6
        }  # fmt: skip
        step(method)
        # The second convolution once more, for each picture; the search of the second layer has not begun.
        assert method.records()["scoring_macs"] == 12 * 6 * 8 * 9 * 64
        while not method.finished:
            step(method)
    told = method.records()
    assert told["gone"] == sum(decision["gone"] for decision in method.history) > 0
    assert told["width of 0"] == method.widths()["0"]
    assert told["history"] == method.history, "once, at the end"
    assert json.loads(json.dumps(told)) == told


def test_the_random_halves_depend_on_the_seed_alone():
    found = []
    for seed, noise in ((0, 0), (0, 1), (1, 0)):
        torch.manual_seed(noise)
        with method_of(seed=seed, warm_up=0, steps=5) as method:
            found.append(method._searches["0"].out.tolist())
            step(method)
            found.append(method._searches["0"].out.tolist())
    assert found[:2] == found[2:4]
    assert found[:2] != found[4:]


def test_numbers_that_are_not_finite_are_named():
    with method_of(warm_up=0, steps=5) as method:
        method._damages._sums.fill_(float("nan"))
        with pytest.raises(InvalidScore, match="layer after 0 returns is not finite"):
            step(method)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({}, UserMistake, "nothing says when aofp is to end"),
        ({"budget": "channels=50%"}, InvalidBudget, "itself finds how many"),
        ({"steps": 4}, UserMistake, "end before aofp decides anything"),
        ({"steps": 0}, UserMistake, "steps=0"),
        ({"steps": 50, "half": 0}, UserMistake, "half=0"),
        ({"steps": 50, "half": True}, UserMistake, "half=True"),
        ({"steps": 50, "warm_up": -1}, UserMistake, "warm_up=-1"),
        ({"steps": 50, "threshold": 0.0}, UserMistake, r"threshold=0\.0"),
        ({"steps": 50, "threshold": float("nan")}, UserMistake, "threshold=nan"),
    ],
)
def test_bad_settings_are_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        method_of(**settings)


def test_what_cannot_be_done_is_refused_before_any_step():
    for settings, kind, message in (
        ({"budget": "macs=0.1%"}, BudgetUnreachable, "lowest reachable"),
        ({"budget": "macs=50%", "ignore": "0, 3"}, NothingToPrune, "ignore names it"),
    ):
        method = method_of(**settings)
        with pytest.raises(kind, match=message), method:
            pass
        assert "forward" not in vars(method.graph.model)


def test_a_state_of_other_layers_is_refused():
    with method_of(steps=50) as method:
        state = method.state_dict()
    other = method_of(lambda: chain((8, 7)), steps=50)
    other.load_state_dict(state)
    with pytest.raises(ArchitectureMismatch, match="6 filters in 3"), other:
        pass


def test_the_page_runs_as_it_stands(capsys):
    page = resources.files("cutback.methods.aofp").joinpath("README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    found = {}
    exec(compile(example, "README.md", "exec"), found)  # noqa: S102
    assert str(found["method"].widths()) in capsys.readouterr().out
    assert not found["optimizer"].state
