"""The method in a loop: unbiased from end to end, beside other methods, and refusing what it cannot do."""

import contextlib
import gc
import re
from importlib import resources
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DataParallel
from torch.utils.checkpoint import checkpoint

import cutback
from benchmarks.gradient_pruning_acceptance import Cutting
from cutback import measure
from cutback.errors import ArchitectureMismatch, UserMistake
from cutback.methods import GradientPruning, GroupFisher, Slimming
from cutback.testing.residue import traces_in
from tests.methods.gradient_pruning.networks import Branched, Shared, blocks, normed
from tests.methods.gradient_pruning.passes import CLASSES, IMAGES, gradients, method_for, one_pass, zeros


def bias(model, kind=GradientPruning, draws=100):
    """How far the mean of many passes over one batch is from the plain gradient, and what chance alone explains."""
    one_pass(model)
    plain = gradients(model).double()
    total, squares = torch.zeros_like(plain), torch.zeros_like(plain)
    with kind(cutback.trace(model.train(), IMAGES[:2]), steps=1, depth=0, rate=0.9, log=False) as method:
        for _ in range(draws):
            one_pass(model, method)
            found = gradients(model).double()
            total += found
            squares += found.square()
    mean = total / draws
    variance = (squares / draws - mean.square()).sum() * draws / (draws - 1)
    return float((mean - plain).norm() / plain.norm()), float((variance / draws).sqrt() / plain.norm())


@pytest.mark.parametrize(
    "make",
    [lambda: blocks(norm=True), lambda: blocks(norm=False), lambda: Branched(norm=True)],
    ids=["norms", "plain", "branches"],
)
def test_the_mean_gradient_of_weights_is_the_plain_one(make):
    found, chance = bias(make())
    assert 0 < found <= 1.3 * chance
    assert chance < 0.05


def test_cutting_small_gradients_would_be_found():
    for norm in (True, False):
        found, _ = bias(blocks(norm=norm), Cutting, draws=2)
        assert found > 0.25


def test_nothing_is_pruned_before_the_queue_is_full_and_then_with_the_mean_of_those_before():
    model, ratios, shares = blocks(norm=True), [], []
    with method_for(model, depth=3) as method:
        for _ in range(6):
            one_pass(model, method)
            records = method.records()
            shares.append(records["zeros 0"] > records["natural zeros 0"] + 0.1)
            ratios.append(records.get("threshold ratio 0"))
    assert shares == [False] * 3 + [True] * 3
    assert ratios[:3] == [None] * 3
    assert all(0.8 < ratio < 1.25 for ratio in ratios[3:])


def test_the_rate_rises_over_the_ramp():
    model, below = blocks(norm=True), []
    with method_for(model, ramp=4) as method:
        for _ in range(5):
            one_pass(model, method)
            below.append(method.records()["below 3"])
    assert all(first + 0.03 < second for first, second in pairwise(below[:4]))
    assert below[4] == pytest.approx(below[3], abs=0.02)


def test_the_calibrated_zeros_are_those_asked_for_on_networks_too():
    for norm in (True, False):
        model = blocks(norm=norm)
        with method_for(model, calibrate=True, rate=0.8) as method:
            one_pass(model, method)
            records = method.records()
        for name in {name.removeprefix("zeros ") for name in records if name.startswith("zeros")}:
            natural, after = records[f"natural zeros {name}"], records[f"zeros {name}"]
            assert (after - natural) / (1 - natural) == pytest.approx(0.8, abs=0.02)


def test_channels_of_unlike_scale_have_thresholds_of_their_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    model.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with torch.no_grad():
        model[2].weight[:, 0] *= 1000  # so that the first channel's gradient is larger
    shares = {}
    for granularity in ("site", "channel"):
        with method_for(model, granularity=granularity) as method:
            seen = one_pass(model, method, watch=True)["1.weight"]
        shares[granularity] = [zeros(seen[:, channel]) for channel in range(8)]
    assert max(shares["channel"]) - min(shares["channel"]) < 0.3
    assert shares["site"][0] < 0.4
    assert min(shares["site"][1:]) > 0.9


def test_the_counted_macs_are_those_of_the_backward_products():
    model = blocks(norm=True, widths=(8, 6))
    with method_for(model) as method:
        seen = one_pass(model, method, watch=True)
        records = method.records()
    each = {"0.weight": 3 * 9 * 1, "3.weight": 8 * 9 * 2}  # nothing before the first asks for a gradient
    forward = 16 * (12 * 12 * 8 * 3 * 9 + 12 * 12 * 6 * 8 * 9)
    assert forward == 16 * (measure.macs(model, IMAGES[:1]) - 6 * 4)
    assert records["macs_backward"] == 16 * 12 * 12 * (8 * 27 + 6 * 72 * 2)
    assert records["macs_skipped"] == sum(int((seen[name] == 0).sum()) * macs for name, macs in each.items())
    assert records["density"] == 1 - records["macs_skipped"] / records["macs_backward"]


def test_without_the_log_nothing_is_counted():
    model = blocks(norm=True)
    with method_for(model, log=False) as method:
        seen = one_pass(model, method, watch=True)
        assert method.records() == {}
    assert zeros(seen["3.weight"]) > 0.5


def test_under_autocast_the_same_sites_are_pruned():
    model = blocks(norm=True)
    with method_for(model) as method:
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model(IMAGES), CLASSES)
        loss.backward()
        method.after_backward()
        records = method.records()
    assert {name for name in records if name.startswith("used")} == {"used zeros 0", "used zeros 3", "used zeros 6"}
    assert all(share > 0.5 for name, share in records.items() if name.startswith("used"))


