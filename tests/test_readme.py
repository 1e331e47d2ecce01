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
    assert "macs: " in capsys.readouterr().out
    assert (tmp_path / "small" / "model.safetensors").is_file()


def test_it_names_the_two_commands() -> None:
    assert EXAMPLES
    assert "make demo" in README.read_text()
    assert "make test" in README.read_text()
