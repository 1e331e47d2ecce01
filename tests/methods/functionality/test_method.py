"""The whole method: budgets, retraining and drift, pictures, refusals."""

import copy
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

import cutback
from cutback.errors import BudgetUnreachable, InvalidBudget, NothingToPrune, SaveError, UserMistake
from cutback.methods import Functionality
from cutback.methods.functionality.png import png
from cutback.methods.functionality.sheet import as_pixels
from tests.helpers import chain, image
from tests.methods.functionality.planted import by_hand, pictures, planted, unit_vectors

IMAGES, LABELS = image(2, (12, 3, 8, 8)), torch.arange(12) % 4
QUICK = {"loader": [(IMAGES, LABELS)], "images": 12, "ascent_steps": 3}


def trained(model: nn.Module, method: Functionality, steps: int, rate: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(pictures()), torch.arange(24) % 4).backward()
        method.after_backward()
        method.before_step()
        optimizer.step()
        assert not method.after_step()


def test_drift_is_how_far_the_pictures_of_the_filters_that_stay_have_moved() -> None:
    model, _ = planted(0)
    before = copy.deepcopy(model)
    loader = [(pictures(), torch.arange(24) % 4)]
    graph = cutback.trace(model, pictures(2))
    with Functionality(graph, alpha=1.0, loader=loader, ignore="0,4", steps=3) as method:
        assert not method.finished
        trained(model, method, 2, 1.0)
        assert not method.finished
        assert "drift" not in method.findings()
        trained(model, method, 1, 1.0)
        assert method.finished
    (kept,) = (group.kept for group in method.plan().groups if group.name == "2")
    then, now = unit_vectors(by_hand(before, kept[:2])), unit_vectors(by_hand(model, [0, 1]))
    drift = method.findings()["drift"]["2"]
    assert drift["each"][:2] == pytest.approx((1 - (then * now).sum(1)).tolist(), abs=2e-3)
    assert drift["median"] == pytest.approx(float(np.median(drift["each"])))
    assert max(drift["each"]) > 0.01


@pytest.mark.parametrize("since", ["dense", "cut"])
def test_filters_that_are_not_trained_have_not_drifted_since_the_cut(since) -> None:
    model = chain((6, 5))
    graph = cutback.trace(model, IMAGES[:2])
    with Functionality(graph, budget="macs=50%", steps=1, since=since, **QUICK) as method:
        assert not method.after_step()
    drift = method.findings()["drift"]
    assert max(drift["0"]["each"]) == pytest.approx(0, abs=1e-6)
    assert (max(drift["3"]["each"]) < 1e-6) == (since == "cut"), "a layer behind has lost inputs"


def test_pictures_and_a_sheet_to_look_at_are_written(tmp_path) -> None:
    model, _ = planted(0)
    graph = cutback.trace(model, pictures(2))
    folder = tmp_path / "functions"
    loader = [(pictures(), torch.zeros(24))]
    with Functionality(graph, alpha=1.0, loader=loader, ignore="0,4", steps=1, folder=str(folder)) as method:
        names = {path.name for path in folder.iterdir()}
        assert names == {"contact_sheet.png", "functions.json", *(f"2.{unit}.png" for unit in range(13))}
        method.after_step()
    (told,) = json.loads((folder / "functions.json").read_text())
    assert told["filters"] == list(range(13))
    assert len(set(told["clusters"])) == 5
    (kept,) = (group.kept for group in method.plan().groups if group.name == "2")
    assert told["kept"] == list(kept)
    assert (folder / "contact_sheet_after.png").is_file()
    assert (folder / f"2.{kept[0]}_after.png").is_file()
    single = np.asarray(Image.open(folder / "2.3.png"))
    assert single.shape == (40, 40, 3)
    expected = np.clip((by_hand(planted(0)[0], [3])[0].numpy() + 2) / 4 * 255, 0, 255)
    assert np.abs(single[4::8, 4::8].transpose(2, 0, 1) - expected).max() <= 1.5
    sheet = np.asarray(Image.open(folder / "contact_sheet.png"))
    green, red = ((sheet == colour).all(2).sum() for colour in ((30, 150, 60), (200, 40, 40)))
    assert green / (green + red) == pytest.approx(5 / 13, abs=0.01)


def test_png_files_hold_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(256, size=(5, 7, 3)).astype(np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(png(pixels)))) == pixels).all()
    grey = as_pixels(torch.tensor([[[-2.0, 0.0, 2.0, 5.0]]]), -2.0, 2.0)
    assert grey[0, :, 0].tolist() == [0, 128, 255, 255]
    assert (grey[..., 0] == grey[..., 2]).all()


def test_one_share_of_redundancy_for_all_layers_meets_the_budget() -> None:
    model = chain((8, 10))
    graph = cutback.trace(model, IMAGES[:2])
    method = Functionality(graph, budget="macs=50%", evaluate=lambda net: float(net.training), **QUICK)
    assert method.forecast() == {"passes": 18 * 5}
    with method:
        assert method.finished
    plan = method.plan()
    assert plan.costs["macs"].after <= plan.costs["macs"].before / 2
    told = json.loads(json.dumps(method.findings()))
    assert (told["figure_dense"], told["figure_cut"]) == (0.0, 0.0)
    for name in ("0", "3"):
        assert 0 < told["layers"][name]["coverage"] <= 1


def test_where_the_folder_cannot_be_written_it_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    graph = cutback.trace(chain((6, 5)), IMAGES[:2])
    with (
        pytest.raises(SaveError),
        Functionality(graph, budget="macs=60%", folder=str(tmp_path / "file" / "x"), **QUICK),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({}, InvalidBudget, "either a budget"),
        ({"budget": "macs=50%", "alpha": 1.0}, InvalidBudget, "either a budget"),
        ({"budget": "macs=50%", "steps": -1}, UserMistake, "steps=-1"),
        ({"budget": "macs=50%", "order": "l2"}, UserMistake, "order='l2'"),
        ({"budget": "macs=50%", "low": 3.0}, UserMistake, "low=3.0"),
        ({"alpha": 0.0}, UserMistake, "alpha=0.0"),
        ({"alpha": 0.001}, NothingToPrune, "write a larger one"),
        ({"budget": "macs=50%", "ignore": "0,3"}, NothingToPrune, "may remove no filter"),
        ({"budget": "macs=1%"}, BudgetUnreachable, "lowest reachable"),
        ({"budget": "macs=50%", "loader": []}, UserMistake, "no batch"),
    ],
)
def test_what_it_refuses(settings, kind, message) -> None:
    model = chain((6, 5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = cutback.trace(model, IMAGES[:2])
    with pytest.raises(kind, match=message), Functionality(graph, **{**QUICK, **settings}):
        pass
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_models_without_pictures_or_classes_are_refused() -> None:
    line = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(UserMistake, match="pictures"):
        Functionality(cutback.trace(line, torch.randn(2, 6)), budget="macs=50%", **QUICK)
    maps = nn.Sequential(chain((6, 5))[:4], nn.ReLU(), nn.Conv2d(5, 2, 1))
    graph = cutback.trace(maps, IMAGES[:2])
    with pytest.raises(UserMistake, match="no classification"), Functionality(graph, budget="macs=50%", **QUICK):
        pass
