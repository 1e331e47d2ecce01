"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_example_runs(number: int, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[number], str(README), "exec"), {"__name__": "readme"})  # noqa: S102
    assert number or "macs: " in capsys.readouterr().out
    assert number or (tmp_path / "small" / "model.safetensors").is_file()


def test_the_training_loop_goes_on_after_its_cut() -> None:
    found: dict = {"__name__": "readme"}
    exec(compile(next(text for text in EXAMPLES if "rewrap" in text), str(README), "exec"), found)  # noqa: S102
    widths = {name: parameter.shape for name, parameter in found["net"].named_parameters()}
    assert found["plan"].slices
    assert {name: value.shape for name, value in found["ema"].module.named_parameters()} == widths
    state = found["optimizer"].state
    assert all(state[parameter]["exp_avg"].shape == parameter.shape for parameter in found["net"].parameters())
    assert all(state[parameter]["step"] == 2 for parameter in found["net"].parameters())


def test_it_names_the_two_commands() -> None:
    assert EXAMPLES
    assert "make demo" in README.read_text()
    assert "make test" in README.read_text()
