"""Any pruning method in PyTorch Lightning: a callback that attaches it and calls it at each step.

::

    python examples/lightning_callback.py                              # filter pruning by L1 norm, all at once
    python examples/lightning_callback.py l1 schedule=layers steps=20  # layer by layer, training in between

The module adds ``self.penalty()`` to its loss. Lightning unscales gradients before ``on_before_optimizer_step`` and
clips them after it, which is where a method reads them.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import cutback


class PruningCallback(Callback):
    """Prunes ``module.net`` while Lightning trains it.

    Args:
        name: of a method, see ``cutback methods``.
        example: example inputs of the network.
        settings: of the method, as written on a command line.
        **given: what else it may need: ``budget``, ``loader``, ``loss``, ``evaluate``.

    Attributes:
        method: the method, once training has begun.
    """

    def __init__(self, name: str, example: Tensor, settings: dict[str, str] | None = None, **given: object) -> None:
        self.name, self.example, self.settings, self.given = name, example, settings, given
        self.method: cutback.methods.Method | None = None
        self._attached, self._steps = ExitStack(), 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: "Classifier") -> None:
        """Make the method of the network and its optimisers, and attach it."""
        graph = cutback.trace(pl_module.net, self.example.to(pl_module.device))
        given = {**self.given, "optimizers": trainer.optimizers}
        self.method = cutback.methods.make_method(self.name, graph, settings=self.settings, given=given)
        self._attached.enter_context(self.method)
        pl_module.penalty = self.method.penalty
        self._steps = trainer.global_step

    def on_after_backward(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Tell the method of a micro-batch."""
        self.method.after_backward()

    def on_before_optimizer_step(self, trainer: lightning.Trainer, *_: object) -> None:
        """Let the method read and edit the gradients, which are whole and not clipped yet."""
        self.method.before_step(getattr(trainer.precision_plugin, "scaler", None))

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Go on with the method's schedule, if the optimiser has made a step."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self.method.after_step()

    def on_train_end(self, *_: object) -> None:
        """Take the method out of the network."""
        self._attached.close()

    def on_exception(self, *_: object) -> None:
        """Take the method out of the network, whatever has happened."""
        self._attached.close()


class Classifier(lightning.LightningModule):
    """An ordinary module: the network, the loss and the optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
        )
        self.penalty: Callable[[], Tensor] = lambda: torch.zeros(())

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch, with the method's penalty."""
        pictures, labels = batch
        return cross_entropy(self.net(pictures), labels) + self.penalty()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main(arguments: Sequence[str]) -> nn.Module:
    """Train for four epochs, pruning, and say what is left."""
    name, *written = arguments or ["l1"]
    settings = {key: value for key, _, value in (text.partition("=") for text in written)}
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning.*")
    digits = load_digits()
    pictures = torch.tensor(digits.images, dtype=torch.float32)[:1024, None] / 8 - 1
    labels = torch.tensor(digits.target)[:1024]
    torch.manual_seed(0)
    module = Classifier()
    dense = cutback.measure.macs(module.net, pictures[:1])
    pruning = PruningCallback(name, pictures[:2], settings, budget="macs=50%", loss=cross_entropy)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(
        max_epochs=4,
        accelerator="cpu",
        devices=1,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        callbacks=[pruning],
        **quiet,
    )
    trainer.fit(module, DataLoader(TensorDataset(pictures, labels), 32, shuffle=True))
    small = cutback.measure.macs(module.net, pictures[:1])
    with torch.no_grad():
        right = (module.net.eval()(pictures).argmax(1) == labels).float().mean()
    print(f"{name}: {small / dense:.1%} of the MACs, {right:.1%} of the pictures right")
    return module.net


if __name__ == "__main__":
    main(sys.argv[1:])
