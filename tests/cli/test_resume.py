"""Runs that are killed and resumed end with the same bytes; what cannot be resumed is said clearly."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from torch.utils.data import TensorDataset

from cutback.cli import job
from cutback.cli.main import main
from cutback.io import folder as folders
from cutback.train import Loop, RunFolder
from cutback.train.run_folder import KEPT
from tests.cli.helpers import SMALL, refusal, write
from tests.resuming.killing import NETWORK, PARTS, TWELVE, kill_each
from tests.resuming.processes import weights
from tests.train import iterative

ITERATIVE = (
    *("prune", "net.py:make", "--budget", "macs=60%", "--train", "2", "--batch-size", "64", "--checkpoint-steps", "3"),
    *("--method", iterative.NAME, "--method-epochs", "2", "--recover", "bn,distill:1,finetune:1", "--ema", "0.9"),
)


@pytest.mark.slow
def test_runs_killed_in_every_part_end_with_the_same_bytes(tmp_path) -> None:
    write(tmp_path / "net.py", NETWORK)
    found = kill_each(tmp_path, ITERATIVE, 1, seed=0, first=iterative.__name__)
    assert [run.part for run in found] == list(PARTS)
    assert all(run.good for run in found), found
    assert [run.found for run in found] == sorted(run.found for run in found)
    plans = [path.read_bytes() for path in tmp_path.glob("*/plan.json")]
    assert len(plans) == len(PARTS) + 1
    assert len(set(plans)) == 1


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("CUTBACK_LONG_TESTS"), reason="takes minutes: make long")
def test_twelve_kills_at_random_instants_change_nothing(tmp_path, capsys) -> None:
    write(tmp_path / "net.py", NETWORK)
    found = kill_each(tmp_path, TWELVE, 4, seed=int(os.environ.get("CUTBACK_KILL_SEED", "0")))
    with capsys.disabled():
        sys.stdout.write("".join(f"{run}\n" for run in found))
    assert len(found) == 12
    assert all(run.good for run in found)


# ------------------------------------------------------------------------------------------ what cannot be gone on with

SHORT = ("prune", "my.py:make", "--budget", "macs=60%", "--train", "2", "--finetune", "1", "--out", "run")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A folder with a run that was interrupted in its second training."""
    folder = tmp_path_factory.mktemp("stopped")
    turns = []

    def interrupted(loop: Loop) -> object:
        turns.append(loop)
        if len(turns) == 2:
            raise KeyboardInterrupt
        return original(loop)

    original = Loop.run
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.chdir(folder)
        monkeypatch.setattr(Loop, "run", interrupted)
        write(folder / "my.py", SMALL)
        assert main(list(SHORT)) == 130
    return folder


@pytest.fixture
def run(stopped, tmp_path, monkeypatch) -> Path:
    """A copy of that run, from another folder than where it was begun."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stopped / "run", tmp_path / "run")
    return tmp_path / "run"


def numbers(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_the_last_two_checkpoints_are_kept_and_the_one_before_is_as_good(run, capsys) -> None:
    assert len(numbers(run)) == KEPT
    again = run.with_name("again")
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints" / numbers(again)[-1])
    (again / "checkpoints" / ".00000009.half").mkdir()
    assert main(["resume", "run", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((run / "report.json").read_text())
    assert main(["resume", str(again), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert weights(again) == weights(run)
    assert len(numbers(again)) == KEPT
    assert all(name.isdecimal() for name in numbers(again))
    assert main(["resume", "run"]) == 0
    out, err = capsys.readouterr()
    assert "run is finished already" in err
    assert f"{report['final']['accuracy']:.2%}" in out


def _altered(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run / "checkpoints"), "holds no checkpoint any more"),
        (lambda run: _altered(run / "checkpoints" / numbers(run)[-1] / "tensors.safetensors"), "recorded hash"),
        (lambda run: (run / "checkpoints" / numbers(run)[-1] / "tree.json").unlink(), "is not whole"),
        (lambda run: shutil.rmtree(run / "networks"), "networks/dense is not whole"),
        (lambda run: (run / "config.json").write_text("{"), "config.json is truncated or damaged"),
        (
            lambda run: (run / "config.json").write_text(
                (run / "config.json").read_text().replace('"finetune": 1', '"finetune": 2')
            ),
            "config.json was changed since the run began",
        ),
        (lambda run: (run / "config.json").unlink(), "holds no config.json; name a folder that cutback prune"),
    ],
)
def test_damage_is_named_and_touches_nothing(damage, message, run, capsys) -> None:
    damage(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "log.jsonl"}
    assert message in refusal(capsys, "resume", "run")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "log.jsonl"}
    assert after == before


def test_another_model_other_data_or_other_weights_are_refused(run, stopped, capsys, monkeypatch) -> None:
    (stopped / "my.py").write_text(SMALL.replace("6, 8", "6, 9").replace("8 * 4", "9 * 4"))
    try:
        assert "the model of this run changed since it began" in refusal(capsys, "resume", "run")
    finally:
        (stopped / "my.py").write_text(SMALL)
    whole = job.load_data

    def fewer(*arguments, **options):
        data = whole(*arguments, **options)
        return dataclasses.replace(data, train=TensorDataset(*(tensor[:-1] for tensor in data.train.tensors)))

    monkeypatch.setattr(job, "load_data", fewer)
    assert "the data of this run changed since it began" in refusal(capsys, "resume", "run")


def test_it_goes_on_among_as_many_processes_only(run, capsys) -> None:
    config = RunFolder(run).config
    shutil.rmtree(run)
    folder = RunFolder.create(run, {**config, "ranks": 2})
    folder.save({})
    assert "was begun among 2 processes, not 1; resume it among as many" in refusal(capsys, "resume", "run")


def test_a_full_disk_names_the_checkpoint_and_keeps_those_before(run, capsys, monkeypatch) -> None:
    before = numbers(run)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(folders.os, "fsync", full)
        told = refusal(capsys, "resume", "run")
    assert "could not be written" in told
    assert "No space left on device" in told
    assert "go on with cutback resume" in told
    assert numbers(run) == before
    assert main(["resume", "run"]) == 0
