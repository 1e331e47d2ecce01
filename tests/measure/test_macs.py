"""MACs against published figures and formulas by hand."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

import cutback
from cutback.errors import CaptureError
from cutback.measure import macs, params
from cutback.models import build


class Does(nn.Module):
    """Wraps a function of tensors."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, *tensors):
        return self.function(self, *tensors)


def test_resnet50_at_224():
    model = torchvision.models.resnet50(weights=None)
    assert macs(model, torch.zeros(1, 3, 224, 224)) == 4_089_184_256
    assert params(model) == 25_557_032


@pytest.mark.parametrize(
    ("name", "expected"), [("resnet56", (125_485_696, 853_018)), ("resnet110", (252_887_680, 1_727_962))]
)
def test_cifar_resnets(name, expected):
    model = build(name)
    assert (macs(model, torch.zeros(1, 3, 32, 32)), params(model)) == expected


BY_HAND = {
    "convolution": (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 9), 8 * 3 * 9 * 25),
    "same padding": (nn.Conv2d(3, 8, 3, padding="same", dilation=2), (3, 9, 9), 8 * 3 * 9 * 81),
    "grouped": (nn.Conv2d(6, 8, 3, groups=2), (6, 5, 5), 8 * 3 * 9 * 9),
    "depthwise": (nn.Conv2d(6, 12, 3, groups=6), (6, 5, 5), 12 * 9 * 9),
    "one dimension": (nn.Conv1d(4, 5, 3), (4, 10), 5 * 4 * 3 * 8),
    "three dimensions": (nn.Conv3d(2, 3, 2), (2, 4, 4, 4), 3 * 2 * 8 * 27),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2), (6, 5, 5), 6 * 4 * 9 * 25),
    "transposed and grouped": (nn.ConvTranspose2d(6, 4, 3, groups=2), (6, 5, 5), 6 * 2 * 9 * 25),
    "linear": (nn.Linear(7, 5), (7,), 35),
    "linear on every token": (nn.Linear(7, 5), (11, 7), 35 * 11),
    "norm, activation and pooling are free": (
        nn.Sequential(nn.BatchNorm2d(3), nn.GELU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2)),
        (3, 8, 8),
        0,
    ),
    "a weight used twice": (
        Does(lambda self, x: self.layers[0](self.layers[0](x)), nn.Conv2d(4, 4, 1)),
        (4, 5, 5),
        2 * 16 * 25,
    ),
    "a computed weight": (
        Does(lambda self, x: functional.conv2d(x, self.layers[0].weight * 2), nn.Conv2d(4, 6, 1)),
        (4, 5, 5),
        24 * 25,
    ),
    "matrix product": (Does(lambda _, x: x @ x.transpose(1, 2)), (5, 7), 5 * 7 * 5),
    "batched matrix product": (Does(lambda _, x: torch.bmm(x, x.transpose(1, 2))), (5, 7), 5 * 7 * 5),
    "einsum": (Does(lambda _, x: torch.einsum("bij,bkj->bik", x, x)), (5, 7), 5 * 7 * 5),
    "einsum with dots": (Does(lambda _, x: torch.einsum("...ij, ...kj", x, x)), (2, 5, 7), 2 * 5 * 7 * 5),
    "einsum of three": (Does(lambda _, x: torch.einsum("bij,bkj,bkl->bil", x, x, x)), (5, 7), 2 * 5 * 7 * 5),
    "einsum that sums nothing": (Does(lambda _, x: torch.einsum("bij,bij->bij", x, x)), (5, 7), 0),
    "matrix and vector": (Does(lambda self, x: x @ self.layers[0].weight[0], nn.Linear(7, 2)), (5, 7), 5 * 7),
    "recurrent": (
        nn.GRU(6, 5, num_layers=2, bidirectional=True, batch_first=True),
        (11, 6),
        11 * 2 * (3 * 5 * (6 + 5) + 3 * 5 * (10 + 5)),
    ),
    "recurrent, projected": (
        nn.LSTM(6, 5, proj_size=4, batch_first=True),
        (11, 6),
        11 * (4 * 5 * (6 + 4) + 4 * 5),
    ),
    "a recurrent cell": (nn.LSTMCell(6, 5), (6,), 4 * 5 * (6 + 5)),
    "attention": (
        Does(lambda _, x: functional.scaled_dot_product_attention(x, x[..., :9, :], x[..., :9, :4])),
        (2, 11, 6),
        2 * 11 * 9 * (6 + 4),
    ),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("what", BY_HAND)
