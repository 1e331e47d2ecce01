"""Giving a classifier another number of outputs."""

import torch
from torch import Tensor, nn

from cutback.errors import UserMistake
from cutback.graph.clone import set_training
from cutback.graph.inputs import Inputs
from cutback.train.evaluation import logits


def replace_head(model: nn.Module, num_classes: int, example_inputs: object) -> nn.Module:
    """Replace the layer that makes a classifier's output by a fresh one, in place.

    That is the last linear layer or 1x1 convolution in the order of execution that has as many outputs as the model; a
    model that has ``num_classes`` outputs already is left as it is.

    Args:
        model: maps pictures to outputs (N, classes).
        num_classes: number of outputs it is to have.
        example_inputs: what ``forward`` takes, on the model's device.

    Returns:
        The model; the new layer is initialised from PyTorch's global random state.

    Raises:
        UserMistake: the model does not run on the inputs, or no single layer makes its output.
    """
    called: dict[str, int] = {}
    outputs = _outputs(model, example_inputs, called)
    if outputs == num_classes:
        return model
    path = next((path for path, width in reversed(called.items()) if width == outputs), None)
    if path is None:
        raise UserMistake(
            f"no linear layer or 1x1 convolution of {type(model).__name__} makes its {outputs} outputs, so its head "
            f"cannot be replaced; build the model with {num_classes} outputs yourself"
        )
    head = model.get_submodule(path)
    _put(model, path, _fresh(head, num_classes))
    found = _outputs(model, example_inputs, {})
    if found != num_classes:
        _put(model, path, head)
        raise UserMistake(
            f"{path} of {type(model).__name__} does not alone make its outputs: with {num_classes} of its own the "
            f"model has {found}; build the model with {num_classes} outputs yourself"
        )
    if getattr(model, "num_classes", None) == outputs:
        model.num_classes = num_classes  # type: ignore[assignment]
    return model


def _outputs(model: nn.Module, example_inputs: object, called: dict[str, int]) -> int:
    """Return how many outputs a model has; ``called`` takes the possible heads in the order of their last call."""

    def note(path: str, width: int) -> None:
        called.pop(path, None)
        called[path] = width

    inputs = Inputs.of(example_inputs)
    handles = []
    for path, module in model.named_modules():
        width = _width(module)
        if path and width:
            handles.append(module.register_forward_hook(lambda *_, path=path, width=width: note(path, width)))
    modes = set_training(model, False)
    try:
        with torch.no_grad():
            outputs: Tensor = logits(model(*inputs.positional, **inputs.keyword))
    except UserMistake:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserMistake(
            f"{type(model).__name__} does not run on inputs of shape {inputs.describe()} "
            f"({type(error).__name__}: {reason}); its head cannot be replaced; correct --input or the data"
        ) from error
    finally:
        set_training(model, modes)
        for handle in handles:
            handle.remove()
    return outputs.shape[1]


def _width(module: nn.Module) -> int:
    """Return the number of outputs of a layer that can be a head; 0 for any other."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
        return module.out_channels
    return 0


def _fresh(head: nn.Module, outputs: int) -> nn.Module:
    """Return a new layer like ``head`` with another number of outputs."""
    names = dict(head.named_parameters())
    if isinstance(head, nn.Linear):
        fresh: nn.Module = nn.Linear(head.in_features, outputs, bias="bias" in names)
    elif isinstance(head, nn.Conv2d):
        rows, columns = head.stride
        fresh = nn.Conv2d(head.in_channels, outputs, 1, stride=(rows, columns), bias="bias" in names)
    else:
        raise TypeError(f"{type(head).__name__} cannot be a head")
    weight = next(head.parameters())
    return fresh.to(weight.device, weight.dtype).train(head.training)


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
