"""The memory that a forward pass really takes, as the allocator hands it out."""

import json
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from cutback.graph.clone import set_training, state_tensors
from cutback.graph.inputs import Inputs


@dataclass(frozen=True)
class RunTimeMemory:
    """What a forward pass takes, in bytes.

    Attributes:
        model: parameters and buffers, which lie there all the time.
        activations: the most that was allocated at once during the pass beyond what was there before it: results,
            and what operators need while they run.
    """

    model: int
    activations: int

    @property
    def peak(self) -> int:
        """Model and activations together."""
        return self.model + self.activations


def run_time_memory(model: nn.Module, example_inputs: object) -> RunTimeMemory:
    """Measure one forward pass in eval mode without gradients, on the device of the inputs, at their batch size.

    It is what PyTorch's allocator hands out, so that it differs a little between versions and devices; memory that
    libraries (oneDNN, cuDNN) take from elsewhere does not show. ``peak_memory`` tells what results alone need,
    everywhere the same.

    Args:
        model: any module; its mode is put back.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.

    Example:
        >>> from torch import nn, zeros
        >>> net = nn.Sequential(nn.Linear(10, 1000), nn.ReLU(), nn.Linear(1000, 2))
        >>> found = run_time_memory(net, zeros(8, 10))
        >>> found.model, found.activations >= 8 * 1000 * 4
        (52008, True)
    """
    inputs = Inputs.of(example_inputs)
    own = sum(state.numel() * state.element_size() for state in state_tensors(model).values())
    device = inputs.tensors()[0].device
    before = set_training(model, False)
    try:
        with torch.no_grad():
            model(*inputs.positional, **inputs.keyword)  # what is made once, at the first pass, is no part of each
            measure = _on_gpu if device.type == "cuda" else _on_cpu
            return RunTimeMemory(own, measure(model, inputs, device))
    finally:
        set_training(model, before)


def _on_cpu(model: nn.Module, inputs: Inputs, _: torch.device) -> int:
    """Add up what the profiler tells of each allocation and release, and return the highest sum."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        model(*inputs.positional, **inputs.keyword)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        found.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"]
    return max(accumulate((size for _, size in sorted(changes, key=itemgetter(0))), initial=0))


def _on_gpu(model: nn.Module, inputs: Inputs, device: torch.device) -> int:
    """Return by how much the pass raises the device's highest figure."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    model(*inputs.positional, **inputs.keyword)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