def test_only_passes_in_train_mode_are_pruned_and_none_once_it_is_left():
    model = blocks(norm=True)
    method = method_for(model)
    model.eval()
    one_pass(model)
    plain = gradients(model)
    with method:
        one_pass(model)
        assert torch.equal(gradients(model), plain)
        loss = cross_entropy(model.train()(IMAGES), CLASSES)
    model.zero_grad()
    loss.backward()
    inside = gradients(model)
    one_pass(model)
    assert torch.equal(gradients(model), inside), "a pass under way when it is left is not pruned"


def test_no_graph_outlives_its_pass():
    model = blocks(norm=False)
    before = graphs_alive()  # of tests that ran earlier in this process
    with method_for(model) as method:
        for _ in range(3):
            one_pass(model, method)
        assert all(any(held is other for other in before) for held in graphs_alive())


def graphs_alive() -> list[object]:
    gc.collect()
    return [held for held in gc.get_objects() if type(held).__name__ == "ConvolutionBackward0"]


@pytest.mark.parametrize("other", ["group-fisher", "slimming"])
@pytest.mark.parametrize("first", [True, False])
def test_beside_another_method_both_do_what_they_do_alone(other, first):
    model = normed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    before = traces_in(model, optimizer)
    graph = cutback.trace(model, IMAGES[:2])
    dense = measure.macs(model, IMAGES[:1])
    if other == "group-fisher":
        cutting = GroupFisher(graph, budget="macs=60%", optimizers=optimizer, interval=1, removed=1, cut_every=2)
    else:
        cutting = Slimming(graph, budget="macs=60%", optimizers=optimizer, steps=6)
    pruning = GradientPruning(graph, steps=12, depth=1, granularity="channel")
    zeros_seen = []
    with contextlib.ExitStack() as stack:
        for method in (cutting, pruning) if first else (pruning, cutting):
            stack.enter_context(method)
        while not (cutting.finished and pruning.finished):
            optimizer.zero_grad()
            loss = cross_entropy(model(IMAGES), CLASSES) + cutting.penalty() + pruning.penalty()
            loss.backward()
            for each in (cutting, pruning):
                each.after_backward()
            for each in (cutting, pruning):
                each.before_step()
            optimizer.step()
            for each in (cutting, pruning):
                each.after_step()
            zeros_seen.append(pruning.records()["used zeros 3"])
    assert measure.macs(model, IMAGES[:1]) <= 0.6 * dense
    assert cutting.plan() is not None
    assert pruning.plan() is None
    assert sum(share > 0.5 for share in zeros_seen) >= 6
    assert traces_in(model, optimizer) == before


def test_a_state_of_other_layers_is_refused_when_attached():
    method = method_for(blocks(norm=True), depth=1)
    with method:
        one_pass(method.graph.model, method)
    other = method_for(Branched(norm=True), depth=1)
    other.load_state_dict(method.state_dict())
    with pytest.raises(ArchitectureMismatch, match="has thresholds of 0, 3, 6, which this model does not have"):
        other.__enter__()
    assert not other.graph.model._forward_hooks


def test_a_model_that_hides_its_passes_is_refused():
    net = blocks(norm=True)
    for wrapped in (torch.compile(net, backend="eager"), DataParallel(net)):
        with pytest.raises(UserMistake, match=r"torch\.compile and DataParallel hide"):
            GradientPruning(cutback.trace(wrapped, IMAGES[:2]), steps=1)

    class Hidden(Shared):
        hidden = False

        def forward(self, images):
            found = checkpoint(self.conv, images, use_reentrant=True) if self.hidden else self.conv(images)
            return self.head(found.mean((2, 3)))

    model, images = Hidden(), IMAGES.clone().requires_grad_()
    method = GradientPruning(cutback.trace(model, IMAGES[:2]), steps=1)
    model.hidden = True
    with method:
        cross_entropy(model(images), CLASSES).backward()
        with pytest.raises(UserMistake, match="no gradient of a convolution has passed since the last call"):
            method.after_backward()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0 of gradient-pruning must be a whole number from 1"),
        ({"depth": -1}, "depth=-1 of gradient-pruning must be a whole number from 0"),
        ({"ramp": 1.5}, "ramp=1.5 of gradient-pruning must be a whole number from 0"),
        ({"rate": 1.0}, "rate=1.0 of gradient-pruning must lie between 0 and 1"),
        ({"rate": 0}, "rate=0 of gradient-pruning must lie between 0 and 1"),
        ({"placement": "pool"}, "placement='pool' is none of block, convolution, activation"),
        ({"estimate": "max"}, "estimate='max' is none of mean-absolute, standard-deviation"),
        ({"granularity": "row"}, "granularity='row' is none of site, channel"),
        ({"calibrate": True, "granularity": "channel"}, "a calibrated threshold is one for each site"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserMistake, match=message):
        method_for(blocks(norm=True), **settings)


def test_a_model_without_trained_convolutions_is_refused():
    frozen = blocks(norm=True)
    for layer in frozen:
        if isinstance(layer, nn.Conv2d):
            layer.weight.requires_grad_(False)
    for model in (frozen, nn.Sequential(nn.Flatten(), nn.Linear(432, 4))):
        with pytest.raises(UserMistake, match="no convolution of Sequential has a weight that is trained"):
            method_for(model).__enter__()


def test_the_example_of_its_page_runs(capsys):
    page = resources.files("cutback.methods.gradient_pruning").joinpath("README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    found: dict = {"__name__": "page"}
    exec(compile(example, "README.md", "exec"), found)  # noqa: S102
    assert found["method"].finished
    assert 0 < float(capsys.readouterr().out) < 1
