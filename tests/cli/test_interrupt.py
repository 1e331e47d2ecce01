"""Ctrl-C at any point ends with 130 and one line, and leaves nothing half-written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cutback
from cutback.cli import job
from cutback.cli.main import main
from tests.cli.helpers import SMALL, write

OPTIONS = ("--budget", "macs=50%", "--train", "1", "--finetune", "1", "--out", "runs/deep/small")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.py", SMALL)
    return tmp_path


STEPS = [
    (job, "load_data", 1),
    (job, "load_model", 1),
    (cutback, "prove", 1),
    (job, "fit", 1),
    (cutback, "prove", 2),
    (job, "fit", 2),
    (job, "compare_latency", 1),
    (cutback, "save", 1),
    (Path, "rename", 3),
    (Path, "write_text", 1),
    (Path, "rename", 4),
]


@pytest.mark.parametrize(("owner", "name", "turn"), STEPS, ids=[f"{name}-{turn}" for _, name, turn in STEPS])
def test_ctrl_c_leaves_nothing(owner, name, turn, folder, monkeypatch, capsys) -> None:
    original, turns = getattr(owner, name), []

    def interrupted(*arguments, **options):
        turns.append(name)
        if len(turns) == turn:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)
    assert main(["prune", "my.py:make", *OPTIONS]) == 130
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", "interrupted; nothing is left half-written")
    assert "Traceback" not in err
    assert len(turns) == turn
    assert sorted(path.name for path in folder.iterdir()) == ["my.py"]


def test_a_full_disk_leaves_nothing(folder, monkeypatch, capsys) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["prune", "my.py:make", *OPTIONS]) == 2
    assert "cannot write runs/deep/small: No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["my.py"]


def test_a_real_signal_ends_the_process_with_130(folder) -> None:
    # A shell that starts tests in the background makes its children ignore the signal.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from cutback.cli.main import run; run()"
    )
    arguments = ["prune", "my.py:make", "--train", "100000", "--budget", "macs=50%", "--out", "out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr
        assert any(line.startswith("training the baseline, 100000 epochs: epoch ") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; nothing is left half-written"
    assert "Traceback" not in err
    assert sorted(path.name for path in folder.iterdir()) == ["my.py"]


def test_the_result_is_whole_where_nothing_interrupts(folder) -> None:
    assert main(["prune", "my.py:make", *OPTIONS]) == 0
    assert [path.name for path in (folder / "runs" / "deep").iterdir()] == ["small"]
    assert json.loads((folder / "runs" / "deep" / "small" / "report.json").read_text())["final"]
