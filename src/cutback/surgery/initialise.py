"""Starting weights: He's, and a whole model set back to them."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from cutback.errors import UserMistake
from cutback.graph.clone import modules_by_path, random_state_kept
from cutback.surgery.following import follow_


def initialise(model: nn.Module) -> None:
    """Draw every convolution and linear weight from Kaiming's normal distribution and zero the biases (He, 2015).

    Normalisation layers keep PyTorch's start: scale one, shift zero.

    Args:
        model: the network to initialise, in place.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Fan-in, not fan-out: PyTorch's fan-out ignores groups, which would shrink depthwise layers to almost zero.
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_resettable(model: nn.Module) -> None:
    """Refuse a model of which some module does not know how its own weights are drawn.

    Raises:
        UserMistake: names the module.
    """
    for path, module in modules_by_path(model).items():
        held = [*module._parameters.values(), *module._buffers.values()]
        if any(tensor is not None for tensor in held) and not callable(getattr(module, "reset_parameters", None)):
            raise UserMistake(
                f"{path or type(model).__name__} holds weights of its own and has no reset_parameters(), so that it "
                "cannot be set back to training from scratch; pass reset=function, which draws the model's weights"
            )


def start_anew(
    model: nn.Module,
    *,
    seed: int,
    reset: Callable[[nn.Module], None] | None = None,
    optimizers: Iterable[Optimizer] = (),
    copies: Iterable[nn.Module] = (),
) -> None:
    """Set a model back to fresh weights of the same shapes, with its optimisers and copies: training from scratch.

    Args:
        model: the model, in place.
        seed: of the draw; the global random state is left as it is.
        reset: draws the model's weights in place; by default each module resets itself as torch's layers do, and
            convolutions and linear layers then get He's weights.
        optimizers: those that hold the model's parameters; they forget their state.
        copies: averages of the model, bare or with the copy as ``module``; they become equal to it.

    Raises:
        UserMistake: see ``check_resettable``, where no ``reset`` is given; nothing was changed.
    """
    if reset is None:
        check_resettable(model)
    with random_state_kept():
        torch.manual_seed(seed)
        (reset or _reset)(model)
    for optimizer in optimizers:
        optimizer.state.clear()
    follow_(copies, model)


def _reset(model: nn.Module) -> None:
    """Let each module reset itself, and give convolutions and linear layers He's weights."""
    for module in model.modules():
        own = getattr(module, "reset_parameters", None)
        if callable(own):
            own()
    initialise(model)
