"""Small networks and snapshots that several test files use."""

import copy
import time
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

IMAGE = (2, 3, 8, 8)


def image(seed: int = 0, shape: tuple[int, ...] = IMAGE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a model random weights and batch norms that do something, the same ones for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.2)
    return model


def chain(widths: tuple[int, ...] = (8, 12), seed: int = 0) -> nn.Sequential:
    """Convolutions ``0``, ``3``, ``6``... with batch norm and ReLU, then a linear head."""
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]
    return randomised(nn.Sequential(*layers, *head), seed)


class Residual(nn.Module):
    """A stem, a residual block with a narrow inside, a depthwise layer and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 10, 3, padding=1)
        self.inner_norm = nn.BatchNorm2d(10)
        self.outer = nn.Conv2d(10, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.slope = nn.PReLU(8)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem = torch.relu(self.stem_norm(self.stem(images)))
        block = stem + self.outer(torch.relu(self.inner_norm(self.inner(stem))))
        return self.head(self.slope(self.depthwise(block)).mean((2, 3)))


def residual(seed: int = 0) -> Residual:
    return randomised(Residual(), seed)


def train_step(model: nn.Module, optimizer: Optimizer, seed: int = 0) -> None:
    optimizer.zero_grad()
    model(image(seed)).square().mean().backward()
    optimizer.step()


def plain(value: object) -> object:
    """Turn nests of tensors into values that compare equal only where type, shape and every bit agree."""
    if isinstance(value, Tensor):
        content = value.detach().contiguous().flatten().view(torch.uint8) if value.numel() else value.flatten()
        return (str(value.dtype), tuple(value.shape), tuple(content.tolist()))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def snapshot(model: nn.Module, optimizers: Iterable[Optimizer] = ()) -> object:
    """Everything about a model and its optimisers that a refused cut must leave alone, identities included."""
    modules = {}
    for path, module in model.named_modules():
        hidden = {"_parameters", "_buffers", "_modules"}
        modules[path] = {name: copy.copy(value) for name, value in vars(module).items() if name not in hidden}
    named = [*model.named_parameters(), *model.named_buffers()]
    return (
        plain(dict(named)),
        {name: (id(tensor), tensor.requires_grad, plain(tensor.grad)) for name, tensor in named},
        modules,
        [plain(optimizer.state_dict()) for optimizer in optimizers],
    )


def leave_group() -> None:
    """Leave the process group, once its threads have let go of the tensors that they reduced.

    The last of a group's threads to do so needs the interpreter, for which PyTorch does not give way where Python drops
    the group meanwhile: seen to wait for ever once in some hundred times.
    """
    time.sleep(0.1)
    distributed.destroy_process_group()
