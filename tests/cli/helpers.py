"""A command line in this process, a user's own file, and folders of generated pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from cutback.cli.main import main

SMALL = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 10)
    )
"""

MIXED = """
import torch
from torch import nn
from torch.nn import functional


class Mixed(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(12)
        self.inner = nn.Conv2d(12, 16, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(16)
        self.outer = nn.Conv2d(16, 12, 3, padding=1)
        self.left = nn.Conv2d(12, 8, 1)
        self.right = nn.Conv2d(12, 10, 3, padding=1)
        self.depthwise = nn.Conv2d(18, 18, 3, padding=1, groups=18, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(18)
        self.pointwise = nn.Conv2d(18, 24, 1)
        self.head = nn.Linear(24, num_classes)

    def forward(self, images):
        stem = functional.relu(self.stem_norm(self.stem(images)))
        block = functional.relu(stem + self.outer(functional.relu(self.inner_norm(self.inner(stem)))))
        both = torch.cat([self.left(block), functional.relu(self.right(block))], dim=1)
        features = functional.relu(self.pointwise(self.depthwise_norm(self.depthwise(both))))
        return self.head(features.mean((2, 3)))


def make():
    print("a user's own print")
    return Mixed()


def make_with_inputs():
    return Mixed(), torch.zeros(2, 3, 32, 32)


def make_two_outputs():
    return Mixed(2)
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def draw(folder: Path, *, classes: int = 3, pictures: int = 20, size: int = 32) -> Path:
    """Fill a folder with pictures of stripes; the class is their direction and colour."""
    generator = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(pictures):
            pixels = generator.integers(0, 90, (size, size, 3))
            stripes = pixels if label % 2 else pixels.swapaxes(0, 1)
            stripes[:: 2 + label, :, label % 3] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"class{label}" / f"{number}.png")
    return folder


def refusal(capsys, *arguments: object) -> str:
    """Return the one line with which a command line is refused."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    *before, last = err.splitlines()
    # Before it come only what the user's code prints, and steps that a slow machine took long for.
    assert last.startswith("error: ")
    assert not any("error" in line for line in before), err
    return last