def test_by_hand_at_any_batch_size(what, batch):
    model, shape, expected = BY_HAND[what]
    assert macs(model, torch.zeros(batch, *shape)) == expected


WITHOUT_A_BATCH = {
    "one dimension": (nn.Conv1d(4, 5, 3), torch.zeros(4, 10), 5 * 4 * 3 * 8),
    "two dimensions": (nn.Conv2d(3, 8, 3), torch.zeros(3, 10, 10), 8 * 27 * 64),
    "transposed": (nn.ConvTranspose2d(6, 4, 3), torch.zeros(6, 5, 5), 6 * 4 * 9 * 25),
    "a batch made by the model": (
        Does(lambda self, x: self.layers[0](x[None]), nn.Conv2d(3, 8, 3)),
        torch.zeros(3, 10, 10),
        8 * 27 * 64,
    ),
    "linear": (nn.Linear(7, 5), torch.zeros(7), 35),
}


@pytest.mark.parametrize("what", WITHOUT_A_BATCH)
def test_a_sample_without_a_batch(what):
    model, sample, expected = WITHOUT_A_BATCH[what]
    assert macs(model, sample) == expected


def two_inputs(self, step, image):
    return self.layers[1](image + self.layers[0](step)[..., None, None].mean())


BATCHES = {
    "another input first": (Does(two_inputs, nn.Linear(4, 3), nn.Conv2d(3, 8, 3)), ((4,), (2, 3, 10, 10)), 2),
    "frames folded into the batch": (
        Does(lambda self, x: self.layers[0](x.flatten(0, 1)), nn.Conv2d(3, 8, 3)),
        ((2, 5, 3, 10, 10),),
        2,
    ),
    "one convolution a sample": (
        Does(lambda self, x: torch.stack([self.layers[0](one) for one in x]), nn.Conv2d(3, 8, 3)),
        ((4, 3, 10, 10),),
        4,
    ),
    "samples stacked by the model": (
        Does(lambda self, *images: self.layers[0](torch.stack(images)), nn.Conv2d(3, 8, 3)),
        ((3, 10, 10),) * 4,
        4,
    ),
    "channels added by the model": (
        Does(lambda self, x: self.layers[0](x[:, None]), nn.Conv2d(1, 8, 3)),
        ((4, 10, 10),),
        4,
    ),
    "time before the batch": (
        Does(lambda self, x: self.layers[0](x.permute(1, 2, 0)), nn.Conv1d(3, 8, 3)),
        ((10, 4, 3),),
        4,
    ),
}


@pytest.mark.parametrize("what", BATCHES)
def test_the_batch_is_that_of_the_convolution(what):
    model, shapes, batch = BATCHES[what]
    found = macs(model, tuple(torch.zeros(shape) for shape in shapes))
    recorded = []
    count = lambda layer, given, out: recorded.append(out.numel() // out.shape[-3] * layer.weight.numel())  # noqa: E731
    convolution = model.layers[-1]
    if isinstance(convolution, nn.Conv1d):
        count = lambda layer, given, out: recorded.append(out.numel() // 8 * layer.weight.numel())  # noqa: E731
    convolution.register_forward_hook(count)
    model(*(torch.zeros(shape) for shape in shapes))
    linear = 12 if len(model.layers) > 1 else 0  # its input has no batch: one for all samples
    assert found == (sum(recorded) + linear) // batch


def test_the_order_of_keyword_arguments_does_not_matter():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.step, self.body = nn.Linear(4, 3), nn.Conv2d(3, 8, 3)

        def forward(self, t, img):
            return self.body(img) * self.step(t).mean()

    step, image = torch.zeros(4), torch.zeros(1, 3, 10, 10)
    assert macs(Net(), {"t": step, "img": image}) == macs(Net(), {"img": image, "t": step}) == 8 * 27 * 64 + 12


def test_measuring_leaves_the_mode_and_statistics_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    macs(model, torch.ones(2, 3, 4, 4))
    assert model.training
    assert model[1].num_batches_tracked == 0
    assert torch.equal(model[1].running_mean, torch.zeros(4))


def test_tied_parameters_count_once_and_buffers_do_not():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    assert params(nn.Sequential(first, second, nn.BatchNorm1d(3))) == 9 + 6


def test_a_model_that_fails_is_named():
    with pytest.raises(CaptureError, match=r"Conv2d failed in eval mode on inputs of shape \(1, 4, 5, 5\)"):
        cutback.measure.macs(nn.Conv2d(3, 4, 1), torch.zeros(1, 4, 5, 5))
