"""The fast recorder against ``make_fx``: the same calls, the same constants, the same numbers and gradients."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cutback.errors import CaptureError, DataDependentControlFlow
from cutback.graph.capture import Capture, capture, made_by_make_fx, module_kind, module_path, recorded, source_line
from cutback.graph.clone import state_tensors
from cutback.graph.inputs import Inputs
from cutback.graph.recorder import Traced, Unrecordable
from tests.graph.random_networks import BLOCKS, RandomNetwork
from tests.graph.test_hard_cases import HARD, Net

IMAGES = torch.randn(2, 3, 6, 6)


def calls(found: Capture) -> list[object]:
    return [
        (n.op, n.name, n.target, str(n.args), str(n.kwargs), module_path(n), module_kind(n), source_line(n), values(n))
        for n in found.nodes
    ]


def values(node) -> object:
    def one(value):
        if isinstance(value, list | tuple):
            return [one(item) for item in value]
        return (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else value

    return one(node.meta.get("val"))


def results(found: Capture, model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
    """What a captured graph computes, and the gradients of the sum of everything it returns."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    states = {n: t.detach().clone().requires_grad_(n in trained) for n, t in state_tensors(model).items()}
    kept = copy.deepcopy(dict(found.constants))  # a constant may be written to
    torch.manual_seed(0)
    with torch.enable_grad():
        tensors = found.run(states, found.inputs)
    assert {name: tensor.tolist() for name, tensor in kept.items()} == {n: t.tolist() for n, t in kept.items()}
    real = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.requires_grad]
    leaves = [states[name] for name in sorted(trained)]
    gradients = torch.autograd.grad([t.sum() for t in real], leaves, allow_unused=True) if real and leaves else ()
    return [tensor.detach() for tensor in tensors], list(gradients)


def assert_same(fast: Capture, slow: Capture, model: nn.Module) -> None:
    for ours, theirs in zip(calls(fast), calls(slow), strict=True):
        assert ours == theirs
    assert fast.states == slow.states
    assert (fast.outputs, fast.module_outputs) == (slow.outputs, slow.module_outputs)
    assert list(fast.constants) == list(slow.constants)
    for name, tensor in fast.constants.items():
        assert torch.equal(tensor, slow.constants[name])
    for a, b in zip(results(fast, model), results(slow, model), strict=True):
        for ours, theirs in zip(a, b, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or (ours.dtype == theirs.dtype and torch.equal(ours.nan_to_num(), theirs.nan_to_num()))


def compare(model: nn.Module, inputs: object, *, modes=(False, True)) -> None:
    given = Inputs.of(inputs)
    for training in modes:
        assert_same(
            recorded(model, given, training=training),
            made_by_make_fx(model, given, training=training, reached=[]),
            model,
        )


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "swin_t", "googlenet"])
def test_a_public_architecture(name: str) -> None:
    options = {"init_weights": False, "aux_logits": True} if name == "googlenet" else {}
    compare(torchvision.models.get_model(name, weights=None, **options), torch.randn(2, 3, 64, 64))


SHAPES_IN_PLACE = {"in-place chain"}
"""Blocks that change the shape of a tensor in place, which only ``make_fx`` can record."""


def test_the_networks_of_the_property_tests() -> None:
    names = sorted(set(BLOCKS) - SHAPES_IN_PLACE)
    compare(RandomNetwork(names, "view"), torch.randn(2, 3, 8, 8))


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mask = None

    def forward(self, x):
        if self.mask is None:
            self.mask = torch.ones(6, x.shape[-1], device=x.device).tril()
        return x * self.mask + self.mask


class Averaging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        if self.training:
            self.mean = self.mean * 0.9 + x.detach().mean((0, 2, 3)) * 0.1
        return x - self.mean[:, None, None]


def without_gradient(_, x):
    with torch.no_grad():
        mean = x.mean(1, keepdim=True)
    return x - mean


def swallowed(_, x):
    try:
        return x * 2 if x.sum() > 0 else x * 3
    except Exception:  # noqa: BLE001 (that is the trap)
        return x * 4


def tokens(net, x):
    y = x.flatten(2).transpose(1, 2)
    return net.layer(y, y, y)[0].transpose(1, 2).unflatten(2, (6, 6))


def written(_, x):
    y = torch.empty_like(x)
    torch.mul(x.detach(), 2, out=y)
    y[:, ::2].mul_(3)
    y[y > 1] = 0
    return y.masked_fill_(x < 0, 1)


