"""The whole method: what stays, what it refuses, what it costs and what it tells."""

import json

import pytest
import torch
from torch import nn

import cutback
from cutback import scores
from cutback.errors import BudgetUnreachable, InvalidBudget, InvalidScore, NothingToPrune, UserMistake
from cutback.methods import SNPFI
from cutback.methods.snpfi.forecast import coalitions_of, macs_from
from tests.helpers import chain, image, residual
from tests.methods.snpfi.networks import LABELS, PICTURES, A, B, C, D, E, F, planted

IMAGES = image(2, (12, 3, 8, 8))
CLASSES = torch.arange(12) % 4
LOADER = [(IMAGES[:7], CLASSES[:7]), (IMAGES[7:], CLASSES[7:])]
QUICK = {"loader": LOADER, "images": 12, "triples": 4}


def kept(plan, name: str) -> set[int]:
    return set(next(group.kept for group in plan.groups if group.name == name))


def test_it_keeps_what_other_scores_lose_in_the_planted_game() -> None:
    loader = [(PICTURES, LABELS)]
    graph = cutback.trace(planted(), PICTURES[:1])
    for score, wrong in (
        (scores.Taylor(loader, nn.functional.cross_entropy), {A, B, E}),
        (scores.L1(), {C, D, F}),
    ):
        assert kept(cutback.plan(graph, score=score, budget="macs=60%", ignore=["2"]), "0") == wrong
    model = planted()
    graph = cutback.trace(model, PICTURES[:1])
    with SNPFI(graph, budget="macs=60%", loader=loader, worth="log-odds", ignore="2") as method:
        pass
    found = kept(method.plan(), "0")
    assert {A, B} < found
    assert len(found & {C, D}) == 1
    told = method.findings()["groups"]["0"]
    shapley = sorted(range(6), key=lambda unit: -told["shapley"][unit])[:3]
    assert set(shapley) == {A, B, E}, "one ranking for all loses both of the redundant pair"


def test_useless_filters_go_first_and_the_widths_come_by_themselves() -> None:
    model = chain((8, 6))
    with torch.no_grad():
        model[3].weight[:, [1, 4, 6]] = 0.0
    with SNPFI(cutback.trace(model, IMAGES[:2]), epsilon=0.001, ignore="3", **QUICK) as method:
        pass
    found = method.findings()["groups"]["0"]
    assert set(found["order"][:3]) == {1, 4, 6}
    assert found["strength"][5] == pytest.approx(1.0, abs=1e-5)
    assert kept(method.plan(), "0") <= {0, 2, 3, 5, 7}


def test_one_threshold_for_all_layers_meets_the_budget() -> None:
    method = SNPFI(cutback.trace(chain((8, 10)), IMAGES[:2]), budget="macs=50%", recover=False, **QUICK)
    with method:
        pass
    plan = method.plan()
    assert plan.costs["macs"].after <= plan.costs["macs"].before / 2
    for group in plan.groups:
        order = method.eliminations[group.name].order
        assert set(group.kept) == set(order[group.total - len(group.kept) :])


def test_streams_stay_unless_they_are_asked_for() -> None:
    with SNPFI(cutback.trace(residual(), IMAGES[:2]), budget="macs=60%", block=5, recover=False, **QUICK) as method:
        pass
    assert [len(group.kept) for group in method.plan().groups if group.name == "stem"] == [8]
    both = SNPFI(cutback.trace(residual(), IMAGES[:2]), budget="macs=60%", streams=True, block=4, **QUICK)
    assert set(both.play()) == {"stem", "inner"}


def test_the_model_keeps_mode_and_random_state_and_copes_with_signed_ranks() -> None:
    model = chain((6, 5)).train()
    state = torch.get_rng_state()
    with SNPFI(cutback.trace(model, IMAGES[:2]), budget="macs=60%", rank="signed", **QUICK) as method:
        assert method.finished
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_cost_is_told_before_and_not_exceeded() -> None:
    model = chain((9, 7))
    method = SNPFI(cutback.trace(model, IMAGES[:2]), budget="macs=50%", rows=12, recover=False, **QUICK)
    told = method.forecast()
    assert model[0].out_channels == 9
    by_hand = sum(4 * m for m in range(1, 9)) + 10 + sum(4 * m for m in range(1, 7)) + 8
    assert told["coalitions"] == by_hand == sum(coalitions_of(units, 2, None, 0) for units in (9, 7))
    assert told["passes"] == 12 * by_hand
    with method:
        pass
    assert told["passes"] / 2 <= method.findings()["passes"] <= told["passes"], "some coalitions come twice"


