"""The method against what its paper says, worked out by hand or by loops written here."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import cutback
from cutback.errors import BudgetUnreachable, InvalidBudget, NothingToPrune, UnknownName, UserMistake
from cutback.graph.graph import Graph
from cutback.methods import L1
from cutback.models import build
from tests.helpers import chain, image, randomised, residual
from tests.scores.networks import Batches, grouped, projected, traced

RATIOS = "0=50%, 3=50%"


def kept(method: L1) -> dict[str, tuple[int, ...]]:
    return {group.name: group.kept for group in method.target().groups}


def widths(method: L1) -> dict[str, int]:
    return {name: len(units) for name, units in kept(method).items()}


def graph_of(model: nn.Module, inputs: Tensor | None = None) -> Graph:
    return cutback.trace(model, image() if inputs is None else inputs)


def test_the_filters_of_largest_sum_of_absolute_weights_stay():
    model = chain((8, 12))
    found = kept(L1(graph_of(model), ratios={"0": 0.5, "3": "25%"}))
    for path, stays in (("0", 4), ("3", 9)):
        weight = model.get_submodule(path).weight.tolist()
        norms = [sum(abs(w) for plane in row for line in plane for w in line) for row in weight]
        best = sorted(range(len(norms)), key=lambda unit: (-norms[unit], unit))[:stays]
        assert found[path] == tuple(sorted(best))


def test_bias_and_batch_norm_do_not_enter():
    model = chain((8, 12))
    before = kept(L1(graph_of(model), ratios=RATIOS))
    with torch.no_grad():
        for path in ("0", "1", "3", "4"):
            model.get_submodule(path).bias.copy_(torch.randn_like(model.get_submodule(path).bias) * 9)
        model.get_submodule("1").weight.copy_(torch.rand(8) * 9)
    assert kept(L1(graph_of(model), ratios=RATIOS)) == before


@pytest.mark.parametrize(
    ("units", "ratio", "stays"),
    [(10, 0.9, 1), (10, 0.7, 3), (10, "30%", 7), (16, "10%", 14), (3, 0.5, 1), (2, "99%", 1), (7, "0.1", 6)],
)
def test_whole_numbers_are_rounded_down_exactly(units, ratio, stays):
    """In binary 10 (1 - 0.9) is 0.999..., which would leave nothing."""
    assert widths(L1(graph_of(chain((units, 4))), ratios={"0": ratio}))["0"] == stays


class Planted(nn.Module):
    """Greedy selection by hand: rows [10, 1], [2, 3] and [0.5, 4] after a layer that loses its first filter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 3, 1, bias=False)
        self.last = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
            self.second.weight.copy_(torch.tensor([[10.0, 1.0], [2.0, 3.0], [0.5, 4.0]]).view(3, 2, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.second(self.first(images).relu()).relu()).mean((2, 3))


@pytest.mark.parametrize(("select", "second"), [("independent", (0, 1)), ("greedy", (1, 2))])
def test_greedy_selection_does_not_count_inputs_that_are_gone(select, second):
    graph = graph_of(Planted(), image(shape=(2, 1, 4, 4)))
    assert kept(L1(graph, ratios="first=50%, second=30%", select=select)) == {"first": (1,), "second": second}


@pytest.mark.parametrize("guided", [False, True])
def test_greedy_selection_does_so_within_a_budget_too(guided):
    graph = graph_of(Planted(), image(shape=(2, 1, 4, 4)))
    scan = {"allocate": "sensitivity", "tolerance": 0.9, "evaluate": lambda _: 0.9} if guided else {}
    method = L1(graph, budget="macs=50%", select="greedy", **scan)
    assert kept(method) == {"first": (1,), "second": (1, 2)}


def test_the_projection_leads_the_stream_whatever_the_blocks_weigh():
    model = projected()
    with torch.no_grad():  # by the residual layers the first four stay, by the projection the last four
        for weight in (model.outer.weight, model.second.weight):
            weight.copy_(weight.sign() * torch.arange(8.0, 0.0, -1.0).view(8, 1, 1, 1))
        model.projection.weight.copy_(torch.arange(1.0, 9.0).view(8, 1, 1, 1).expand(8, 6, 1, 1))
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin = projected()
    twin.load_state_dict(whole)
    with L1(graph_of(model), ratios="projection=50%") as method:
        assert method.finished
    assert {group.name: group.kept for group in method.plan().groups}["outer"] == (4, 5, 6, 7)
    assert model.projection.weight.shape == (4, 6, 1, 1)
    assert model.head.in_features == 4
    # The same network with the other channels multiplied by zero after each norm computes the same.
    mask = torch.tensor([0.0] * 4 + [1.0] * 4).view(1, 8, 1, 1)
    for norm in (twin.outer_norm, twin.projection_norm, twin.second_norm):
        norm.register_forward_hook(lambda _module, _inputs, output: output * mask)
    pictures = image(5)
    torch.testing.assert_close(model.eval()(pictures), twin.eval()(pictures), rtol=1e-5, atol=1e-5)
    alike = L1(graph_of(projected()), ratios="projection=50%", coupled="sum")
    assert kept(alike)["outer"] != (4, 5, 6, 7)


@pytest.mark.parametrize("coupled", ["sum", "mean", "max"])
def test_other_ways_to_rank_a_stream_are_options(coupled):
    graph = traced("residual")
    expected = cutback.plan(graph, score=f"l1:{coupled}", keep={"stem": "50%"}).slices
    assert L1(graph, ratios="stem=50%", coupled=coupled).target().slices == expected


def test_streams_without_a_projection_stay_whole():
    """Padded shortcuts: the first convolution of each block is all there is to prune."""
    graph = cutback.trace(build("resnet20"), torch.zeros(1, 3, 32, 32))
    plan = L1(graph, budget="macs=60%").target()
    cut = {group.name for group in plan.groups if len(group.kept) < group.total}
    assert cut == {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)}
    with pytest.raises(UserMistake, match=r"'conv1' names what stays whole: .* no projection leads them"):
        L1(graph, ratios="conv1=50%").target()
    assert widths(L1(graph, ratios="layer1.*=50%"))["layer1.0.conv1"] == 8  # and the stream beside it stays


