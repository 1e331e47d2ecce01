"""Models by name: ``torchvision:resnet50``, ``path/to/file.py:function`` and so on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from cutback.cli.weights import load_weights
from cutback.errors import UserMistake
from cutback.graph.clone import random_state_kept
from cutback.registry import Registry
from cutback.train import replace_head
from cutback.train.data import USER_FILE, Shape


@dataclass(frozen=True, eq=False)
class Built:
    """A model as its source made it.

    Attributes:
        model: the model.
        inputs: example inputs; ``None`` where the source knows none.
        imports: Python lines that building it again needs.
        expression: Python expression that builds it again.
    """

    model: nn.Module
    inputs: object
    imports: tuple[str, ...]
    expression: str


class ModelSource(Protocol):
    """What a source registers: a function from the part of the specification behind the colon to a model."""

    def __call__(self, argument: str, *, input_shape: Shape | None) -> Built:
        """Build a model without pretrained weights, for pictures of shape (C, H, W) where that is known.

        Raises:
            UserMistake: it cannot be built.
        """
        ...


model_sources: Registry[ModelSource] = Registry("model source", "cutback.cli.sources")


def load_model(
    spec: str,
    *,
    seed: int,
    input_shape: Shape | None = None,
    weights: Path | None = None,
    num_classes: int | None = None,
) -> Built:
    """Build a model from its specification, and load its weights.

    Args:
        spec: ``MODEL`` as on the command line.
        seed: seed of its starting weights; the global random states stay as they are.
        input_shape: shape (C, H, W) of one picture; ``None`` for the source's own.
        weights: file of trained weights, for the model before or after its head was replaced.
        num_classes: number of outputs it is to have; ``None`` leaves the head.

    Raises:
        UserMistake: there is no such model, its code fails, the weights do not fit, or no input shape is known.
    """
    scheme, colon, argument = spec.partition(":")
    if spec.endswith(".py") or ".py:" in spec:
        scheme, argument = USER_FILE, spec
    elif not colon:
        raise UserMistake(
            f"cannot read the model {spec!r}; write for example cutback:{spec} or path/to/file.py:function"
        )
    source = model_sources.get(scheme)
    with random_state_kept():
        torch.manual_seed(seed)
        built = source(argument, input_shape=input_shape)
        inputs = torch.zeros(1, *input_shape) if input_shape else built.inputs
        if inputs is None:
            raise UserMistake(f"{spec} does not say what its input looks like; add for example --input 3x224x224")
        built = Built(built.model, inputs, built.imports, built.expression)
        if num_classes is None:
            if weights:
                load_weights(built.model, weights)
            return built
        return _with_head(built, num_classes, weights)


def _with_head(built: Built, num_classes: int, weights: Path | None) -> Built:
    """Load weights made for the present head or for the new one, and replace the head."""
    misfit: UserMistake | None = None
    if weights:
        try:
            load_weights(built.model, weights)
        except UserMistake as error:
            misfit = error
    before = {name: tensor.shape for name, tensor in built.model.state_dict().items()}
    model = replace_head(built.model, num_classes, built.inputs)
    if before == {name: tensor.shape for name, tensor in model.state_dict().items()}:
        if misfit:
            raise misfit
        return built
    if weights and misfit:
        load_weights(model, weights)
    if not isinstance(built.inputs, torch.Tensor):
        raise UserMistake("--num-classes works for models that take one tensor; build the model with that many outputs")
    shape = ", ".join(map(str, built.inputs.shape))
    expression = f"replace_head({built.expression}, {num_classes}, torch.zeros({shape}))"
    imports = (*built.imports, "import torch", "from cutback.train import replace_head")
    return Built(model, built.inputs, tuple(dict.fromkeys(imports)), expression)
