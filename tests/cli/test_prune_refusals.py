"""``cutback prune`` refuses what cannot be done before it works, in one line, and leaves nothing behind."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from cutback.cli.models import load_model
from cutback.train import Loop
from tests.cli.helpers import MIXED, SMALL, draw, refusal, write


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder with users' files, where training would be a mistake."""

    def trained(*_, **__):
        raise AssertionError("training started")

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(Loop, "run", trained)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.py", SMALL)
    write(tmp_path / "mixed.py", MIXED)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["small.py:mak"], "no function called 'mak'; did you mean 'make'"),
        (["cutback:resnet2"], "no model is called 'resnet2'"),
        (["small.py:make", "--data", "digit"], "no data source is called 'digit'; did you mean 'digits'"),
        (["small.py:make", "--data", "imagefolder:nowhere"], "there is no folder 'nowhere'"),
        (["small.py:make", "--input", "1x8"], "cannot read --input '1x8'"),
        (["small.py:make", "--input", "3x8x8"], "the pictures of 'digits' are 1x8x8, not 3x8x8"),
        (["mixed.py:make"], "the model does not accept the 1x8x8 pictures of 'digits'"),
        (["small.py:make", "--budget", "mac=50%"], "no budget is called 'mac'"),
        (["small.py:make", "--budget", "macs=0.001%"], "no permitted cut meets the budget"),
        (["small.py:make", "--ignore", "head*"], "ignore pattern 'head*' matches no module"),
        (["small.py:make", "--ignore", "0", "--ignore", "2"], "no channel of this model may be removed"),
        (["small.py:make", "--score", "l3"], "no score is called 'l3'"),
        (["small.py:make", "--allocate", "uniformly"], "no allocation is called 'uniformly'"),
        (["small.py:make", "--allocate", "none.json"], "cannot read --allocate none.json"),
        (["small.py:make", "--max-removed", "none"], "max_removed='none' is no share"),
        (["small.py:make", "--budget", "peak=1B"], "peak at most 1 bytes, lowest reachable"),
        (["small.py:make", "--budget", "memory=8ms"], "has no unit of memory"),
        (["small.py:make", "--device", "warp"], "use --device cpu"),
        (["small.py:make", "--lr", "0"], "--lr must be above 0"),
        (["small.py:make", "--weights", "none.pt"], "there is no file none.pt"),
        (["small.py:make", "--out", "small.py"], "the output small.py exists already"),
        (["small.py:make", "--out", "small.py/out"], "cannot be made"),
    ],
)
def test_what_cannot_be_done_is_said_before_training(arguments, message, folder, capsys) -> None:
    budget = [] if "--budget" in arguments else ["--budget", "macs=50%"]
    before = sorted(folder.iterdir())
    assert message in refusal(capsys, "prune", *arguments, *budget)
    assert sorted(folder.iterdir()) == before


def test_a_budget_is_needed(capsys) -> None:
    assert "add for example --budget macs=50%" in refusal(capsys, "prune", "small.py:make")


def test_an_output_folder_that_exists_is_left_alone(folder, capsys) -> None:
    (folder / "runs" / "make").mkdir(parents=True)
    assert "runs/make exists already" in refusal(capsys, "prune", "small.py:make", "--budget", "macs=50%")
    assert not list((folder / "runs" / "make").iterdir())


def test_a_syntax_error_names_file_and_line(folder, capsys) -> None:
    write(folder / "broken.py", "import torch\ndef make(:\n    pass\n")
    assert "broken.py line 2: SyntaxError" in refusal(capsys, "prune", "broken.py:make", "--budget", "macs=50%")


def test_folders_of_pictures_that_cannot_be_used(folder, capsys) -> None:
    def refused(*arguments: str) -> str:
        options = ["--data", "imagefolder:pictures", "--budget", "params=50%"]
        return refusal(capsys, "prune", "mixed.py:make", *options, *arguments)

    (folder / "pictures").mkdir()
    assert "pictures has no folder for any class" in refused()
    draw(folder / "pictures", classes=3, pictures=4)
    assert "has 3 classes but the model only 2 outputs; replace its head with --num-classes 3" in refusal(
        capsys, "prune", "mixed.py:make_two_outputs", "--data", "imagefolder:pictures", "--budget", "params=50%"
    )
    draw(folder / "small", classes=1, pictures=1, size=16)
    (folder / "small" / "class0" / "0.png").rename(folder / "pictures" / "class1" / "other.png")
    message = refused()
    assert "mixed sizes" in message
    assert "other.png is 16x16" in message
    assert "--input 3x32x32" in message
    (folder / "pictures" / "class1" / "other.png").write_bytes(b"\x89PNG not really")
    assert "other.png is not a readable picture" in refused()
    assert "other.png is not a readable picture" in refused("--input", "3x32x32")


def test_weights_that_do_not_fit_name_the_first_tensor(folder, capsys) -> None:
    def refused(name: str, *options: str) -> str:
        return refusal(capsys, "prune", "small.py:make", "--weights", name, "--budget", "macs=50%", *options)

    state = load_model("small.py:make", seed=0, input_shape=(1, 8, 8)).model.state_dict()
    torch.save({**state, "2.weight": torch.zeros(8, 5, 3, 3), "5.bias": torch.zeros(3)}, "shape.pt")
    assert "2.weight is 8x5x3x3 in the file and 8x6x3x3 in the model (1 more differ)" in refused("shape.pt")
    assert "2.weight is 8x5x3x3" in refused("shape.pt", "--num-classes", "12")
    save_file({name: value for name, value in state.items() if name != "0.bias"}, "missing.safetensors")
    assert "it lacks 0.bias" in refused("missing.safetensors")
    torch.save({"model": {**state, "extra": torch.zeros(1)}}, "extra.pth")
    assert "the model has no extra" in refused("extra.pth")
    torch.save({"state_dict": print}, "code.pt")
    assert "code.pt holds no plain weights" in refused("code.pt")
    torch.save([1, 2], "list.pt")
    assert "list.pt holds no state dict of tensors" in refused("list.pt")
    for name in ("damaged.pt", "damaged.safetensors"):
        (folder / name).write_bytes(b"PK\x03\x04 damaged")
        assert f"{name} holds no plain weights" in refused(name)
