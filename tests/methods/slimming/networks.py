"""Networks that slimming is tried on, with scales that differ."""

import torch
from torch import Tensor, nn

import cutback
from cutback.graph.graph import Graph
from cutback.methods.slimming import ChannelSelection
from tests.helpers import chain, image, randomised


class Block(nn.Module):
    """A stem, two pre-activation blocks that read its stream through selections, and a selecting head."""

    def __init__(self, *, selects: bool = True) -> None:
        super().__init__()

        def select(channels: int) -> nn.Module:
            return ChannelSelection(channels) if selects else nn.Identity()

        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1, self.select1, self.conv1 = nn.BatchNorm2d(8), select(8), nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1, bias=False)
        self.bn3, self.select3, self.conv3 = nn.BatchNorm2d(8), select(8), nn.Conv2d(8, 8, 1, bias=False)
        self.bn4, self.select4, self.head = nn.BatchNorm2d(8), select(8), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.stem(images)
        stream = stream + self.conv2(self.bn2(self.conv1(self.select1(self.bn1(stream)).relu())).relu())
        stream = stream + self.conv3(self.select3(self.bn3(stream)).relu())
        return self.head(self.select4(self.bn4(stream)).relu().mean((2, 3)))


def block(seed: int = 0, *, selects: bool = True) -> nn.Module:
    return spread(randomised(Block(selects=selects), seed), seed)


def chained() -> nn.Module:
    return spread(chain((8, 12)))


def spread(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms scales of either sign and very different size, and shifts that matter."""
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                first, second, third = torch.randn((3, *module.weight.shape), generator=generator)
                module.weight.copy_(first.exp() * second)
                module.bias.copy_(third * 0.3)
    return model


def traced(model: nn.Module) -> Graph:
    return cutback.trace(model, image())


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    return {path: m for path, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def run(method, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[bool]:
    """Train a few steps as a user's loop does; return after which the model was cut."""
    cuts = []
    with method:
        for step in range(steps):
            optimizer.zero_grad()
            (model(image(step)).square().mean() + method.penalty()).backward()
            method.after_backward()
            method.before_step()
            optimizer.step()
            cuts.append(method.after_step())
    return cuts
