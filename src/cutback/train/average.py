"""An exponential moving average of a network's weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from cutback.graph.clone import independent_copy, state_tensors
from cutback.train.weights import put_weights, weights_of


class Average(nn.Module):
    """A copy of a network whose parameters and buffers follow the network's (Polyak and Juditsky 1992).

    Tensors go by name: what is added to the network for a while is left out, and the copy may be cut along with it
    (``copies=[average]``). Whole numbers are copied.

    Args:
        model: the network.
        decay: weight of the old average in each update, in 0..1; after ``n`` updates at most ``(1 + n) / (10 + n)``.

    Attributes:
        module: the copy, in eval mode.
        updates: how many there were.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = independent_copy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    def forward(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 (whatever the network takes)
        """Run the copy."""
        return self.module(*arguments, **options)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the network as it is now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        present = state_tensors(model)
        for name, tensor in state_tensors(self.module).items():
            if tensor.is_floating_point():
                tensor.lerp_(present[name].detach(), 1 - decay)
            else:
                tensor.copy_(present[name])

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on."""
        return {"updates": self.updates, "weights": weights_of(self.module)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a state; the copy must have its shapes."""
        self.updates = state["updates"]
        put_weights(self.module, state["weights"])
