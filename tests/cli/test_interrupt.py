"""Ctrl-C at any point ends with 130 and one line, and leaves nothing half-written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cutback
from cutback.cli import job, stages
from cutback.cli.main import main
from cutback.train import Loop, RunFolder
from tests.cli.helpers import SMALL, write

OPTIONS = ("--budget", "macs=50%", "--train", "1", "--finetune", "1", "--out", "runs/deep/small")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.py", SMALL)
    return tmp_path


STEPS = [
    (job, "load_data", 1, False),
    (job, "load_model", 1, False),
    (cutback, "prove", 1, False),
    (Loop, "run", 1, False),
    (cutback, "prove", 2, True),
    (RunFolder, "keep", 2, True),
    (Loop, "run", 2, True),
    (RunFolder, "save", 5, True),
    (stages, "compare_latency", 1, True),
    (cutback, "save", 1, True),
    (Path, "replace", 1, True),
    (Path, "replace", 2, True),
    (Path, "write_text", 1, True),
]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> bytes:
    """The weights of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.chdir(folder)
        write(folder / "my.py", SMALL)
        assert main(["prune", "my.py:make", *OPTIONS]) == 0
    assert json.loads((folder / "runs" / "deep" / "small" / "report.json").read_text())["final"]
    return (folder / "runs" / "deep" / "small" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("owner", "name", "turn", "kept"), STEPS, ids=[f"{name}-{turn}" for _, name, turn, _ in STEPS])
def test_ctrl_c_leaves_nothing_or_what_can_be_gone_on_with(
    owner, name, turn, kept, folder, monkeypatch, capsys, expected
) -> None:
    original, turns = getattr(owner, name), []

    def interrupted(*arguments, **options):
        turns.append(name)
        if len(turns) == turn:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, interrupted)
        assert main(["prune", "my.py:make", *OPTIONS]) == 130
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", "interrupted; nothing is left half-written")
    assert "Traceback" not in err
    assert len(turns) == turn
    assert ("go on from there with: cutback resume runs/deep/small" in err) == kept
    if not kept:
        assert sorted(path.name for path in folder.iterdir()) == ["my.py"]
        return
    assert not (folder / "runs" / "deep" / "small" / "report.json").exists()
    assert main(["resume", "runs/deep/small"]) == 0
    assert (folder / "runs" / "deep" / "small" / "model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("trained", [True, False])
def test_a_full_disk_leaves_what_was_whole(trained, folder, monkeypatch, capsys, expected) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    options = OPTIONS if trained else (*OPTIONS, "--train", "0", "--finetune", "0")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        assert main(["prune", "my.py:make", *options]) == 2
    err = capsys.readouterr().err
    assert "cannot write" in err
    assert "No space left on device" in err
    if not trained:
        assert sorted(path.name for path in folder.iterdir()) == ["my.py"]
        return
    assert main(["resume", "runs/deep/small"]) == 0
    assert (folder / "runs" / "deep" / "small" / "model.safetensors").read_bytes() == expected


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
        assert any(line.startswith("training the baseline, 100000 epochs: epoch 2/") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; nothing is left half-written"
    assert "Traceback" not in err
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["checkpoints", "config.json", "log.jsonl"]
