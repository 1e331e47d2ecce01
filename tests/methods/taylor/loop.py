"""A small training loop, its batches and its optimiser."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.helpers import image

SIZE = 6


def batch(number: int, dtype: torch.dtype = torch.float64, size: int = SIZE) -> tuple[Tensor, Tensor]:
    return image(number, (size, 3, 8, 8)).to(dtype), (torch.arange(size) * (number + 1)) % 4


def sgd(model: nn.Module, rate: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), rate, momentum=0.9)


def run(model, method, optimizer, steps, *, start=0, dtype=torch.float64, micro=1, scaler=None):
    """Train as a loop does; return the numbers of steps after which the model was cut."""
    cuts = []
    for number in range(start, start + steps):
        optimizer.zero_grad()
        images, labels = batch(number, dtype)
        for part in torch.arange(SIZE).chunk(micro):
            loss = cross_entropy(model(images[part]), labels[part]) / micro + method.penalty()
            (loss if scaler is None else scaler.scale(loss)).backward()
            method.after_backward()
        if scaler is not None:
            scaler.unscale_(optimizer)
        method.before_step(scaler)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        if method.after_step():
            cuts.append(number)
        if method.finished:
            break
    return cuts
