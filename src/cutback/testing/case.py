"""The small case that a method is checked on, and what it is given there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from cutback.graph.graph import Graph
from cutback.methods import Method, make_method
from cutback.methods.about import Simple

Batch = tuple[Tensor, Tensor]


def momentum(model: nn.Module) -> Optimizer:
    """Return SGD with momentum and weight decay, so that there is state to cut along."""
    return SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)


@dataclass(frozen=True)
class MethodCase:
    """A network on which a method does all it does within a few steps.

    Attributes:
        build: returns the dense network, with the same values each time; defined at the top of a module.
        shape: of a batch, ``(N, C, H, W)``, N at least 2.
        classes: how many outputs the network has, and labels there are.
        steps: after so many steps the method has finished. One that is cut within them shows more.
        budget: ``None`` for a method that takes none.
        settings: of the method.
        optimizer: made of the network.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (4, 3, 8, 8)
    classes: int = 4
    steps: int = 6
    budget: str | None = "macs=50%"
    settings: Mapping[str, Simple] = field(default_factory=dict)
    optimizer: Callable[[nn.Module], Optimizer] = momentum

    def batch(self, number: int, rank: int = 0) -> Batch:
        """Return a batch that depends on its number and the rank alone: inputs ``shape``, labels ``(N,)``."""
        generator = torch.Generator().manual_seed(1000 * number + rank)
        inputs = torch.randn(self.shape, generator=generator)
        return inputs, torch.randint(self.classes, (self.shape[0],), generator=generator)

    def evaluate(self, model: nn.Module) -> float:
        """Return the accuracy, in 0..1, on three batches of their own."""
        model.eval()
        found: list[Tensor] = []
        with torch.no_grad():
            for inputs, labels in (self.batch(900 + number) for number in range(3)):
                found.append(model(inputs).argmax(1) == labels)
        return float(torch.cat(found).double().mean())

    def make(self, name: str, graph: Graph, optimizer: Optimizer, **other: object) -> Method:
        """Make the method with all that it may need.

        Args:
            name: the method's.
            graph: the traced network.
            optimizer: which holds its parameters.
            **other: what is to be given otherwise; ``None`` for not at all.
        """
        given: dict[str, object] = {
            "budget": self.budget,
            "optimizers": [optimizer],
            "loader": [self.batch(800 + number) for number in range(2)],
            "loss": cross_entropy,
            "evaluate": self.evaluate,
            **other,
        }
        return make_method(name, graph, settings=cast("Mapping[str, str | Simple]", self.settings), given=given)
