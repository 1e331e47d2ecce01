"""``cutback correlate``."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import cutback
from cutback import scores
from cutback.cli.main import main
from cutback.cli.models import load_model
from cutback.cli.scatter import scattered
from cutback.train import load_data
from cutback.train.batches import Sample
from tests.cli.helpers import SMALL, refusal, write

COMPARE = ("correlate", "my.py:make", "--weights", "dense.pt", "--pictures", "96", "--batch-size", "32")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Work in a folder with a user's model and its weights."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.py", SMALL)
    torch.save(load_model("my.py:make", seed=3, input_shape=(1, 8, 8)).model.state_dict(), "dense.pt")
    return tmp_path


def test_it_prints_what_the_library_finds(capsys) -> None:
    assert main([*COMPARE, "--score", "taylor", "--score", "l2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = load_model("my.py:make", seed=0, input_shape=(1, 8, 8), weights=Path("dense.pt")).model
    batches = Sample(load_data("digits", seed=0).train, 96, 32, torch.device("cpu"), 0)
    oracle = scores.Oracle(batches, cross_entropy, squared=True)
    graph = cutback.trace(model, torch.zeros(2, 1, 8, 8))
    expected = cutback.correlate(graph, {"taylor": scores.Taylor(batches, cross_entropy), "l2": "l2"}, oracle)
    assert found == json.loads(expected.to_json())


def test_the_table_and_the_drawing(capsys, folder) -> None:
    assert main([*COMPARE, "--plot", "scatter.svg"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith("taylor")]
    assert [row[1] for row in rows] == ["all", "0", "2"]
    assert rows[1][2] == "6"
    drawing = ET.fromstring((folder / "scatter.svg").read_text())  # noqa: S314 (our own file)
    panels = drawing.findall(f"{SVG}g")
    assert [len(panel.findall(f"{SVG}circle")) for panel in panels] == [14] * 4
    assert "taylor, Spearman" in panels[0].find(f"{SVG}text").text


def test_points_lie_where_logarithms_put_them_and_names_are_escaped() -> None:
    oracle, values = {"a<b": np.array([1.0, 10.0, 100.0, 0.0])}, {"a<b": np.array([8.0, 2.0, -4.0, 2.0])}
    drawing = ET.fromstring(scattered(cutback.Correlation(oracle, {"x&y": values}, frozenset()), "t"))  # noqa: S314
    (panel,) = drawing.findall(f"{SVG}g")
    points = [
        (float(point.get("cx")) / 260, 1 - float(point.get("cy")) / 260) for point in panel.findall(f"{SVG}circle")
    ]
    expected = [(0.0, 1.0), (0.5, 0.0), (1.0, 0.5), (0.0, 0.0)]
    assert all(point == pytest.approx(where, abs=1e-3) for point, where in zip(points, expected, strict=True))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--score", "l3"), "no score is called 'l3'"),
        (("--plot", "scatter.png"), "--plot writes SVG"),
        (("--data", "none"), "no data source is called 'none'"),
        (("--pictures", "0"), "--pictures"),
    ],
)
def test_what_cannot_be_done_is_refused(capsys, options: tuple[str, ...], says: str) -> None:
    assert says in refusal(capsys, *COMPARE, *options)