def test_a_stem_that_begins_a_stream_is_no_projection_and_linear_layers_are_no_filters():
    model = nn.Sequential(residual(), nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    graph = graph_of(model)
    names = {group.name for group in graph.groups}
    assert {"0.stem", "0.inner", "2"} <= names
    plan = L1(graph, budget="channels=50%").target()
    assert {group.name for group in plan.groups if len(group.kept) < group.total} == {"0.inner"}
    with pytest.raises(NothingToPrune, match="no convolution makes its channels"):
        L1(graph, budget="macs=90%", skip="0.inner").target()


CONTROLS = ("l1", "l2", "random", "largest", "mean-mean", "mean-std", "mean-l1", "mean-l2", "var-l2")


@pytest.mark.parametrize("criterion", CONTROLS)
def test_the_papers_controls_are_a_setting(criterion):
    graph, batches = traced("projected"), Batches()
    score = criterion if criterion == "random" else f"{criterion}:leader"
    made = cutback.scores.make_score(score, loader=batches, seed=3)
    expected = cutback.plan(graph, score=made, keep={"inner": "50%", "projection": "50%"})
    found = L1(graph, ratios="inner=50%, projection=50%", criterion=criterion, loader=batches, seed=3).target()
    assert found.slices == expected.slices


def test_a_budget_is_met_by_the_same_share_of_each_layer_but_those_that_are_skipped():
    graph = graph_of(chain((16, 16, 16)))
    found = widths(L1(graph, budget="macs=60%", skip="3"))
    assert found["3"] == 16
    assert abs(found["0"] - found["6"]) <= 1 < 16 - found["0"]


def test_a_budget_on_latency_is_met_as_measured_by_the_same_cuts(monkeypatch):
    given = {}

    def measured(graph, budgets, setting, score, make):
        given.update(budgets=[str(budget) for budget in budgets], score=score)
        return make(score, cutback.planning.budget.parse_budgets("macs=60%"))

    monkeypatch.setattr("cutback.methods.l1.asked.plan_within_latency", measured)
    graph = graph_of(chain((16, 16, 16)))
    found = L1(graph, budget="latency=60%", skip="3").target()
    assert given == {"budgets": ["latency=60%"], "score": cutback.scores.L1("leader")}
    assert found.slices == L1(graph, budget="macs=60%", skip="3").target().slices


def scan_of(model: nn.Module) -> float:
    """Accuracy that each layer of ``chain`` costs: the first much, the second some, the third nothing."""
    lost = [1 - layer.out_channels / 20 for layer in model if isinstance(layer, nn.Conv2d)]
    return 0.95 - 0.9 * lost[0] - 0.04 * lost[1]


def staged_chain() -> nn.Module:
    """Three layers on maps of 8x8, then two on maps of 4x4."""
    model = chain((20, 20, 20, 20, 20))
    model.insert(9, nn.MaxPool2d(2))
    return model


def test_a_scan_finds_what_to_skip_and_one_ratio_a_stage():
    # At 10 % the first layer costs 0.09, so that it is skipped; the second costs 0.02 at 50 %, which limits its stage.
    graph = graph_of(staged_chain())
    found = L1(graph, allocate="sensitivity", evaluate=scan_of, tolerance=0.02)
    assert widths(found) == {"0": 20, "3": 10, "6": 10, "10": 1, "13": 1}


def test_a_scan_shares_a_budget_out_by_stage():
    graph = graph_of(staged_chain())
    dense = cutback.measure.macs(graph.model, image(shape=(1, 3, 8, 8)))
    method = L1(graph, budget="macs=50%", allocate="sensitivity", evaluate=scan_of)
    plan, found = method.target(), widths(method)
    assert dense * 0.49 <= plan.costs["macs"].after <= dense * 0.5
    assert found["0"] == 20
    assert abs(found["3"] - found["6"]) <= 2
    assert abs(found["10"] - found["13"]) <= 2
    assert found["10"] < found["3"]  # its stage costs nothing


def test_a_scan_that_finds_nothing_to_remove_says_so():
    graph = graph_of(chain((8, 8)))

    def evaluate(model):
        return float(model[0].out_channels == model[3].out_channels)

    with pytest.raises(NothingToPrune, match=r"it alone costs more than 0\.02 at 0\.1"):
        L1(graph, allocate="sensitivity", evaluate=evaluate).target()


def run(method: L1, steps: int) -> list[dict[str, int]]:
    """Take steps and return the widths of the convolutions after each one, the entry to the block first."""
    model, seen = method.graph.model, []

    def note() -> None:
        seen.append({p: len(m.weight) for p, m in model.named_modules() if isinstance(m, nn.Conv2d)})

    with method:
        note()
        for _ in range(steps):
            method.after_step()
            note()
    return seen


def test_layer_by_layer_from_the_input_on():
    method = L1(graph_of(chain((8, 8, 8))), ratios="0=50%, 3=25%, 6=50%", schedule="layers", steps=6)
    found = run(method, 6)
    assert [tuple(seen.values()) for seen in found] == [
        (4, 8, 8),
        (4, 8, 8),
        (4, 6, 8),
        (4, 6, 8),
        (4, 6, 4),
        (4, 6, 4),
        (4, 6, 4),
    ]
    assert method.finished


def test_filter_by_filter_and_in_so_many_rounds():
    method = L1(graph_of(chain((6, 4))), ratios="0=50%, 3=50%", schedule="filters", steps=5)
    assert [tuple(seen.values()) for seen in run(method, 5)] == [(5, 4), (4, 4), (3, 4), (3, 3), (3, 2), (3, 2)]
    method = L1(graph_of(chain((6, 4))), ratios="0=50%, 3=50%", schedule="filters", steps=5, rounds=2)
    assert [tuple(seen.values()) for seen in run(method, 5)] == [(4, 4)] * 3 + [(3, 2)] * 3


def test_filters_are_ranked_anew_by_what_training_has_made_of_them():
    model = chain((4, 4))
    method = L1(graph_of(model), ratios="0=50%", schedule="filters", steps=2)
    with method:
        assert len(model[0].weight) == 3
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 3, 3, 3))
        method.after_step()
    assert model[0].weight.min() == 1


