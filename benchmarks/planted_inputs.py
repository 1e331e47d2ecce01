"""A task of which it is known what matters: six of 32 inputs, and what selecting them is worth on another task.

The teacher's class is the largest of three standardised outputs of ``tanh(x A) B``, where ``x`` are the six inputs,
rows of ``A`` have norm 3 and 16 units are hidden. The student has 32 hidden ReLUs, and a mask on its inputs that is
learned apart from its weights, which are drawn anew every 60 steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cutback.methods.subarchitecture import Relaxation

INPUTS, RELEVANT, HIDDEN, CLASSES = 32, 6, 16, 3
SAMPLES, BATCH, CYCLES, STEPS = 4000, 128, 25, 60
RATE, PRICE = 5e-3, 0.002
TRANSFERRED, TRANSFER_STEPS, TESTED = 60, 400, 2000
Set = tuple[Tensor, Tensor]


def relevant(seed: int) -> Tensor:
    """Return which inputs matter, six numbers."""
    return torch.randperm(INPUTS, generator=torch.Generator().manual_seed(seed))[:RELEVANT].sort().values


def teacher(inputs: Tensor, seed: int) -> Callable[[int, int], Set]:
    """Return what draws so many samples with a seed: inputs ``(N, 32)`` and classes ``(N,)``."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(RELEVANT, HIDDEN, generator=generator)
    first = 3 * first / first.norm(dim=1, keepdim=True)
    second = torch.randn(HIDDEN, CLASSES, generator=generator)

    def drawn(count: int, seed: int) -> Set:
        x = torch.randn(count, INPUTS, generator=torch.Generator().manual_seed(seed))
        outputs = torch.tanh(x[:, inputs] @ first) @ second
        return x, ((outputs - outputs.mean(0)) / outputs.std(0)).argmax(1)

    return drawn


def student() -> nn.Sequential:
    """Return the student, from torch's global random state."""
    return nn.Sequential(nn.Linear(INPUTS, 32), nn.ReLU(), nn.Linear(32, CLASSES))


@dataclass(frozen=True)
class Searched:
    """What a search has found.

    Attributes:
        kept: which inputs stay, ``(32,)``.
        gap: by how much the loss of the last student differs between the cold mask and zeros and ones.
    """

    kept: Tensor
    gap: float


def search(
    data: Set, seed: int, *, price: float = PRICE, cold: float = 0.02, warm: float = 1.0, cycles: int = CYCLES
) -> Searched:
    """Learn which inputs stay."""
    torch.manual_seed(seed)
    relaxation = Relaxation(torch.full((INPUTS,), 0.5), cold=cold, warm=warm, rate=0.05, momentum=0.9)
    x, classes = data
    model = student()
    for _ in range(cycles):
        model = student()
        optimizer = torch.optim.Adam(model.parameters(), RATE)
        for _ in range(STEPS):
            chosen = torch.randint(len(x), (BATCH,))
            mask = relaxation.mask.requires_grad_()
            optimizer.zero_grad()
            cross_entropy(model(x[chosen] * mask), classes[chosen]).backward()
            optimizer.step()
            if mask.grad is None:
                raise RuntimeError("no gradient has reached the mask")
            relaxation.step(mask.grad + price)
    with torch.no_grad():
        soft, hard = (cross_entropy(model(x * mask), classes) for mask in (relaxation.mask, relaxation.kept.float()))
    return Searched(relaxation.kept, abs(float(soft - hard)))


def transferred(kept: Tensor, draw: Callable[[int, int], Set], seed: int) -> float:
    """Return the accuracy of a student with some inputs on a task that it has few samples of, in 0..1."""
    torch.manual_seed(seed)
    (x, classes), (other, expected) = draw(TRANSFERRED, 1000 + seed), draw(TESTED, 2000 + seed)
    model, mask = student(), kept.float()
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    for _ in range(TRANSFER_STEPS):
        optimizer.zero_grad()
        cross_entropy(model(x * mask), classes).backward()
        optimizer.step()
    with torch.no_grad():
        return float((model(other * mask).argmax(1) == expected).double().mean())


def random_mask(count: int, seed: int) -> Tensor:
    """Return a mask of so many inputs by chance."""
    kept = torch.zeros(INPUTS, dtype=torch.bool)
    kept[torch.randperm(INPUTS, generator=torch.Generator().manual_seed(seed))[:count]] = True
    return kept
