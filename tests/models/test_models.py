"""The networks that come along: exact sizes, shapes, and the published weights they must accept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cutback.errors import UnknownName, UserMistake
from cutback.models import CifarDenseNet, PreActivationResNet, build, models
from cutback.models.resnet import PaddedShortcut

SIZES = {  # parameters, multiply-accumulates of convolutions and linear layers
    "alexnet": (5_871_434, 182_220_800),
    "lenet5": (431_080, 2_293_000),
    "mlp": (545_810, 545_000),
    "mlp-bn": (545_810 + 2 * 800, 545_000),
    "vgg16": (14_987_722, 313_463_808),
    "vgg19": (20_035_018, 398_136_320),
    "resnet164": (1_703_258, 247_646_720),
    "densenet40": (1_019_722, 264_812_928),
    "resnet20": (269_722, 40_551_040),
    "resnet56": (853_018, 125_485_696),
    "resnet110": (1_727_962, 252_887_680),
    # Two projections, 16 to 32 and 32 to 64 channels, each on a grid of a quarter of the pixels.
    "resnet56-b": (853_018 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64, 125_485_696 + 16 * 32 * 256 + 32 * 64 * 64),
    "resnet34": (21_797_672, 3_663_761_408),
    "mobilenetv1": (3_217_226, 46_354_432),
}
WEIGHTS = [
    *[f"cifar10_resnet/resnet{depth}" for depth in (20, 32, 44, 56)],
    *[f"cifar10_resnet_jpeg/resnet{depth}" for depth in (20, 56)],
]


def shared_data() -> Path:
    """Return the folder of shared data beside the repository, or skip the test where there is none."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return folder


@contextmanager
def counted_macs(model: nn.Module) -> Iterator[list[int]]:
    """Collect the multiply-accumulates of every convolution and linear layer that runs, for one sample."""
    macs: list[int] = []

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        macs.append(output[0, 0].numel() * module.get_parameter("weight").numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    try:
        yield macs
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_macs_are_exact(name: str) -> None:
    model = build(name).eval()
    with torch.no_grad(), counted_macs(model) as macs:
        model(torch.zeros(1, *models.get(name).input_shape))
    assert (sum(parameter.numel() for parameter in model.parameters()), sum(macs)) == SIZES[name]


PUBLISHED = {"vgg19": (20.04e6, 7.97e8), "resnet164": (1.70e6, 4.99e8), "densenet40": (1.02e6, 5.33e8)}
"""Parameters and FLOPs (two a multiply-accumulate, of all layers) as Liu et al. (2017) print them."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_that_network_slimming_reports(name: str) -> None:
    params, macs = SIZES[name]
    assert round(params, -4) == PUBLISHED[name][0]
    assert 0.99 < 2 * macs / PUBLISHED[name][1] < 1.0005


@pytest.mark.parametrize("name", [name for name in models if name != "retinanet"])
def test_every_classifier_maps_its_input_shape_to_its_classes(name: str) -> None:
    entry = models.get(name)
    channels, height, width = entry.input_shape
    with torch.no_grad():
        output = build(name).eval()(torch.randn(2, channels, height, width))
        other = build(name, num_classes=7, in_channels=2).eval()(torch.randn(2, 2, height, width))
    assert output.shape == (2, entry.num_classes)
    assert other.shape == (2, 7)
    assert output.isfinite().all()


@pytest.mark.parametrize(("name", "size"), [("lenet5", 32), ("alexnet", 28), ("alexnet", 15), ("mlp", 8)])
def test_input_size_is_an_option_where_a_linear_layer_depends_on_it(name: str, size: int) -> None:
    channels = models.get(name).input_shape[0]
    assert build(name, input_size=size)(torch.randn(2, channels, size, size)).shape == (2, 10)


@pytest.mark.parametrize("size", [8, 13, 40])
@pytest.mark.parametrize("name", ["resnet20", "resnet20-b"])
def test_resnet_takes_any_input_size(name: str, size: int) -> None:
    assert build(name, in_channels=1)(torch.randn(2, 1, size, size)).shape == (2, 10)


def test_padded_shortcut_keeps_the_input_in_the_middle_and_passes_gradients() -> None:
    features = torch.randn(2, 4, 5, 5, requires_grad=True)
    output = PaddedShortcut(4, 8)(features)
    assert torch.equal(output[:, 2:6], features[:, :, ::2, ::2])
    assert not output[:, :2].any()
    assert not output[:, 6:].any()
    output.sum().backward()
    assert features.grad is not None
    assert features.grad.sum() == 2 * 4 * 3 * 3


def test_resnet_forward_follows_widths_changed_from_outside() -> None:
    model = build("resnet20").eval()
    block = model.get_submodule("layer2.0")
    block.conv1, block.bn1 = nn.Conv2d(16, 5, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(5)
    block.conv2 = nn.Conv2d(5, 32, 3, padding=1, bias=False)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 10)


def test_mobilenet_width_scales_channels() -> None:
    thin = build("mobilenetv1", width=0.25)
    assert thin.state_dict()["linear.weight"].shape == (10, 256)
    assert thin(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownName, match="resnet20"):
        build("resnet21")
    with pytest.raises(UserMistake, match="num_classes"):
        build("vgg16", num_clases=3)
    with pytest.raises(UserMistake, match="'A' or 'B'"):
        build("resnet20", shortcut="C")
    with pytest.raises(UserMistake, match="9 n"):
        PreActivationResNet(21)
    with pytest.raises(UserMistake, match="3 n"):
        CifarDenseNet(41)
    with pytest.raises(UserMistake, match="at least 16"):
        build("lenet5", input_size=8)


@pytest.mark.parametrize("file", WEIGHTS)
def test_published_weights_load_strictly(file: str) -> None:
    path = shared_data() / f"{file}.safetensors"
    load_file = pytest.importorskip("safetensors.torch").load_file
    model = build(path.stem).eval()
    model.load_state_dict(load_file(path), strict=True)
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).isfinite().all()
