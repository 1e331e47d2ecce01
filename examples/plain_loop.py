"""Any pruning method in a training loop of one's own, stopped half way and taken up again.

The loop accumulates gradients, clips them, averages weights and keeps checkpoints::

    python examples/plain_loop.py                                   # filter pruning by L1 norm, all at once
    python examples/plain_loop.py l1 schedule=layers steps=20       # layer by layer, training in between

Everything that is about pruning is marked with ``# cutback``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel

import cutback

BATCH, MICRO_BATCHES, EPOCHS = 64, 2, 4


def make_model() -> nn.Module:
    """Return the network, untrained."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


def load_pictures() -> tuple[Tensor, Tensor]:
    """Return 1,024 handwritten digits ``(N, 1, 8, 8)`` and their labels ``(N,)``."""
    digits = load_digits()
    pictures = torch.tensor(digits.images, dtype=torch.float32)[:1024, None] / 8 - 1
    return pictures, torch.tensor(digits.target)[:1024]


def train(name: str, settings: dict[str, str], checkpoint: Path, stop_after: int | None = None) -> nn.Module:
    """Train and prune; go on from the checkpoint if there is one.

    Args:
        name: of a method, see ``cutback methods``.
        settings: of the method, as written on a command line.
        checkpoint: file to write after each step, and to go on from.
        stop_after: leave after so many steps, as if the power had failed.
    """
    pictures, labels = load_pictures()
    batches = list(zip(pictures.split(BATCH), labels.split(BATCH), strict=True)) * EPOCHS
    saved = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    model = make_model()
    averaged = AveragedModel(model)
    if saved is not None and saved["method"]["plan"] is not None:  # cutback: make it as narrow as it was
        so_far = cutback.Plan.from_json(saved["method"]["plan"])
        cutback.apply_(cutback.trace(model, pictures[:2]), so_far, copies=[averaged], prove=False)
    if saved is not None:
        model.load_state_dict(saved["model"])
        averaged.load_state_dict(saved["averaged"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    method = cutback.methods.make_method(  # cutback
        name,
        cutback.trace(model, pictures[:2]),
        settings=settings,
        given={"budget": "macs=50%", "optimizers": [optimizer], "copies": [averaged], "loss": cross_entropy},
    )
    first = 0
    if saved is not None:
        method.load_state_dict(saved["method"])  # cutback: before it is attached
        first = saved["step"]
    with method:  # cutback
        if saved is not None:
            optimizer.load_state_dict(saved["optimizer"])  # once the method is attached: its parameters are there too
        model.train()
        for step, (inputs, targets) in enumerate(batches[first:stop_after], start=first + 1):
            for part, wanted in zip(inputs.chunk(MICRO_BATCHES), targets.chunk(MICRO_BATCHES), strict=True):
                loss = cross_entropy(model(part), wanted) / MICRO_BATCHES
                (loss + method.penalty() / MICRO_BATCHES).backward()  # cutback: the penalty, for methods that have one
                method.after_backward()  # cutback
            method.before_step()  # cutback: before clipping
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            averaged.update_parameters(model)
            method.after_step()  # cutback: a method that cuts as it goes does it here
            state = {
                "step": step,
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
                "method": method.state_dict(),  # cutback
            }
            torch.save(state, checkpoint)
    return model


def main(arguments: Sequence[str]) -> nn.Module:
    """Train half the way, go on from the checkpoint, and say what is left."""
    name, *written = arguments or ["l1"]
    settings = {key: value for key, _, value in (text.partition("=") for text in written)}
    with TemporaryDirectory() as folder:
        train(name, settings, Path(folder) / "checkpoint.pt", stop_after=20)
        model = train(name, settings, Path(folder) / "checkpoint.pt")
    pictures, labels = load_pictures()
    dense, small = (cutback.measure.macs(net, pictures[:1]) for net in (make_model(), model))
    with torch.no_grad():
        right = (model.eval()(pictures).argmax(1) == labels).float().mean()
    print(f"{name}: {small / dense:.1%} of the MACs, {right:.1%} of the pictures right")
    return model


if __name__ == "__main__":
    main(sys.argv[1:])