def test_a_layer_may_go_down_to_one_filter_and_balanced_layers_go_at_once():
    model = grouped()
    method = L1(graph_of(model), ratios="0=50%, 3=50%, 6=30%", schedule="filters", steps=3)
    run(method, 3)
    assert method.finished
    assert (model[0].out_channels, model[3].out_channels, model[6].out_channels) == (4, 6, 4)
    model = chain((4, 4))
    run(L1(graph_of(model), ratios="0=90%, 3=50%", schedule="filters", steps=9), 9)
    assert (model[0].out_channels, model[3].out_channels) == (1, 2)


def test_a_layer_that_a_cut_makes_depthwise_goes_no_further():
    method = L1(graph_of(grouped()), ratios="0=90%, 3=50%", schedule="layers", steps=4)
    with pytest.warns(UserWarning, match="3 was to keep 6 channels .* they go together with others"):
        run(method, 4)
    assert method.finished
    assert method.graph.model[3].out_channels == 12


def test_training_from_scratch_also_starts_copies_and_optimisers_anew():
    model = residual()
    ema, optimizer = AveragedModel(model), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(image()).square().mean().backward()
    optimizer.step()
    state = torch.get_rng_state()

    def reset(net: nn.Module) -> None:
        randomised(net, 5)

    with L1(graph_of(model), ratios="inner=50%", scratch=True, reset=reset, optimizers=optimizer, copies=ema) as method:
        assert method.finished
    assert torch.equal(torch.get_rng_state(), state)
    expected = randomised(cutback.apply(graph_of(residual()), method.plan(), prove=False), 5)
    for name, tensor in expected.named_parameters():
        assert torch.equal(tensor, model.get_parameter(name))
        assert torch.equal(tensor, ema.module.get_parameter(name))
    assert not optimizer.state


