"""``cutback sensitivity``, and what ``cutback prune`` makes of it and of latency budgets."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch
from torch.utils.data import TensorDataset

import cutback
from cutback.cli.curves import drawn
from cutback.cli.main import main
from cutback.cli.models import load_model
from cutback.errors import UserMistake
from cutback.measure.setting import cache_folder
from cutback.train import Loop, evaluate, load_data
from cutback.train.batches import batches
from tests.cli.helpers import SMALL, refusal, write

SCAN = ("sensitivity", "my.py:make", "--weights", "dense.pt", "--ratios", "25%,50%")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Work in a folder with a user's model, its weights and an empty cache."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.py", SMALL)
    torch.save(load_model("my.py:make", seed=3, input_shape=(1, 8, 8)).model.state_dict(), "dense.pt")
    return tmp_path


def scanned(capsys, *options: str) -> dict:
    assert main([*SCAN, *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_curves_are_those_of_the_validation_split(capsys) -> None:
    found = scanned(capsys)
    model = load_model("my.py:make", seed=0, input_shape=(1, 8, 8), weights=Path("dense.pt")).model.eval()
    split = load_data("digits", seed=0).validation
    assert found["dense"] == evaluate(model, split).top1
    plan = cutback.plan(cutback.trace(model, torch.zeros(2, 1, 8, 8)), keep={"2": 4})
    assert set(found["curves"]) == {"0", "2"}
    half = evaluate(cutback.apply(cutback.trace(model, torch.zeros(2, 1, 8, 8)), plan), split).top1
    assert found["curves"]["2"][1] == [0.5, half]
    assert {"skip", "ratios", "stage_ratios", "loss", "score"} <= set(found)
    assert cutback.Sensitivity.from_json(json.dumps(found)).dense == found["dense"]


def test_processes_and_a_second_run_give_the_same_and_the_second_evaluates_nothing(capsys, monkeypatch, folder) -> None:
    found = scanned(capsys, "--processes", "2")
    assert len(list((folder / "cache" / "cutback" / "sensitivity").iterdir())) == 1
    with monkeypatch.context() as patched:
        patched.setattr("cutback.trials.sensitivity.cut_copy", lambda *_: pytest.fail("evaluated again"))
        assert scanned(capsys) == found
    for file in (folder / "cache" / "cutback" / "sensitivity").iterdir():
        file.unlink()
    assert scanned(capsys) == found


def test_the_table_and_the_drawing(capsys, folder) -> None:
    assert main([*SCAN, "--plot", "curves.svg"]) == 0
    out = capsys.readouterr().out
    assert "dense:" in out
    assert all(f"\n{group} " in out for group in ("0", "2"))
    drawing = ET.fromstring((folder / "curves.svg").read_text())  # noqa: S314 (our own file)
    lines = drawing.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points", "").split()) for line in lines] == [3, 3]


def test_points_of_the_drawing_fall_with_accuracy_and_names_are_escaped() -> None:
    found = cutback.Sensitivity(1.0, {"a<b": {0.5: 0.6, 0.9: 0.2}})
    drawing = ET.fromstring(drawn(found, "x & y"))  # noqa: S314 (our own text)
    (line,) = drawing.findall(".//{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.5 / 0.9, abs=0.01)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(0.4 / 0.8, abs=0.01)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--ratios", "half"), "cannot read --ratios 'half'"),
        (("--ratios", "50%,120%"), "between 0 % and 100 %"),
        (("--plot", "curves.png"), "--plot writes SVG"),
        (("--score", "l3"), "no score is called 'l3'"),
        (("--data", "none"), "no data source is called 'none'"),
    ],
)
def test_what_cannot_be_done_is_refused(capsys, options: tuple[str, ...], says: str) -> None:
    assert says in refusal(capsys, *SCAN, *options)


def test_prune_can_share_the_cut_out_by_sensitivity(capsys, folder) -> None:
    options = [
        "--weights",
        "dense.pt",
        "--budget",
        "params=60%",
        "--allocate",
        "sensitivity",
        "--finetune",
        "0",
        "--json",
    ]
    assert main(["prune", "my.py:make", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["final"]["params"] <= 0.6 * report["dense"]["params"]
    assert len(list((folder / "cache" / "cutback" / "sensitivity").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_told_and_done_without(capsys, folder) -> None:
    (folder / "cache").write_text("in the way")
    assert main([*SCAN, "--json"]) == 0
    captured = capsys.readouterr()
    assert set(json.loads(captured.out)["curves"]) == {"0", "2"}
    assert "set XDG_CACHE_HOME" in " ".join(captured.err.split())


def test_a_home_that_is_not_known_asks_for_a_cache(monkeypatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(UserMistake, match="XDG_CACHE_HOME"):
        cache_folder("latency")
    assert main([*SCAN, "--json"]) == 0


def test_an_impossible_budget_is_refused_before_the_scan(capsys, monkeypatch) -> None:
    monkeypatch.setattr(cutback, "sensitivity", lambda *_, **__: pytest.fail("scanned"))
    options = ("--weights", "dense.pt", "--budget", "macs=0.01%", "--allocate", "sensitivity")
    assert "lowest reachable" in refusal(capsys, "prune", "my.py:make", *options)


def test_other_labels_of_the_same_pictures_are_another_scan(capsys, monkeypatch, folder) -> None:
    scanned(capsys)
    data = load_data("digits", seed=0)
    images, labels = next(batches(data.validation, len(data.validation), torch.device("cpu")))
    changed = replace(data, validation=TensorDataset(images, (labels + 1) % 10))
    monkeypatch.setattr("cutback.cli.job.load_data", lambda *_, **__: changed)
    scanned(capsys)
    assert len(list((folder / "cache" / "cutback" / "sensitivity").iterdir())) == 2


def test_prune_to_a_latency_measures_and_says_so(capsys, folder) -> None:
    write(folder / "my.py", SMALL.replace("6, 3", "48, 3").replace("(6, 8", "(48, 64").replace("8 * 4", "64 * 4"))
    options = ["--train", "0", "--budget", "latency=80%", "--finetune", "0", "--latency-batch", "64"]
    assert main(["prune", "my.py:make", *options, "--threads", "1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    report = json.loads(Path("runs/make/report.json").read_text())
    assert report["machine"]["latency_batch"] == 64
    assert report["machine"]["threads"] == 1
    assert report["plan"]["budgets"] == ["latency=80%"]
    assert "batch 64, cpu, 1 thread" in out
    assert f"latency=80%: the final network takes {report['final']['latency_ms']:.4g} ms of" in out
    assert report["final"]["params"] < report["dense"]["params"]
    assert len(list((folder / "cache" / "cutback" / "latency").iterdir())) == 1


def test_a_latency_out_of_reach_is_refused_before_any_training(capsys, folder, monkeypatch) -> None:
    monkeypatch.setattr(Loop, "run", lambda *_, **__: pytest.fail("trained"))
    told = refusal(capsys, "prune", "my.py:make", "--train", "5", "--budget", "latency=0.001ms")
    assert "lowest reachable" in told
    assert not (folder / "runs").exists()