def test_macs_are_those_from_the_consuming_layer_on() -> None:
    graph = cutback.trace(chain((9, 7)), IMAGES[:2])
    head, second, first = 7 * 4, 9 * 7 * 9 * 64, 3 * 9 * 9 * 64
    assert macs_from(graph, "3") == head
    assert macs_from(graph, "0") == head + second
    method = SNPFI(graph, budget="macs=50%", recover=False, **QUICK)
    per = {name: coalitions_of(units, 2, None, 0) for name, units in (("0", 9), ("3", 7))}
    expected = per["0"] * (head + second) + per["3"] * head + head + second + first
    assert method.forecast()["macs"] == 12 * expected


def test_findings_are_json_with_an_error_for_each_sampled_figure() -> None:
    method = SNPFI(
        cutback.trace(chain((6, 5)), IMAGES[:2]), budget="macs=60%", evaluate=lambda net: float(net.training), **QUICK
    )
    with method:
        pass
    told = json.loads(json.dumps(method.findings()))
    assert {told[f"figure_{when}"] for when in ("dense", "cut", "recovered")} == {0.0}
    for name, units in (("0", 6), ("3", 5)):
        for figure in ("importance", "shapley", "marginal"):
            assert len(told["groups"][name][figure]) == len(told["groups"][name][f"{figure}_error"]) == units
        assert {"mean", "error"} <= told["interaction_difference"][name]["before"].keys()
    assert told["images"] == 12


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({}, InvalidBudget, "either a budget"),
        ({"budget": "macs=50%", "epsilon": 0.1}, InvalidBudget, "either a budget"),
        ({"budget": "macs=50%", "samples": 1}, UserMistake, "samples=1"),
        ({"budget": "macs=50%", "worth": "loss"}, UserMistake, "worth='loss'"),
        ({"budget": "macs=50%", "rho": 2.0}, UserMistake, "rho=2.0"),
        ({"epsilon": 1.5}, UserMistake, "epsilon=1.5"),
        ({"budget": "macs=50%", "ignore": "0,3"}, NothingToPrune, "may remove no filter"),
        ({"budget": "macs=1%"}, BudgetUnreachable, "lowest reachable"),
        ({"budget": "macs=50%", "loader": []}, UserMistake, "no batch"),
        ({"budget": "macs=50%", "loader": [(IMAGES, None)]}, UserMistake, "true class"),
        ({"budget": "macs=50%", "loader": [(IMAGES, torch.rand(12))]}, UserMistake, "true class"),
        ({"epsilon": 0.0, "max_removed": 0.01}, NothingToPrune, "write a larger one"),
    ],
)
def test_what_it_refuses(settings, kind, message) -> None:
    model = chain((6, 5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = cutback.trace(model, IMAGES[:2])
    with pytest.raises(kind, match=message), SNPFI(graph, **{**QUICK, **settings}):
        pass
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_no_classification_and_what_is_not_finite_are_refused() -> None:
    model = chain((6, 5))
    maps = nn.Sequential(model[:3], nn.Conv2d(6, 2, 1))
    with (
        pytest.raises(UserMistake, match="no classification"),
        SNPFI(cutback.trace(maps, IMAGES[:2]), budget="macs=50%", **QUICK),
    ):
        pass
    with torch.no_grad():
        model[8].bias.fill_(float("nan"))
    with (
        pytest.raises(InvalidScore, match=r"NaN"),
        SNPFI(
            cutback.trace(chain((6, 5)), IMAGES[:2]), budget="macs=50%", **{**QUICK, "loader": [(IMAGES / 0, CLASSES)]}
        ),
    ):
        pass


def test_pictures_are_balanced_over_classes() -> None:
    many = torch.tensor([0] * 8 + [1, 2, 3, 3])
    method = SNPFI(
        cutback.trace(chain((6, 5)), IMAGES[:2]), budget="macs=50%", loader=[(IMAGES, many)], images=8, recover=False
    )
    with method:
        pass
    assert method.findings()["images"] == 2 + 1 + 1 + 2
