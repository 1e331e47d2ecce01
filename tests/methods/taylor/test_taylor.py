"""The method against the algorithm as published, written out on a chain of layers with gates that are tensors."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from cutback.measure.latency import Latency
from cutback.methods.taylor import Taylor
from cutback.methods.taylor import minibatch as module
from cutback.methods.taylor.minibatch import Minibatch
from tests.helpers import chain, image, plain, residual
from tests.methods.taylor.loop import SIZE, batch, run, sgd
from tests.scores.gated import gradients
from tests.scores.networks import projected

WIDTHS = (8, 12)


def gates_of(model: nn.Sequential, images: Tensor, gates: list[Tensor]) -> Tensor:
    """Run a chain with a gate after each batch norm, before its ReLU."""
    waiting = iter(gates)
    value = images
    for layer in model:
        value = layer(value)
        if isinstance(layer, nn.BatchNorm2d):
            value = value * next(waiting)[:, None, None]
    return value


def published(model: nn.Sequential, steps: int, *, every: int, units: int, removals: int, rho: float) -> list[Tensor]:
    """The published algorithm, step by step: forward, backward, optimiser; then scores, threshold, gates to zero."""
    optimizer = sgd(model)
    gates = [torch.ones(width, dtype=torch.float64, requires_grad=True) for width in WIDTHS]
    total, smoothed = torch.zeros(sum(WIDTHS), dtype=torch.float64), None
    for number in range(steps):
        optimizer.zero_grad()
        for gate in gates:
            gate.grad = None
        images, labels = batch(number)
        cross_entropy(gates_of(model, images, gates), labels).backward()
        optimizer.step()
        total += torch.cat([(gate.detach() * gate.grad).square() for gate in gates])
        if (number + 1) % every == 0 and (number + 1) // every <= removals:
            mean, total = total / every, torch.zeros_like(total)
            smoothed = mean if smoothed is None else rho * smoothed + (1 - rho) * mean
            now = torch.cat(gates).detach()
            scores = torch.where(now > 0, smoothed, 0.0)
            pruned = int((now == 0).sum())
            threshold = scores.sort().values[min(pruned + units, units * removals) - 1]
            with torch.no_grad():
                for gate, own in zip(gates, scores.split(list(WIDTHS)), strict=True):
                    gate[own <= threshold] = 0.0
    return [gate.detach() for gate in gates]


def test_it_removes_what_the_published_algorithm_removes_and_leaves_the_same_weights():
    model, reference = chain(WIDTHS).double(), chain(WIDTHS).double()
    graph = cutback.trace(model, image().double())
    optimizer = sgd(model)
    method = Taylor(graph, optimizers=optimizer, removals=4, units=2, minibatches=3)
    with method:
        cuts = run(model, method, optimizer, 20)
    expected = published(reference, 12, every=3, units=2, removals=4, rho=0.9)
    kept = {group.name: set(group.kept) for group in method.plan().groups}
    assert [kept["0"], kept["3"]] == [{int(u) for u in gate.nonzero()} for gate in expected]
    assert (cuts, method.removed, method.finished) == ([11], 8, True)
    images, _ = batch(99)
    assert torch.allclose(model.eval()(images), gates_of(reference.eval(), images, expected), rtol=1e-9)


def total(method: Taylor) -> dict[str, Tensor]:
    """The sum over minibatches since the last removal, for each group."""
    values = method.state_dict()["importance"]["total"].split([group.units for group in method.graph.groups])
    return {group.name: own for group, own in zip(method.graph.groups, values, strict=True)}


def seen(model: nn.Module, steps: int = 2, **settings: object) -> dict[str, Tensor]:
    """What so many minibatches say, the weights as they are."""
    optimizer = sgd(model, 0.0)
    micro, scaler = settings.pop("micro", 1), settings.pop("scaler", None)
    method = Taylor(cutback.trace(model, image().double()), removals=1, units=1, minibatches=99, **settings)
    with method:
        run(model, method, optimizer, steps, micro=micro, scaler=scaler)
    return total(method)


@pytest.mark.parametrize("authors", [False, True])
def test_a_streams_score_is_divided_by_its_blocks(authors):
    found = seen(projected().double(), authors_division=authors)
    for group, divisor in {"stem": 3 if authors else 1, "inner": 3 if authors else 1, "outer": 2}.items():
        expected = 0
        for number in range(2):
            places = gradients("projected", projected().double().train(), "stream", *batch(number))[group]
            expected = expected + sum(place.sum(0) for place in places).square() / divisor
        assert torch.allclose(found[group], expected, rtol=1e-9)


def test_micro_batches_are_one_minibatch():
    model = projected().double()
    found = seen(model, 1, micro=2)
    again, grown = projected().double().train(), 0
    images, labels = batch(0)
    for part in torch.arange(SIZE).chunk(2):
        (place,) = gradients("projected", again, "stream", images[part], labels[part])["inner"]
        grown = grown + place.sum(0) / 2
    assert torch.allclose(found["inner"], grown.square(), rtol=1e-9)


def test_scaled_losses_say_the_same():
    plainly = seen(projected().double())
    scaled = seen(projected().double(), scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert all(torch.allclose(scaled[group], own, rtol=1e-9) for group, own in plainly.items())


def test_per_example_scores_are_means_of_squares():
    found = seen(projected().double(), score="taylor-example")
    for group, divisor in {"stem": 1, "inner": 1, "outer": 2}.items():
        expected = 0
        for number in range(2):
            places = gradients("projected", projected().double().train(), "stream", *batch(number))[group]
            rows = sum(places) * SIZE
            expected = expected + sum(row.square() for row in rows) / SIZE / divisor
        assert torch.allclose(found[group], expected, rtol=1e-9)


def test_per_weight_scores_are_sums_over_filters():
    found = seen(chain().double(), score="taylor-weight")
    expected = {"0": [0.0] * 8, "3": [0.0] * 12}
    for number in range(2):
        model = chain().double()
        images, labels = batch(number)
        cross_entropy(model(images), labels).backward()
        for group, sums in expected.items():
            layer = model[int(group)]
            for unit in range(layer.out_channels):
                pairs = zip(layer.weight[unit].flatten(), layer.weight.grad[unit].flatten(), strict=True)
                sums[unit] += sum(w.item() ** 2 * g.item() ** 2 for w, g in pairs)
    assert all(found[group].tolist() == pytest.approx(own, rel=1e-9) for group, own in expected.items())


def test_gradients_of_processes_are_averaged_before_they_are_squared(monkeypatch):
    mine, theirs = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    other = torch.cat([theirs.sum(0), torch.tensor([4.0, 1.0])])
    monkeypatch.setattr(module, "over_ranks", lambda own: own + other)
    gathered = Minibatch(each_sample=False)
    gathered.add(mine)
    samples, found = gathered.take(8.0)
    assert samples == 8
    assert torch.allclose(found, ((mine.sum(0) + theirs.sum(0)) / 2 / 8).square())
    assert gathered.take(1.0) is None


@pytest.mark.parametrize("make", [chain, residual, projected])
def test_the_masked_network_is_the_cut_one(make):
    model = make()
    optimizer = sgd(model, 0.01)
    graph = cutback.trace(model, image())
    method = Taylor(graph, optimizers=optimizer, removals=3, units=3, minibatches=1)
    with method:
        run(model, method, optimizer, 2, dtype=torch.float32)
        masked = model.eval()(image(5)).detach()
        plan = method._pruning.plan()
    whole, cut = model(image(5)).detach(), cutback.apply(graph, plan).eval()(image(5)).detach()
    assert float((masked - cut).abs().max()) < 1e-5 < float((masked - whole).abs().max())
    assert "forward" not in vars(model)


def test_units_stay_removed_and_are_counted():
    model = chain()
    optimizer = sgd(model)
    method = Taylor(cutback.trace(model, image()), optimizers=optimizer, removals=5, units=3, minibatches=2)
    gone: set[tuple[int, int]] = set()
    with method:
        for step in range(10):
            run(model, method, optimizer, 1, start=step, dtype=torch.float32)
            if method.finished:
                break
            masks = method.state_dict()["pruning"]["kept"]
            now = {(n, u) for n, stays in enumerate(masks) for u, stay in enumerate(stays.tolist()) if not stay}
            assert gone <= now
            assert len(now) == method.removed == 3 * ((step + 1) // 2)
            gone = now
            for number, unit in now:
                layer = model[3 * number]
                assert not optimizer.state[layer.weight]["momentum_buffer"][unit].any() or (step + 1) % 2
    assert sum(layer.out_channels for layer in model if isinstance(layer, nn.Conv2d)) == 20 - 15
    assert not optimizer.state


def test_units_that_nothing_depends_on_go_at_once_beyond_the_count():
    model = chain()
    with torch.no_grad():
        for unit in (1, 4, 6):
            model[1].weight[unit] = model[1].bias[unit] = 0.0
    method = Taylor(cutback.trace(model, image()), removals=4, units=1, minibatches=2)
    with method:
        run(model, method, sgd(model, 0.0), 2, dtype=torch.float32)
        assert method.removed == 3
        assert (~method.state_dict()["pruning"]["kept"][0]).nonzero().flatten().tolist() == [1, 4, 6]
        run(model, method, sgd(model, 0.0), 9, start=2, dtype=torch.float32)
    assert method.finished
    assert method.removed == 4


@pytest.mark.parametrize(
    ("budget", "cut_every"), [("macs=50%", 0), ("macs=50%", 1), ("params=70%", 0), ("channels=50%", 0)]
)
def test_a_budget_is_met_by_no_more_than_it_takes(budget, cut_every):
    model = projected()
    graph = cutback.trace(model, image())
    optimizer = sgd(model, 0.01)
    method = Taylor(graph, budget=budget, optimizers=optimizer, units=4, minibatches=1, cut_every=cut_every)
    with method:
        cuts = run(model, method, optimizer, 30, dtype=torch.float32)
    assert method.finished
    assert len(cuts) == (1 if not cut_every else -(-method.removed // 4))
    plan = method.plan()
    quantity, share = budget.split("=")
    measure = {"macs": lambda net: cutback.measure.macs(net, image()), "params": cutback.measure.params}
    if quantity == "channels":
        whole, left = 21, sum(len(group.kept) for group in plan.groups)
    else:
        whole, left = measure[quantity](projected()), measure[quantity](model)
        assert plan.costs[quantity].after == left
    limit = whole * int(share[:-1]) // 100
    assert left <= limit
    assert left > limit - whole // 12  # one unit of the widest layer costs less
    assert plan.budgets == (budget,)


@pytest.mark.parametrize("stop", [1, 5])
def test_interrupted_and_resumed_it_ends_with_the_same_bytes(stop):
    settings = {"removals": 3, "units": 2, "minibatches": 2, "cut_every": 2}

    def begun(model: nn.Module) -> tuple[Taylor, torch.optim.SGD]:
        optimizer = sgd(model)
        return Taylor(cutback.trace(model, image()), optimizers=optimizer, **settings), optimizer

    whole, first = chain(), chain()
    method, optimizer = begun(whole)
    with method:
        run(whole, method, optimizer, 20, dtype=torch.float32)
    half, optimizer = begun(first)
    with half:
        run(first, half, optimizer, stop, dtype=torch.float32)
        state, held = copy.deepcopy(half.state_dict()), copy.deepcopy(optimizer.state_dict())
        weights, so_far = copy.deepcopy(first.state_dict()), half.plan()
    again = chain()
    if so_far is not None:
        cutback.apply_(cutback.trace(again, image()), so_far, prove=False)
    again.load_state_dict(weights)
    second, optimizer = begun(again)
    second.load_state_dict(state)
    with second:
        optimizer.load_state_dict(held)
        run(again, second, optimizer, 20, start=stop, dtype=torch.float32)
    assert second.plan().to_json() == method.plan().to_json()
    assert plain(again.state_dict()) == plain(whole.state_dict())


def test_mu_prefers_what_costs_macs():
    found = {}
    for mu in (0.0, 1.0):
        model = chain()
        method = Taylor(cutback.trace(model, image()), removals=1, units=6, minibatches=1, mu=mu)
        with method:
            run(model, method, sgd(model, 0.0), 1, dtype=torch.float32)
        found[mu] = [len(group.kept) for group in method.plan().groups]
    macs_a_unit = [64 * 27, 64 * 72]  # 8 x 8 places, 3 or 8 channels of 3 x 3
    assert macs_a_unit[1] > macs_a_unit[0]
    assert found[1.0] == [8, 6]
    assert found[0.0] != [8, 6]


def test_mu_may_prefer_what_costs_time(monkeypatch, tmp_path):
    """All calls take the same time but the linear layer, which takes a millisecond for each channel it reads."""

    def time(_table, call, widths):
        return float(widths[0]) if [axis.dense for axis in call.axes] == [12] else 1.0

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("cutback.measure.latency_table.LatencyTable._time", time)
    model = chain()
    method = Taylor(cutback.trace(model, image()), removals=1, units=6, minibatches=1, mu=1e6, regularise="latency")
    with method:
        run(model, method, sgd(model, 0.0), 1, dtype=torch.float32)
    assert [len(group.kept) for group in method.plan().groups] == [8, 6]


def test_a_budget_on_latency_is_met_as_measured_not_as_predicted(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("cutback.measure.latency_table.LatencyTable._time", lambda _, __, widths: 1.0 + sum(widths))
    asked = []

    def clock(models):
        """Each pass takes a millisecond for each channel of the convolutions, and two more than is predicted."""
        (net,) = models.values()
        asked.append(sum(layer.out_channels for layer in net if isinstance(layer, nn.Conv2d)))
        return {name: Latency(asked[-1] + 2.0, 0.0, 0.0, 6, 1, 1.0) for name in models}

    monkeypatch.setattr("cutback.methods.taylor.latency.clock_in", lambda *_: clock)
    model = chain()
    method = Taylor(cutback.trace(model, image()), budget="latency=12ms", units=2, minibatches=1)
    with method:
        run(model, method, sgd(model, 0.0), 20, dtype=torch.float32)
    assert method.finished
    assert asked[0] == 20
    assert asked[-1] + 2 <= 12
    assert all(width + 2 > 12 for width in asked[:-1])
    assert any("measured" in note for note in method.plan().notes)


def test_blocks_of_units_go_whole():
    model = chain((8, 16))
    method = Taylor(cutback.trace(model, image()), removals=2, units=8, minibatches=1, group_size=4)
    with method:
        run(model, method, sgd(model, 0.0), 2, dtype=torch.float32)
    widths = [len(group.kept) for group in method.plan().groups]
    assert sum(widths) == 24 - 16
    assert all(width % 4 == 0 for width in widths)


@pytest.mark.parametrize("score", ["taylor-second", "l2", "random", "fisher"])
def test_other_scores_are_computed_on_the_network_without_what_is_gone(score, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "cutback.methods.taylor.method.silenced",
        lambda graph, kept: asked.append([stays.copy() for stays in kept]) or silenced(graph, kept),
    )
    from cutback.methods.taylor.silence import silenced  # noqa: PLC0415 (what the line above stands for)

    model = chain()
    loader = [batch(0, torch.float32), batch(1, torch.float32)]
    method = Taylor(
        cutback.trace(model, image()),
        removals=2,
        units=3,
        minibatches=1,
        score=score,
        momentum=0.0,
        loader=loader,
        loss=cross_entropy,
    )
    with method:
        run(model, method, sgd(model, 0.0), 3, dtype=torch.float32)
    assert [sum(int((~stays).sum()) for stays in kept) for kept in asked] == [0, 3]
    assert method.removed == 6
    if score == "l2":
        norms = [(chain()[i].weight[u].norm().item(), i, u) for i in (0, 3) for u in range(chain()[i].out_channels)]
        gone = {(i, u) for _, i, u in sorted(norms)[:6]}
        kept = {int(group.name): group.kept for group in method.plan().groups}
        assert {(i, u) for _, i, u in norms if u not in kept[i]} == gone


def test_reversed_removes_the_highest_first():
    first = seen(chain().double(), 1)
    model = chain()
    method = Taylor(cutback.trace(model, image()), removals=1, units=4, minibatches=1, reverse=True)
    with method:
        run(model, method, sgd(model, 0.0), 1, dtype=torch.float32)
    values = sorted(((float(v), g, u) for g, own in first.items() for u, v in enumerate(own)), reverse=True)
    kept = {group.name: group.kept for group in method.plan().groups}
    assert all(u not in kept[g] for _, g, u in values[:4])


def test_ignored_layers_stay_whole_and_have_no_gate():
    model = chain()
    method = Taylor(cutback.trace(model, image()), removals=1, units=11, minibatches=1, ignore="0, 1")
    with method:
        run(model, method, sgd(model, 0.0), 1, dtype=torch.float32)
    assert [len(group.kept) for group in method.plan().groups] == [8, 1]
