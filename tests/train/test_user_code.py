"""Functions from a user's file: what is found, what is refused, and what is left behind."""

import os
import sys
from pathlib import Path

import pytest

from cutback.errors import UserMistake
from cutback.train.user_code import load_function, run_function


@pytest.fixture(autouse=True)
def search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore ``sys.path`` after each test."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_files_of_one_name_stay_apart_and_an_edit_is_seen(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(f"def make(): return {folder!r}\n")
    make = load_function(f"{tmp_path}/a/net.py:make")
    assert (make(), run_function(f"{tmp_path}/b/net.py:make")) == ("a", "b")
    assert load_function(f"{tmp_path}/a/net.py:make") is make
    stamp = (tmp_path / "a" / "net.py").stat()
    (tmp_path / "a" / "net.py").write_text("def make(): return 'c'\n")
    os.utime(tmp_path / "a" / "net.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert run_function(f"{tmp_path}/a/net.py:make") == "c"


def test_a_file_may_import_its_neighbours_and_hold_dataclasses(tmp_path: Path) -> None:
    (tmp_path / "cutback_test_neighbour.py").write_text("width = 7\n")
    (tmp_path / "net.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport cutback_test_neighbour as n\n"
        "@dataclass\nclass Net:\n    width: int = n.width\n"
    )
    assert run_function(f"{tmp_path}/net.py:Net").width == 7


@pytest.mark.parametrize(
    ("content", "function", "message"),
    [
        ("def make(:\n", "make", "cannot be imported, net.py line 1: SyntaxError: "),
        ("x = 1\n\nx = nothing\n", "make", "cannot be imported, line 3: NameError: name 'nothing' is not defined"),
        ("import nothing_of_this_name\n", "make", "line 1: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "make", "line 1: SystemExit: 3"),
        ("def make_net(): pass\n", "make_nets", "has no function called 'make_nets'; did you mean 'make_net'"),
        ("x = 1\n", "make", "no function called 'make'; it defines no functions"),
        ("make = 3\ndef build(): pass\n", "make", "a int, not a function, called 'make'; known names: build"),
        (
            "def make():\n    raise ValueError('two\\nlines')\n",
            "make",
            r"make\(\) of .* failed, line 2: ValueError: two lines",
        ),
        ("def make(width): pass\n", "make", "TypeError: make.* missing 1 required"),
        ("\0", "make", "cannot be imported"),
    ],
)
def test_a_broken_file_is_named_and_leaves_nothing_behind(
    tmp_path: Path, content: str, function: str, message: str
) -> None:
    (tmp_path / "net.py").write_text(content)
    before = set(sys.modules)
    with pytest.raises(UserMistake, match=message) as caught:
        run_function(f"{tmp_path}/net.py:{function}")
    assert "\n" not in str(caught.value)
    assert "net.py" in str(caught.value)
    if "cannot be imported" in str(caught.value):
        assert not [name for name in set(sys.modules) - before if name.startswith("cutback_user")]


def test_missing_files_and_other_forms_are_refused(tmp_path: Path) -> None:
    (tmp_path / "network.py").write_text("")
    with pytest.raises(UserMistake, match=r"No such file or directory\); did you mean 'network.py'"):
        load_function(f"{tmp_path}/netwrk.py:make")
    for spec in ("net.py", "net.py:", "net.py:a b", "net:make"):
        with pytest.raises(UserMistake, match=r"write path/to/file\.py:function"):
            load_function(spec)


def test_an_interrupt_passes_through(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("raise KeyboardInterrupt\n")
    before = set(sys.modules)
    with pytest.raises(KeyboardInterrupt):
        load_function(f"{tmp_path}/net.py:make")
    assert set(sys.modules) == before
