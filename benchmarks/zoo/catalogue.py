"""What the sweep runs: the architectures, how each is built, and the size of its pictures."""

import fnmatch
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import nn

from benchmarks.zoo import libraries

FOLDER = Path(__file__).parent
SUITES: dict[str, Callable[[], ModuleType]] = {
    "torchvision classification": lambda: libraries.torchvision().models,
    "torchvision segmentation": lambda: libraries.torchvision().models.segmentation,
}
TIMM_SUITES = {"timm convolutional": "convolutional.txt", "timm attention or hybrid": "attention.txt"}


@dataclass(frozen=True)
class Entry:
    """One architecture of the sweep.

    Attributes:
        suite: the group of rows it counts in.
        family: the Python module that defines it.
        name: its name in its zoo.
        size: height and width of its pictures in pixels.
    """

    suite: str
    family: str
    name: str
    size: int

    @property
    def key(self) -> str:
        """The name as the command writes it, for instance ``timm:resnet10t``."""
        return f"{self.suite.partition(' ')[0]}:{self.name}"

    def build(self) -> nn.Module:
        """Build it with random weights."""
        if self.suite in TIMM_SUITES:
            return libraries.timm().create_model(self.name)
        return torchvision_builder(self.name)()


def torchvision_builder(name: str) -> Callable[[], nn.Module]:
    """Return what builds a torchvision architecture without fetching any weights, auxiliary heads included."""
    models = libraries.torchvision().models

    def build() -> nn.Module:
        options: dict[str, object] = {"weights": None}
        if name in models.list_models(module=models.segmentation):
            options |= {"weights_backbone": None}
            options |= {} if name.startswith("lraspp") else {"aux_loss": True}
        elif name in ("googlenet", "inception_v3"):
            options |= {"init_weights": False}
        return models.get_model(name, **options)

    return build


def families(file: str) -> list[str]:
    """Return the module names in a list file; what follows a hash mark is a remark."""
    lines = (FOLDER / file).read_text(encoding="utf-8").splitlines()
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def entries(patterns: Sequence[str] = ()) -> list[Entry]:
    """Return the architectures whose key, name or family matches one of the patterns; all without patterns."""
    choices = json.loads((FOLDER / "choices.json").read_text(encoding="utf-8"))
    found = [Entry(suite, name, name, choice["size"]) for suite in SUITES for name, choice in choices[suite].items()]
    for suite, file in TIMM_SUITES.items():
        for family in families(file):
            choice = choices["timm"][family]
            found.append(Entry(suite, family, choice["name"], choice["size"]))
    if not patterns:
        return found
    return [
        entry
        for entry in found
        if any(
            fnmatch.fnmatchcase(text, pattern) for text in (entry.key, entry.name, entry.family) for pattern in patterns
        )
    ]