FOLLOWED = {
    "device of a tensor": (lambda _, x: x + torch.arange(6, device=x.device) + torch.zeros(6).to(x.device), {}),
    "branch on the device": (lambda _, x: x * 2 if x.device.type == "cpu" and not x.is_meta else x * 3, {}),
    "literal": (lambda _, x: x * torch.tensor([1.0, 2, 3, 4, 5, 6]), {}),
    "index by a list": (lambda _, x: x[:, [1, 0, 3, 2, 5, 4, 7, 6]], {}),
    "new tensors": (lambda _, x: x + x.new_ones(6) + x.new_tensor([2.0]) + torch.full((6,), 0.5), {}),
    "several results": (lambda _, x: x.max(1, keepdim=True).values + sum(x.chunk(4, 1)).repeat(1, 4, 1, 1), {}),
    "unpacked": (lambda _, x: torch.stack([t * 2 for t in x]), {}),
    "conversions": (lambda _, x: x.double().half().to(x).type_as(x).float().contiguous(), {}),
    "long and back": (lambda _, x: x + (x > 0).long().sum(1, keepdim=True), {}),
    "no gradient inside": (without_gradient, {}),
    "random": (lambda _, x: x + torch.rand_like(x) + torch.randn(6, device=x.device), {}),
    "kept by the module": (lambda net, x: net.layer(net.layer(x)), {"layer": Cached()}),
    "moving average by assignment": (lambda net, x: net.layer(x), {"layer": Averaging()}),
    "a parameter in a list": (lambda net, x: x * net.held[0] + net.held[0], {"held": [nn.Parameter(torch.ones(6))]}),
    "a constant twice": (lambda net, x: x * net.t + net.t.exp(), {"t": torch.rand(6)}),
    "a number the model holds": (lambda net, x: x * net.t.item(), {"t": torch.tensor(3.0)}),
    "autograd function": (lambda _, x: Doubled.apply(x), {}),
    "reentrant checkpoint": (lambda net, x: checkpoint(net.b, x, use_reentrant=True), {}),
    "attention": (tokens, {"layer": nn.MultiheadAttention(8, 2, batch_first=True)}),
    "scaled dot product": (lambda _, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1), {}),
    "recurrent": (
        lambda net, x: net.layer(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).unflatten(2, (6, 6)),
        {"layer": nn.LSTM(8, 4, num_layers=2, bidirectional=True, batch_first=True)},
    ),
    "weight norm": (lambda net, x: net.layer(x), {"layer": nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))}),
    "channels last": (lambda net, x: net.layer(x.to(memory_format=torch.channels_last)), {"layer": nn.BatchNorm2d(8)}),
    "einsum": (lambda net, x: torch.einsum("bchw,dc->bdhw", x, net.w), {"w": nn.Parameter(torch.rand(8, 8))}),
    "resampled": (lambda _, x: F.interpolate(F.pad(x, (1, 1, 0, 2), mode="reflect"), (6, 6), mode="bilinear"), {}),
    "written to": (written, {}),
    "shared layer": (
        lambda net, x: net.layer(net.layer(x)),
        {"layer": nn.Sequential(nn.Conv2d(8, 8, 1), nn.SiLU(True))},
    ),
    "frozen": (lambda net, x: net.layer(x), {"layer": nn.Conv2d(8, 8, 1).requires_grad_(False)}),
    "no batch": (lambda net, x: torch.stack([net.layer(t) for t in x]), {"layer": nn.Conv2d(8, 8, 1)}),
    "same padding": (lambda net, x: net.layer(x), {"layer": nn.Conv2d(8, 8, 3, padding="same", dilation=2)}),
    "grouped": (lambda net, x: net.layer(x), {"layer": nn.Conv2d(8, 8, 3, 1, 1, groups=4, bias=False)}),
    "layer norm of strided": (
        lambda net, x: net.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).relu(),
        {"layer": nn.LayerNorm(8)},
    ),
    "spectral norm": (
        lambda net, x: net.layer(x),
        {"layer": nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))},
    ),
    "hook": (lambda _, x: hooked(x), {}),
}


def hooked(x):
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient)
    return x * 2


@pytest.mark.parametrize("name", sorted(FOLLOWED))
def test_a_case_it_follows(name: str) -> None:
    function, extra = FOLLOWED[name]
    compare(Net(function, **extra), IMAGES)


