"""The folded network equals the one with compactors; rows of zero go without a trace."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.optim.swa_utils import AveragedModel

import cutback
from cutback.errors import NotEquivalent
from cutback.graph.clone import state_tensors
from cutback.methods import ResRep
from cutback.methods.resrep import folding
from cutback.methods.resrep.folding import Mixed, Pair, folded
from cutback.train.average import Average
from tests.helpers import image, randomised, snapshot
from tests.methods.resrep.networks import Basic, Gated, Separable, made, method_of, spoiled, traced

GONE = {"first1.0": [0, 3, 4], "second1.0": [1, 2, 8], "stem.0": [0, 5], "point1.0": [2, 3, 9]}


def converted(method, model) -> tuple[Tensor, Tensor]:
    """Return what the network puts out with compactors and, of other pictures too, after conversion."""
    pictures = image(11, (6, 3, 8, 8)).to(next(model.parameters()).dtype)
    model.eval()
    with torch.no_grad():
        before = model(pictures)
        method._convert(method._insertion)
        return before, model(pictures)


def ready(kind, dead, dtype=torch.float32, **settings):
    """Return a method whose compactors are random, with rows of zero that meet the budget."""
    model = made(kind).to(dtype)
    settings = {"budget": "macs=99%", "threshold": 1e-5, **settings}
    graph = cutback.trace(model, image().to(dtype))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    method = ResRep(graph, steps=10, optimizers=optimizer, interval=1, added=100, **settings)
    method.__enter__()
    spoiled(method, dead)
    return model, method


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(("stride", "padding", "bias"), [(1, 0, False), (2, 0, False), (1, 1, True), (2, 1, False)])
def test_the_algebra_of_folding(dtype, bound, stride, padding, bias):
    generator = torch.Generator().manual_seed(0)
    layers = nn.Conv2d(5, 6, 3, stride, padding, bias=bias), nn.BatchNorm2d(6, eps=1e-3)
    model = randomised(nn.Sequential(*layers)).to(dtype).eval()
    matrix = torch.randn(6, 6, generator=generator).to(dtype)
    matrix[[1, 4]] = 0
    pictures = torch.randn(3, 5, 9, 9, generator=generator).to(dtype)
    with torch.no_grad():
        expected = conv2d(model(pictures), matrix[:, :, None, None])
        variance = torch.rand(6, generator=generator).to(dtype)
        found = folded(state_tensors(model), Mixed(Pair("0", "1"), matrix, variance), model[1].eps)
        for name, value in found.items():
            state_tensors(model)[name].detach().copy_(value)
        kept = [0, 2, 3, 5]
        assert float((model(pictures) - expected).abs().max()) <= bound * float(expected.abs().max().clamp_min(1))
        assert not model(pictures)[:, [1, 4]].any()
        # Copying rows of the kernel is something else.
        wrong = conv2d(pictures, layers[0].weight[kept], None, stride, padding)
        assert float((wrong - expected[:, kept]).abs().max()) > 1e-2


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(("kind", "coupled"), [(Basic, False), (Basic, True), (Separable, False), (Gated, True)])
def test_rows_of_zero_go_without_a_trace(kind, coupled, dtype, bound):
    model, method = ready(kind, GONE, dtype, coupled=coupled)
    names = {target.name for target in method._insertion.targets}
    before, after = converted(method, model)
    assert method.finished
    assert float((before - after).abs().max()) <= bound * max(1.0, float(before.abs().max()))
    kept = {group.name: group.kept for group in method.plan().groups}
    sizes = {group.name: group.total for group in method.plan().groups}
    for name, units in kept.items():
        gone = GONE.get(name, []) if name in names else []
        assert units == tuple(unit for unit in range(sizes[name]) if unit not in gone)
    assert sum(map(len, kept.values())) < sum(sizes.values())
    assert method.records()["change"] <= bound


def test_classes_and_names_stay_so_that_it_is_saved_and_loaded(tmp_path):
    model, method = ready(Basic, GONE)
    kinds = {path: type(module) for path, module in model.named_modules()}
    converted(method, model)
    assert {path: type(module) for path, module in model.named_modules()} == kinds
    cutback.save(model, method.plan(), tmp_path / "small")
    again = cutback.load(tmp_path / "small", build=lambda: made(Basic)).eval()
    assert torch.equal(again(image(4)), model.eval()(image(4)))


def test_what_a_depthwise_layer_makes_of_zero_is_absorbed():
    gone = [0, 5]
    model, method = ready(Separable, {"stem.0": gone}, ignore="point*")
    with torch.no_grad():
        model.depth1[1].bias.fill_(2.0)
    dense = copy.deepcopy(model)
    before, after = converted(method, model)
    assert torch.allclose(before, after, atol=1e-5 * float(before.abs().max()))
    norm, weight = dense.depth1[1].requires_grad_(False), dense.point1[0].weight.detach()
    for out in range(10):
        expected = float(dense.point1[1].running_mean[out])
        for channel in gone:
            sigma = float(norm.running_var[channel] + norm.eps) ** 0.5
            silent = float(norm.bias[channel] - norm.running_mean[channel] * norm.weight[channel] / sigma)
            expected -= max(silent, 0.0) * float(weight[out, channel])
        assert float(model.point1[1].running_mean[out]) == pytest.approx(expected, abs=1e-5)
    assert not torch.allclose(model.point1[1].running_mean, dense.point1[1].running_mean, atol=1e-1)


def test_batch_norms_scale_little_in_train_mode_too():
    model = made(Basic).train()
    with method_of(model, rate=0.0, steps=60, budget="macs=99%", interval=50) as method:
        spoiled(method, GONE)
        for number in range(59):
            pictures = image(number, (8, 3, 8, 8))
            model(pictures).square().mean().backward()
            method.before_step()
            method.after_step()
        fresh = image(99, (64, 3, 8, 8))
        with torch.no_grad():
            states = copy.deepcopy(model.state_dict())
            before = model(fresh)
            model.load_state_dict(states)
            method._convert(method._insertion)
            after = model(fresh)
    assert float((before - after).abs().max()) < 0.15 * float(before.abs().max())


@pytest.mark.parametrize("wrapper", [Average, AveragedModel])
def test_copies_run_with_compactors_and_are_converted_along(wrapper):
    model = made(Basic)
    average = wrapper(model, 0.9) if wrapper is Average else wrapper(model)
    inner = average.module.eval()
    with torch.no_grad():
        for parameter in inner.parameters():
            parameter.mul_(1.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = {"steps": 9, "budget": "macs=99%", "interval": 1, "added": 9}
    with ResRep(traced(model), optimizers=optimizer, copies=average, **given) as method, torch.no_grad():
        plain = inner(image(3))
        spoiled(method, GONE)
        before = inner(image(3))
        assert not torch.allclose(before, plain, atol=1e-2)
        method._convert(method._insertion)
        assert torch.allclose(inner(image(3)), before, atol=1e-5)
    assert inner.first1[0].out_channels == 7
    assert not any("forward" in vars(module) for module in inner.modules())


def test_a_cut_that_fails_leaves_the_model_as_it_was(monkeypatch):
    model, method = ready(Basic, GONE)
    model.train()
    before = snapshot(model)
    method.detach()
    plain = snapshot(model)
    method._insertion.put(model, [])

    def refuse(*_, **__):
        raise NotEquivalent("no")

    monkeypatch.setattr(method, "cut", refuse)
    with pytest.raises(NotEquivalent):
        method._convert(method._insertion)
    assert not method.finished
    assert snapshot(model) == plain
    assert before != plain, "hooks"
    assert method.state_dict()["compactors"]


def test_a_fold_that_is_wrong_is_noticed_and_undone(monkeypatch):
    model, method = ready(Basic, GONE)
    before = copy.deepcopy(model.state_dict())

    def wrong(*given):
        return {name: value + 0.1 if name.endswith("running_mean") else value for name, value in folded(*given).items()}

    monkeypatch.setattr(folding, "folded", wrong)
    with pytest.raises(NotEquivalent, match="folded in"):
        method._convert(method._insertion)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_the_optimiser_knew_of_folded_parameters_is_forgotten():
    model, method = ready(Basic, GONE)
    (optimizer,) = method.optimizers
    model.train()(image()).sum().backward()
    optimizer.step()
    converted(method, model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held = {names[id(parameter)] for parameter in optimizer.state}
    assert held == {name for name in names.values() if not name.startswith(("first1.", "second1."))}
    model.train()(image()).sum().backward()
    optimizer.step()