class Gained(nn.Module):
    """A convolution with a gain that nobody but its author knows how to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gain, self.last = nn.Conv2d(3, 4, 1), nn.Parameter(torch.ones(4, 1, 1)), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.first(images) * self.gain)


def test_weights_that_nobody_can_draw_are_refused_before_the_cut():
    model = Gained()
    with pytest.raises(UserMistake, match=r"Gained holds weights of its own .* pass reset=function"):
        L1(graph_of(model), ratios="first=50%", scratch=True).__enter__()
    assert model.first.out_channels == 4


def test_seeds_of_training_from_scratch():
    found = []
    for seed in (0, 0, 1):
        model = chain((4, 4), seed=len(found))
        with L1(graph_of(model), ratios="0=50%, 3=50%", scratch=True, seed=seed):
            found.append(model[0].weight.detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({}, InvalidBudget, "nothing says how much to remove"),
        ({"ratios": "0=50%", "budget": "macs=50%"}, UserMistake, "ratios and macs=50% each say"),
        ({"ratios": "0=50%", "preset": "vgg16-a"}, UserMistake, "preset and ratios each say"),
        ({"preset": "vgg16-a", "skip": "0"}, UserMistake, "says itself what it skips"),
        ({"budget": "macs=50%", "criterion": "l3"}, UserMistake, "criterion='l3' is none of l1, l2"),
        ({"budget": "macs=50%", "coupled": "all"}, UserMistake, "coupled='all' is none of"),
        ({"budget": "macs=50%", "criterion": "mean-std"}, UserMistake, "'mean-std' needs loader"),
        ({"allocate": "sensitivity"}, UserMistake, "needs evaluate"),
        ({"budget": "macs=50%", "tolerance": 2.0}, UserMistake, "tolerance=2.0"),
        ({"budget": "macs=50%", "schedule": "layers"}, UserMistake, "write steps=1000"),
        ({"budget": "macs=50%", "schedule": "layers", "steps": 9, "scratch": True}, UserMistake, "after one cut"),
        ({"budget": "macs=50%", "rounds": 0}, UserMistake, "rounds=0"),
        ({"ratios": "0=100%"}, UserMistake, "from 0 % to below 100 %"),
        ({"ratios": "0=half"}, UserMistake, "cannot read the ratio 0='half'"),
        ({"ratios": "50%"}, UserMistake, "cannot read the ratio ='50%'"),
        ({"ratios": ""}, UserMistake, "cannot read ratios=''"),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_it_is_made(settings, kind, message):
    with pytest.raises(kind, match=message):
        L1(traced("flattened"), **settings)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"ratios": "1=50%"}, UnknownName, "ratios pattern '1' matches no layer that can be cut"),
        ({"ratios": "0=50%", "skip": "body"}, UnknownName, "skip pattern 'body' matches no module"),
        ({"ratios": {"0": 0.5, "*": 0.25}}, UserMistake, r"'0' and '\*' remove different shares of group 0"),
        ({"ratios": "0=50%", "skip": "0"}, NothingToPrune, "0: skip names it"),
        ({"ratios": "0=0%"}, NothingToPrune, "remove nothing"),
        ({"budget": "macs=1%"}, BudgetUnreachable, "no permitted cut meets the budget"),
    ],
)
def test_what_the_model_does_not_have_is_refused_when_it_is_attached(settings, kind, message):
    graph = traced("flattened")
    with pytest.raises(kind, match=message), L1(graph, **settings):
        pass
    assert graph.model[0].out_channels == 5
