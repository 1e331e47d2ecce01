"""A new head: found by what makes the output, put in its place, and refused where that is not one layer."""

import pytest
import torch
from torch import Tensor, nn

from cutback.errors import UserMistake
from cutback.train import replace_head


class Attended(nn.Module):
    """Its head is registered first and has twins in width that run before it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 6
        self.head = nn.Linear(6, 6, bias=False)
        self.stem = nn.Conv2d(3, 6, 1)
        self.middle = nn.Linear(6, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(images).mean((2, 3))))


class Convolutional(nn.Module):
    """A head like SqueezeNet's: 1x1 convolution, ReLU, mean; returned in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.classifier = nn.Sequential(nn.Conv2d(8, 10, 1), nn.ReLU())

    def forward(self, images: Tensor) -> tuple[Tensor, int]:
        return self.classifier(self.features(images)).mean((2, 3)), 1


def test_the_last_layer_that_makes_the_output_is_replaced() -> None:
    model = Attended().double()
    middle, images = model.middle, torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert replace_head(model, 9, images) is model
    assert model(images).shape == (2, 9)
    assert (model.head.in_features, model.head.bias, model.num_classes) == (6, None, 9)
    assert model.middle is middle
    assert middle.out_features == 6
    assert model.training


def test_a_convolution_can_be_the_head() -> None:
    model, images = Convolutional(), torch.randn(1, 3, 8, 8)
    means = model.features[1].running_mean.clone()
    replace_head(model, 4, images)
    assert model(images)[0].shape == (1, 4)
    assert torch.equal(means, Convolutional().features[1].running_mean)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_head_of_the_right_size_is_left_alone() -> None:
    model = Attended()
    head = model.head
    assert replace_head(model, 6, torch.randn(1, 3, 4, 4)).head is head


def test_a_convolution_with_stride_keeps_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    replace_head(model, 7, torch.randn(1, 3, 8, 8))
    assert (model[0].out_channels, model[0].stride) == (7, (2, 2))


def test_what_has_no_single_head_is_refused_and_unchanged() -> None:
    class Doubled(Attended):
        def forward(self, images: Tensor) -> Tensor:
            outputs = super().forward(images)
            return torch.cat([outputs[:, :3], outputs[:, :3]], dim=1)

    model = Doubled()
    head = model.head
    with pytest.raises(UserMistake, match="head of Doubled does not alone make its outputs"):
        replace_head(model, 4, torch.randn(1, 3, 4, 4))
    assert model.head is head
    assert model.num_classes == 6
    with pytest.raises(UserMistake, match="no linear layer or 1x1 convolution of Sequential makes its 6 outputs"):
        replace_head(nn.Sequential(nn.Conv2d(1, 6, 3), nn.Flatten()), 4, torch.randn(1, 1, 3, 3))
    with pytest.raises(UserMistake, match=r"does not run on inputs of shape \(1, 1, 4, 4\)"):
        replace_head(Attended(), 4, torch.randn(1, 1, 4, 4))
