"""Choose what the sweep runs, once: the smallest architecture of every timm module, and small input sizes.

Run ``python -m benchmarks.zoo.choose`` after a new version of torchvision or timm; it writes ``choices.json``, which is
reviewed and committed before any sweep. Everything is built on the meta device, so no weights are made.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.zoo import libraries
from benchmarks.zoo.catalogue import SUITES, torchvision_builder

CHOICES = Path(__file__).parent / "choices.json"
LARGEST = 299
"""Where a torchvision architecture accepts none of the smaller sizes: Inception-v3's own."""
SIZES = (64, 96, 128, 160, 192, 224, 256)
"""Tried in this order before an architecture's own size."""


def smallest(module: str) -> str:
    """Return the architecture of a timm module with the fewest parameters, the first by name of equal ones.

    The miniatures that timm tests itself with (``test_...``) are no published architectures and left out.
    """
    timm = libraries.timm()
    counts: dict[str, int] = {}
    for name in sorted(timm.list_models(module=module, exclude_filters="test_*")):
        try:
            with torch.device("meta"):
                model = timm.create_model(name)
            counts[name] = sum(parameter.numel() for parameter in model.parameters())
        except Exception as error:  # noqa: BLE001 (a constructor that cannot run on the meta device is reported)
            sys.stderr.write(f"{name}: {type(error).__name__}: {error}\n")
    return min(counts, key=lambda name: counts[name])


def without_data(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model on the meta device; where its constructor needs numbers, build it whole and then drop them."""
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # noqa: BLE001 (each constructor fails in its own way)
        return build().to("meta")


def accepted(build: Callable[[], nn.Module], size: int) -> bool:
    """Whether an architecture runs on pictures of a size: one in eval mode, two in train mode."""
    model = without_data(build)
    with torch.device("meta"):
        for training, batch in ((False, 1), (True, 2)):
            try:
                model.train(training)(torch.zeros(batch, 3, size, size))
            except Exception:  # noqa: BLE001 (any failure means that the size does not fit)
                return False
    return True


def fitting_size(build: Callable[[], nn.Module], own: int) -> int:
    """Return the first size that an architecture accepts, its own size if it accepts no other."""
    return next((size for size in SIZES if size <= own and accepted(build, size)), own)


def main() -> None:
    """Write the choices."""
    timm, found = libraries.timm(), {suite: {} for suite in (*SUITES, "timm")}
    for suite, space in SUITES.items():
        for name in libraries.torchvision().models.list_models(module=space()):
            found[suite][name] = {"size": fitting_size(torchvision_builder(name), LARGEST)}
    for module in timm.list_modules():
        name = smallest(module)
        own = timm.get_pretrained_cfg(name).input_size[-1]
        build = lambda name=name: timm.create_model(name)  # noqa: E731 (bound to this turn's name)
        found["timm"][module] = {"name": name, "size": fitting_size(build, own)}
    CHOICES.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
