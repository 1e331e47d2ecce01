"""What an import costs, and that the core needs nothing of the extras."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cutback

EXTRAS = (
    "accelerate",
    "sklearn",
    "PIL",
    "tensorboard",
    "datasets",
    "torchvision",
    "timm",
    "onnx",
    "jinja2",
    "matplotlib",
)
SPENT = """
import resource

def spent():
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime

start = spent()
import torch
middle = spent()
import cutback
print((spent() - start) / (middle - start))
"""
CORE = """
import sys

sys.modules.update(dict.fromkeys({extras!r}))  # None there is a module that cannot be found
import torch, cutback
from cutback.models import build

model, images = build("resnet20"), torch.randn(2, 3, 32, 32)
graph = cutback.trace(model, images)
plan = cutback.plan(graph, score="l1", budget="macs=50%")
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
cutback.apply_(graph, plan, optimizers=[optimizer])
cutback.save(model, plan, {folder!r})
again = cutback.load({folder!r}, build=lambda: build("resnet20"))
assert torch.equal(model.eval()(images), again.eval()(images))
assert not [name for name in {extras!r} if sys.modules[name] is not None]
import cutback.train, cutback.cli.main
print("fine")
"""


def test_importing_cutback_takes_hardly_longer_than_importing_torch() -> None:
    # Processor time, the least of two runs: what else the machine does hardly counts.
    runs = [subprocess.run([sys.executable, "-c", SPENT], capture_output=True, text=True, check=True) for _ in range(2)]
    assert min(float(run.stdout) for run in runs) < 1.5


def test_the_core_works_where_no_extra_is_installed(tmp_path: Path) -> None:
    script = CORE.format(extras=EXTRAS, folder=str(tmp_path / "small"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr


def test_every_public_name_is_there_and_no_other() -> None:
    for name in cutback.__all__:
        assert getattr(cutback, name) is not None
        assert name in dir(cutback)
    with pytest.raises(AttributeError, match="module 'cutback' has no attribute 'prunes'"):
        cutback.prunes  # noqa: B018


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse(Path(cutback.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    homes = {name: home for home, names in cutback._HOMES.items() for name in names}
    assert seen == {name: homes.get(name, "cutback") for name in cutback.__all__}
