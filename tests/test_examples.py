"""The examples of methods in other people's loops run as they stand."""

import importlib.util
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

FOLDER = Path(__file__).parent.parent / "examples"
LAYERS = ["l1", "schedule=layers", "steps=20"]
RUNS = [("plain_loop", ["l1"], 50), ("plain_loop", LAYERS, 50), ("lightning_callback", LAYERS, 50)]
RUNS += [("transformers_callback", LAYERS, 70)]
DETECTION = {"detection", "digit_canvases", "average_precision"}
"""A task in three files, tested in ``tests/examples/test_detection.py``."""


@pytest.fixture(autouse=True)
def forgotten():
    """Let accelerate forget what the Trainer has made it: its state is one for the whole process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_each_example_is_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == {name for name, _, _ in RUNS} | DETECTION


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "limit"), RUNS)
def test_the_example_trains_and_prunes(name, arguments, limit, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.main(arguments)
    share, right = (float(word[:-1]) for word in capsys.readouterr().out.split() if word.endswith("%"))
    assert limit - 1 <= share <= limit + 0.05
    assert right > 60, "ten classes: chance is 10 %"
    assert not any(module._forward_hooks for module in model.modules())
    assert not list(tmp_path.iterdir())