LEFT = {
    "autocast": lambda _, x: autocast(x),
    "shape changed in place": lambda _, x: (x.clone().unsqueeze_(2) * 2).squeeze(2),
    "asked for gradients": lambda net, x: (
        x if torch.autograd.grad(net.b(x).sum(), net.b.weight, allow_unused=True) else x * 2
    ),
    "a literal that is read": lambda _, x: x * torch.tensor([2.0, 3.0]).sum().item(),
    "complex": lambda _, x: torch.fft.fft(x, dim=3).abs(),
}


def autocast(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ x.transpose(2, 3)
    return y.float() * y.dtype.itemsize


@pytest.mark.parametrize("name", sorted(LEFT))
def test_a_case_it_leaves_to_make_fx(name: str) -> None:
    model, inputs = Net(LEFT[name]), Inputs.of(IMAGES)
    with pytest.raises(Unrecordable):
        recorded(model, inputs, training=False)
    assert_same(
        capture(model, inputs, training=False), made_by_make_fx(model, inputs, training=False, reached=[]), model
    )


@pytest.mark.parametrize("name", sorted(HARD))
def test_a_hard_case_either_way(name: str) -> None:
    function, extra = HARD[name]
    model, inputs = Net(function, **extra), Inputs.of(IMAGES)
    for training in (False, True):
        slow = made_by_make_fx(model, inputs, training=training, reached=[])
        assert_same(capture(model, inputs, training=training), slow, model)


@pytest.mark.parametrize(
    "function",
    [
        lambda _, x: x * 2 if x.sum() > 0 else x,
        lambda _, x: x[:, x.sum((0, 2, 3)) > 0],
        lambda _, x: x * x.mean().item(),
        lambda _, x: x[x > 0].mean() + x,
        lambda _, x: x * len(x.flatten().nonzero()),
        lambda _, x: x * sum(x.mean((1, 2, 3)).tolist()),
        swallowed,
    ],
)
def test_decisions_by_value_are_refused(function) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 (whichever way it fails, the recorder must not return a graph)
        recorded(Net(function), Inputs.of(IMAGES), training=False)


@pytest.mark.parametrize(
    "function",
    [
        lambda _, x: torch.vmap(lambda t: t * 2)(x),
        lambda _, x: torch.func.grad(lambda t: (t**2).sum())(x),
    ],
)
def test_a_transform_of_functions_is_refused(function) -> None:
    with pytest.raises(Unrecordable):
        recorded(Net(function), Inputs.of(IMAGES), training=False)
    with pytest.raises(CaptureError):
        capture(Net(function), Inputs.of(IMAGES), training=False)


def test_values_taken_past_autograd_are_followed() -> None:
    model = Net(lambda net, x: x + x.data * net.b.weight.data.sum()).eval()
    found = recorded(model, Inputs.of(IMAGES), training=False)
    assert not found.constants
    assert torch.equal(found.run(state_tensors(model), found.inputs)[0], model(IMAGES))


def test_a_decision_by_value_is_named() -> None:
    with pytest.raises(DataDependentControlFlow):
        capture(Net(lambda _, x: x * 2 if x.sum() > 0 else x), Inputs.of(IMAGES), training=False)


def test_tensors_of_several_devices_are_left_to_make_fx() -> None:
    with pytest.raises(Unrecordable, match="several devices"):
        recorded(Net(), Inputs.of(IMAGES.to("meta")), training=False)


def test_half_precision_and_tokens() -> None:
    compare(Net(lambda _, x: x.softmax(1)).bfloat16(), IMAGES.bfloat16())
    compare(nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 4)), torch.randint(0, 11, (2, 5)))


def test_a_leaked_tensor_says_so() -> None:
    leaked = []

    def leak(_, x):
        leaked.append(x)
        return x

    recorded(Net(leak), Inputs.of(IMAGES), training=False)
    assert isinstance(leaked[0], Traced)
    with pytest.raises(Unrecordable, match="past the recorder"):
        leaked[0] + 1
    with pytest.raises(Unrecordable, match="another recording"):
        recorded(Net(lambda _, x: x + leaked[0]), Inputs.of(IMAGES), training=False)


def test_the_model_is_left_as_it_is_and_its_line_is_noted() -> None:
    model = Net(lambda net, x: net.layer(x), layer=Cached())
    found = capture(model, Inputs.of(IMAGES), training=True)
    assert model.layer.mask is None
    tril = next(node for node in found.nodes if node.name == "tril")
    assert source_line(tril).startswith("tests/graph/test_recorder.py:")
    assert module_path(tril) == "layer"
