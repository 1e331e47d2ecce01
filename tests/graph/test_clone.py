"""Structural clones: every module copied, every tensor shared, everything else as ``copy.deepcopy`` has it."""

import copy

import torch
from torch import nn

from cutback.graph.clone import structural_clone


class Odd(nn.Module):
    """Holds what a copy can get wrong: ties, references back, containers in two places, methods of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
        self.again, self.held = self.inner[0], [self.inner, (self.inner[1], {"norm": self.inner[1]})]
        self.cache = self.other_name = {}
        self.names, self.function = {"a", "b"}, self.helper
        self.unregistered = [torch.ones(3)]
        self.recurrent = nn.LSTM(8, 4)

    def helper(self):
        return self


class Own(nn.Module):
    """Copies itself its own way."""

    def __deepcopy__(self, memo):
        made = Own()
        made.came_from = id(self)
        return made


class Restored(nn.Module):
    """Says how its state is restored."""

    def __setstate__(self, state):
        super().__setstate__(state)
        self.restored = True


def test_modules_are_copied_and_tensors_shared() -> None:
    model = Odd()
    clone = structural_clone(model)
    assert not {id(module) for module in clone.modules()} & {id(module) for module in model.modules()}
    assert [type(module) for module in clone.modules()] == [type(module) for module in model.modules()]
    for ours, theirs in zip(clone.parameters(), model.parameters(), strict=True):
        assert ours is theirs
    assert clone.unregistered[0] is model.unregistered[0]
    assert clone.unregistered is not model.unregistered


def test_references_lead_to_the_copy() -> None:
    clone = structural_clone(Odd())
    assert clone.again is clone.inner[0]
    assert clone.held[0] is clone.inner
    assert clone.held[1][0] is clone.held[1][1]["norm"] is clone.inner[1]
    assert clone.cache is clone.other_name
    assert clone.function() is clone


def test_what_is_written_to_the_copy_stays_there() -> None:
    model = Odd()
    clone = structural_clone(model)
    clone.cache["key"] = clone.names.pop()
    clone.inner[1].register_buffer("more", torch.ones(1), persistent=False)
    clone.inner.register_forward_hook(lambda *_: None)
    clone.inner[0].weight = None
    assert not model.cache
    assert model.names == {"a", "b"}
    assert "more" not in dict(model.inner[1].named_buffers())
    assert not model.inner._forward_hooks
    assert not model.inner[1]._non_persistent_buffers_set
    assert model.inner[0].weight is not None


def test_a_class_that_copies_itself_has_its_way() -> None:
    model = nn.Sequential(Own(), Restored())
    clone = structural_clone(model)
    assert clone[0].came_from == id(model[0])
    assert clone[1].restored


def test_a_clone_computes_what_a_deep_copy_does() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(2), nn.LSTM(16, 4))
    images = torch.randn(2, 3, 6, 6)
    assert torch.equal(structural_clone(model).eval()(images)[0], copy.deepcopy(model).eval()(images)[0])
