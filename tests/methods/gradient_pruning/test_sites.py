"""Where gradients are pruned: found on the captured graph, and met in the pass itself."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cutback
from cutback.errors import StaleGraph
from cutback.methods import GradientPruning
from cutback.methods.gradient_pruning.rule import normal_zeros
from cutback.methods.gradient_pruning.sites import sites_of
from tests.methods.gradient_pruning.networks import Branched, Shared, blocks
from tests.methods.gradient_pruning.passes import CLASSES, IMAGES, entering, method_for, one_pass, zeros


def found(model, placement="block"):
    return {site.name: site.behind for site in sites_of(cutback.trace(model, IMAGES[:2]), placement)}


def test_behind_a_norm_the_site_is_the_convolution():
    assert found(blocks(norm=True, pools=True)) == {"0": (), "4": (), "8": ()}


def test_without_one_it_is_the_relu_or_the_pooling_behind_it():
    assert found(blocks(norm=False)) == {"0": ("Relu",), "2": ("Relu",), "4": ("Relu",)}
    assert found(blocks(norm=False, pools=True)) == dict.fromkeys(("0", "3", "6"), ("Relu", "MaxPool"))


def test_branches_have_sites_of_their_own_before_they_are_summed():
    assert found(Branched(norm=False)) == {"stem.0": ("Relu",), "first.0": ("Relu",), "second.0": (), "shortcut.0": ()}


def test_a_layer_called_twice_has_two_sites():
    assert found(Shared()) == {"conv[0]": ("Relu",), "conv[1]": ()}


@pytest.mark.parametrize(
    ("make", "behind"),
    [
        (nn.ReLU6, ("Hardtanh",)),
        (lambda: nn.ReLU(inplace=True), ("Relu",)),
        (nn.Hardtanh, ("Hardtanh",)),
        (lambda: nn.Threshold(0.1, 0.0), ("Threshold",)),
        (nn.GELU, ()),
        (nn.LeakyReLU, ()),
        (lambda: nn.Sequential(nn.Dropout(0.1), nn.ReLU()), ("Relu",)),
        (lambda: nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)), ("Relu", "AvgPool")),
        (lambda: nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), ()),
    ],
)
def test_each_activation_and_pooling_is_met_in_the_pass(make, behind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), make(), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert found(model)["0"] == behind
    one_pass(model.train())
    with method_for(model) as method:
        seen = one_pass(model, method, watch=True)
    plain = one_pass(model, watch=True)
    assert zeros(seen["0.weight"]) > zeros(plain["0.weight"]) + 0.1


def test_placements_can_be_chosen():
    assert set(found(blocks(norm=False, pools=True), "convolution").values()) == {()}
    assert set(found(blocks(norm=True), "activation").values()) == {("Relu",)}


@pytest.mark.parametrize("make", [blocks, Branched])
@pytest.mark.parametrize("norm", [True, False])
def test_what_enters_the_products_has_the_zeros_of_the_law_or_more(make, norm):
    model = make(norm=norm)
    with method_for(model, rate=0.9) as method:
        seen = one_pass(model, method, watch=True)
        records = method.records()
    least = normal_zeros(0.9) - 0.02
    assert all(zeros(gradient) >= least for gradient in seen.values()), {n: zeros(g) for n, g in seen.items()}
    for name, gradient in seen.items():
        site = name.removesuffix(".weight")
        assert records[f"used zeros {site}"] == pytest.approx(zeros(gradient))
        assert 0.75 < records[f"below {site}"] < 0.97


def test_behind_the_relu_of_a_normed_block_the_norm_would_undo_it():
    model = blocks(norm=True)
    with method_for(model, placement="activation") as method:
        seen = one_pass(model, method, watch=True)
        assert all(share >= 0.4 for name, share in method.records().items() if name.startswith("zeros"))
    assert all(zeros(gradient) < 0.05 for gradient in seen.values())


@pytest.mark.parametrize("norm", [True, False])
def test_both_products_of_a_convolution_use_what_was_pruned(norm):
    model = blocks(norm=norm).double()
    inputs = {}
    for path in [path for path, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]:
        layer = model.get_submodule(path)
        layer.register_forward_hook(lambda _module, given, _out, path=path: inputs.update({path: given[0]}))
    graph = cutback.trace(model.train(), IMAGES[:2].double())
    with GradientPruning(graph, steps=1, depth=0) as method:
        loss = F.cross_entropy(model(IMAGES.double()), CLASSES)
        for value in inputs.values():
            if value.requires_grad:
                value.retain_grad()
        seen = entering(model, loss)
        loss.backward()
        method.after_backward()
    for path, value in inputs.items():
        weight, gradient = model.get_submodule(path).weight, seen[f"{path}.weight"]
        assert torch.allclose(weight.grad, torch.nn.grad.conv2d_weight(value, weight.shape, gradient, padding=1))
        if value.requires_grad:
            assert torch.allclose(value.grad, torch.nn.grad.conv2d_input(value.shape, weight, gradient, padding=1))


def test_the_stream_of_a_residual_block_is_not_pruned_but_by_each_branch():
    model, at = Branched(norm=False), {}

    def watched(name):
        def note(_module, _inputs, output):
            output.register_hook(lambda gradient: at.update({name: gradient}))

        return note

    for name in ("second", "shortcut"):
        model.get_submodule(name).register_forward_hook(watched(name))
    with method_for(model) as method:
        seen = one_pass(model, method, watch=True)
    assert torch.equal(at["second"], at["shortcut"]), "what the sum passes on is whole, and the same for both"
    assert not torch.equal(seen["second.0.weight"], seen["shortcut.0.weight"]), "each branch has draws of its own"
    assert zeros(at["second"]) < zeros(seen["second.0.weight"])


def test_a_layer_that_is_called_more_often_than_traced_is_refused():
    class Loop(Shared):
        times = 1

        def forward(self, images):
            for _ in range(self.times):
                images = self.conv(images).relu()
            return self.head(images.mean((2, 3)))

    model = Loop()
    with method_for(model) as method:
        one_pass(model, method)
        model.times = 3
        with pytest.raises(StaleGraph, match=r"conv\.weight is used 2 times in this pass, more often than"):
            one_pass(model, method)


def test_another_activation_than_traced_is_refused():
    class Other(Shared):
        kind = staticmethod(F.relu)

        def forward(self, images):
            return self.head(self.kind(self.conv(images)).mean((2, 3)))

    model = Other()
    with method_for(model) as method:
        model.kind = F.silu
        with pytest.raises(StaleGraph, match="no Relu follows conv in this pass"):
            one_pass(model, method)
