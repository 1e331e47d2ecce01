"""The ResNets of basic blocks for ImageNet: 18 and 34 layers."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from cutback.errors import UserMistake
from cutback.models.catalogue import ModelEntry, models
from cutback.models.resnet import BasicBlock
from cutback.surgery.initialise import initialise

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


class ImageNetResNet(nn.Module):
    """ResNet for ImageNet (He et al., 2016): four stages of 64 to 512 channels, projected where the shape changes.

    A 7x7 convolution and a 3x3 max pooling, both of stride 2, come before the stages; the first block of every stage
    but the first has stride 2.

    Args:
        depth: number of layers, 18 or 34.
        num_classes: number of outputs.
        in_channels: channels of the images.

    Raises:
        UserMistake: there is no such depth.
    """

    def __init__(self, depth: int, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise UserMistake(f"a ResNet of basic blocks has depth {' or '.join(map(str, BLOCKS))}, not {depth}")
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        before = WIDTHS[0]
        for number, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS[depth], strict=True), start=1):
            others = [BasicBlock(width, width, "B") for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(BasicBlock(before, width, "B"), *others))
            before = width
        self.linear = nn.Linear(before, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, H, W) of any size, meant for 224x224."""
        features = functional.max_pool2d(functional.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.linear(features.mean((2, 3)))


for _depth in BLOCKS:
    # Bound by position, so that the name accepts no option that contradicts it.
    models.register(f"resnet{_depth}")(
        ModelEntry(partial(ImageNetResNet, _depth), (3, 224, 224), 1000, f"ResNet-{_depth} for ImageNet (2016)")
    )
