"""Passes of a method over one batch, and what reaches the convolutions' own backward passes."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from cutback.methods import GradientPruning

IMAGES = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(3))
CLASSES = torch.arange(16) % 4


def method_for(model: nn.Module, **settings) -> GradientPruning:
    graph = cutback.trace(model.train(), IMAGES[:2])
    return GradientPruning(graph, **{"steps": 10**6, "depth": 0, **settings})


def one_pass(model: nn.Module, method: GradientPruning | None = None, *, watch: bool = False) -> dict[str, Tensor]:
    """Run one batch forward and backward; return what enters each convolution's products, by the weight's name."""
    model.zero_grad()
    loss = cross_entropy(model(IMAGES), CLASSES)
    seen = entering(model, loss) if watch else {}
    loss.backward()
    if method is not None:
        method.after_backward()
    return seen


def entering(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Note the gradient with which each convolution's node computes its products; calls of one weight by number."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found, waiting, visited = {}, [loss.grad_fn], set()
    convolutions = []
    while waiting:
        node = waiting.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        waiting += [source for source, _ in node.next_functions]
        if node.name() == "ConvolutionBackward0":
            convolutions.append((node._sequence_nr(), node))
    for _, node in sorted(convolutions, key=lambda pair: pair[0]):
        edge = node.next_functions[1][0]
        while not hasattr(edge, "variable"):
            edge = edge.next_functions[0][0]
        name = names[id(edge.variable)]
        key = name if name not in found else f"{name} again"
        found[key] = None

        def note(gradients, key=key):
            found[key] = gradients[0].clone()

        node.register_prehook(note)
    return found


def zeros(tensor: Tensor) -> float:
    return float((tensor == 0).double().mean())


def gradients(model: nn.Module) -> Tensor:
    """The gradients of all convolutions' weights, one after the other."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.dim() == 4])
