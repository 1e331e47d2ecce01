"""Any pruning method in the Trainer of Hugging Face transformers.

::

    python examples/transformers_callback.py                              # filter pruning by L1 norm, all at once
    python examples/transformers_callback.py l1 schedule=layers steps=20  # layer by layer, training in between

Callbacks of the Trainer see gradients only after they were clipped, and not the loss at all. So the two calls that need
these are in a Trainer of our own, the rest in a callback.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainerCallback, TrainingArguments

import cutback


class PruningCallback(TrainerCallback):
    """Attaches a method when training begins, and goes on with its schedule after each step.

    Args:
        name: of a method, see ``cutback methods``.
        example: example inputs of the network, by keyword.
        settings: of the method, as written on a command line.
        **given: what else it may need: ``budget``, ``loader``, ``loss``, ``evaluate``.

    Attributes:
        method: the method, once training has begun.
    """

    def __init__(
        self, name: str, example: dict[str, Tensor], settings: dict[str, str] | None = None, **given: object
    ) -> None:
        self.name, self.example, self.settings, self.given = name, example, settings, given
        self.method: cutback.methods.Method | None = None
        self._attached = ExitStack()

    def on_train_begin(self, *_: object, model: nn.Module, optimizer: Any, **__: object) -> None:  # noqa: ANN401
        """Make the method of the network and its optimiser, and attach it."""
        inner = getattr(optimizer, "optimizer", optimizer)  # inside the one of accelerate
        given = {**self.given, "optimizers": [inner]}
        graph = cutback.trace(model, self.example)
        self.method = cutback.methods.make_method(self.name, graph, settings=self.settings, given=given)
        self._attached.enter_context(self.method)

    def on_step_end(self, *_: object, **__: object) -> None:
        """Go on with the method's schedule."""
        self.method.after_step()

    def on_train_end(self, *_: object, **__: object) -> None:
        """Take the method out of the network."""
        self.close()

    def close(self) -> None:
        """Take the method out of the network, whatever has happened."""
        self._attached.close()


class PruningTrainer(Trainer):
    """A Trainer that adds the penalty to the loss, and shows the method the gradients before they are clipped.

    Args:
        pruning: the callback that has the method.
        **arguments: the Trainer's own.
    """

    def __init__(self, pruning: PruningCallback, **arguments: Any) -> None:  # noqa: ANN401
        super().__init__(callbacks=[pruning], **arguments)
        self.pruning = pruning

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        """Return the loss of a batch, with the method's penalty while training."""
        found = super().compute_loss(model, inputs, *arguments, **more)
        return found + self.pruning.method.penalty() if model.training else found

    def training_step(self, *arguments: Any, **more: Any) -> Tensor:  # noqa: ANN401
        """Do a micro-batch, and tell the method."""
        loss = super().training_step(*arguments, **more)
        self.pruning.method.after_backward()
        if self.accelerator.sync_gradients:  # the last micro-batch before the optimiser's step
            self.pruning.method.before_step()
        return loss

    def train(self, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        """Train; nothing of the method stays behind, also after an exception."""
        try:
            return super().train(*arguments, **more)
        finally:
            self.pruning.close()


class Digits(Dataset[dict[str, Tensor]]):
    """Handwritten digits as a vision model takes them."""

    def __init__(self) -> None:
        digits = load_digits()
        self.pictures = torch.tensor(digits.images, dtype=torch.float32)[:1024, None] / 8 - 1
        self.labels = torch.tensor(digits.target)[:1024]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pictures[place], "labels": self.labels[place]}


def main(arguments: Sequence[str]) -> nn.Module:
    """Train for three epochs, pruning, and say what is left."""
    name, *written = arguments or ["l1"]
    settings = {key: value for key, _, value in (text.partition("=") for text in written)}
    data = Digits()
    example = {"pixel_values": data.pictures[:2]}
    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=1, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], layer_type="basic", num_labels=10
    )
    model = ResNetForImageClassification(config)
    dense = cutback.measure.macs(model, example)
    pruning = PruningCallback(name, example, settings, budget="macs=70%", loss=cross_entropy)
    with TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            num_train_epochs=3,
            per_device_train_batch_size=32,
            gradient_accumulation_steps=2,
            learning_rate=3e-3,
            max_grad_norm=1.0,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        PruningTrainer(pruning, model=model, args=options, train_dataset=data).train()
    small = cutback.measure.macs(model, example)
    with torch.no_grad():
        right = (model.eval()(pixel_values=data.pictures).logits.argmax(1) == data.labels).float().mean()
    print(f"{name}: {small / dense:.1%} of the MACs, {right:.1%} of the pictures right")
    return model


if __name__ == "__main__":
    main(sys.argv[1:])
