"""``cutback check``: groups, totals, what stays and why, for models from every source."""

import json
import re
import sys
from xml.etree import ElementTree as ET

import pytest
import torch

from cutback.cli.main import main
from tests.cli.helpers import MIXED, refusal, write

SPACE = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def search_path(monkeypatch) -> None:
    """Restore ``sys.path``, to which folders of users' files are appended."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def document(capsys, *arguments: str) -> dict:
    assert main(["check", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def drawing(file):
    return ET.parse(file).getroot()  # noqa: S314 (cutback has just written it)


def test_groups_totals_and_reasons_are_shown(capsys) -> None:
    assert main(["check", "cutback:lenet5"]) == 0
    out = capsys.readouterr().out
    assert "2,293,000 MACs (batch 1), 431,080 parameters" in out
    assert re.search(r"^conv2 +50 +69\.8% +- +conv2$", out, re.MULTILINE)
    assert re.search(r"^fc2 +10 +\(model\) : output", out, re.MULTILINE)


def test_json_says_the_same(capsys) -> None:
    found = document(capsys, "cutback:lenet5")
    assert (found["macs"], found["params"], found["inputs"]) == (2293000, 431080, [[1, 1, 28, 28]])
    assert [(group["name"], group["units"]) for group in found["groups"]] == [
        ("conv1", 20),
        ("conv2", 50),
        ("fc1", 500),
    ]
    assert [group["macs"] for group in found["groups"]] == [24 * 24 * 25 * 20, 8 * 8 * 25 * 20 * 50, 800 * 500]
    assert sum(group["share"] for group in found["groups"]) == pytest.approx(1 - 5000 / 2293000)
    assert found["groups"][0]["slices"][0] == {"state": "conv1.weight", "dimension": 0, "role": "filter"}
    assert found["kept"][0]["layer"] == "fc2"
    assert "output" in found["kept"][0]["reasons"][0]["reason"]


def test_boundaries_come_with_operator_module_and_reason(tmp_path, capsys) -> None:
    text = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Linear(8, 4)

    def forward(self, x):
        return self.second(torch.cumsum(self.first(x), dim=1).mean((2, 3)))
"""
    path = write(tmp_path / "odd.py", text)
    found = document(capsys, f"{path}:Odd", "--input", "3x8x8")
    assert not found["groups"]
    assert [boundary["operator"] for boundary in found["boundaries"]] == ["aten::cumsum"]
    assert set(found["boundaries"][0]) == {"module", "operator", "source", "reason"}
    assert main(["check", f"{path}:Odd", "--input", "3x8x8"]) == 0
    assert re.search(r"^aten::cumsum +\(model\) +\S+ +\S.*by position$", capsys.readouterr().out, re.MULTILINE)


def test_input_shape_and_classes_reach_the_model(capsys) -> None:
    found = document(capsys, "cutback:resnet20", "--input", "1x8x8", "--num-classes", "7")
    assert found["inputs"] == [[1, 1, 8, 8]]
    assert found["params"] == 269722 - 2 * 16 * 9 - 3 * 65


def test_a_users_file_brings_its_own_inputs_or_takes_input(tmp_path, capsys) -> None:
    path = write(tmp_path / "my.py", MIXED)
    own = document(capsys, f"{path}:make_with_inputs")
    assert own["inputs"] == [[2, 3, 32, 32]]
    given = document(capsys, f"{path}:make", "--input", "3x32x32")
    assert given["macs"] == own["macs"]
    assert {"stem", "left", "right"} <= {group["name"] for group in given["groups"]}


@pytest.mark.parametrize("model", ["torchvision:squeezenet1_1", "timm:resnet10t"])
def test_models_of_libraries_are_built_without_their_weights(model, capsys) -> None:
    library, _, _ = model.partition(":")
    pytest.importorskip(library)
    found = document(capsys, model, "--input", "3x64x64", "--num-classes", "5")
    assert found["groups"]
    assert found["params"] > 10**5
    assert [layer["total"] for layer in found["kept"] if layer["channels"] == 5] == [5]


@pytest.mark.parametrize("library", ["torchvision", "timm", "hf"])
def test_missing_libraries_are_named(library, monkeypatch, capsys) -> None:
    module = {"hf": "transformers", "torchvision": "torchvision"}.get(library, library)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert f"pip install {module}" in refusal(capsys, "check", f"{library}:resnet18")


def test_a_library_that_cannot_load_says_why(tmp_path, monkeypatch, capsys) -> None:
    write(tmp_path / "transformers.py", "raise RuntimeError('operator x::y does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    message = refusal(capsys, "check", "hf:resnet18")
    assert "cannot be loaded (RuntimeError: operator x::y does not exist)" in message


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_torchvision_for_another_torch_says_which_to_install(library, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / library).mkdir()
    write(tmp_path / library / "__init__.py", "raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(torch, "__version__", "2.9.0+cpu")
    message = refusal(capsys, "check", f"{library}:resnet18")
    assert "torchvision was built for another torch than the 2.9.0+cpu here" in message
    assert "pip install --force-reinstall --no-deps torchvision" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cutback:resnet21"], "no model is called 'resnet21'; did you mean 'resnet"),
        (["torch:resnet18"], "no model source is called 'torch'; did you mean 'torchvision'"),
        (["torchvision:resnet19"], "no model 'resnet19'; did you mean"),
        (["timm:resnet19"], "no model 'resnet19'; did you mean"),
        (["resnet20"], "write for example cutback:resnet20"),
        (["missing.py:make"], "cannot read missing.py"),
        (["cutback:resnet20", "--input", "3x32"], "cannot read --input '3x32'; write channels, height and width"),
        (["cutback:resnet20", "--input", "0x32x32"], "cannot read --input"),
        (["cutback:lenet5", "--input", "1x8x8"], "input_size of at least 16"),
        (["cutback:lenet5", "--input", "1x28x32"], "square"),
    ],
)
def test_models_that_do_not_exist_or_fit_are_refused(arguments, message, capsys) -> None:
    assert message in refusal(capsys, "check", *arguments)


def test_what_a_users_file_gets_wrong_is_one_line(tmp_path, capsys) -> None:
    path = write(tmp_path / "my.py", f"{MIXED}\n\ndef number():\n    return 3\n\n\ndef failing():\n    return [][1]\n")
    assert "did you mean 'make'" in refusal(capsys, "check", f"{path}:mak")
    assert "returned a int" in refusal(capsys, "check", f"{path}:number")
    assert "IndexError" in refusal(capsys, "check", f"{path}:failing")
    assert "add for example --input" in refusal(capsys, "check", f"{path}:make")
    assert "(1, 1, 32, 32)" in refusal(capsys, "check", f"{path}:make", "--input", "1x32x32")
    broken = write(tmp_path / "broken.py", "def make(:\n    pass\n")
    assert "broken.py line 1: SyntaxError" in refusal(capsys, "check", f"{broken}:make")


def test_channels_that_go_by_several_at_once_are_counted_so(tmp_path, capsys) -> None:
    path = write(
        tmp_path / "shuffled.py",
        "from torch import nn\n\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.PixelShuffle(2), nn.Conv2d(3, 4, 1))\n",
    )
    (group,) = document(capsys, f"{path}:make", "--input", "3x4x4")["groups"]
    assert (group["units"], group["channels"]) == (3, 12)
    assert main(["check", f"{path}:make", "--input", "3x4x4"]) == 0
    assert "12 by 4" in capsys.readouterr().out


def test_the_drawing_shows_every_layer_once_in_its_group(tmp_path, capsys) -> None:
    file = tmp_path / "coupling.svg"
    file.write_text("older")
    assert main(["check", "cutback:resnet20", "--graph", str(file)]) == 0
    assert "drawn in" in capsys.readouterr().err
    root = drawing(file)
    boxes = [rect.get("fill") for rect in root.iter(f"{SPACE}rect")][1:]
    texts = [text.text for text in root.iter(f"{SPACE}text")][2:]
    names, notes = texts[::2], texts[1::2]
    expected = ["conv1"] + [f"layer{i}.{j}.conv{k}" for i in (1, 2, 3) for j in (0, 1, 2) for k in (1, 2)]
    assert names == [*expected, "linear"]
    colours = dict(zip(names, boxes, strict=True))
    assert colours["conv1"] == colours["layer1.0.conv2"] == colours["layer1.2.conv2"] != colours["layer1.0.conv1"]
    assert notes[0] == "16 channels, group conv1"
    assert notes[-1] == "10 channels, all stay"
    paths = [path.get("d") for path in root.iter(f"{SPACE}path")]
    assert sum("V" in path for path in paths) == 19  # each layer reads the one before it
    # Shortcuts add up: what reads the stream behind block n reads the stem and every block before that one too.
    assert sum("C" in path for path in paths) == sum(range(1, 10))
    assert [file.name for file in tmp_path.iterdir()] == ["coupling.svg"]


def test_names_in_a_drawing_are_escaped(tmp_path, capsys) -> None:
    path = write(
        tmp_path / "a&b.py",
        "from torch import nn\n\ndef make():\n"
        "    model = nn.Sequential()\n    model.add_module('<a & b>', nn.Conv2d(3, 4, 1))\n    return model\n",
    )
    file = tmp_path / "drawing.SVG"
    assert main(["check", f"{path}:make", "--input", "3x4x4", "--graph", str(file)]) == 0
    texts = [text.text for text in drawing(file).iter(f"{SPACE}text")]
    assert texts[0] == f"{path}:make"
    assert "<a & b>" in texts


def test_a_drawing_that_cannot_be_written_is_refused_before_any_work(tmp_path, capsys) -> None:
    model = "missing.py:make"  # is never looked for
    assert "ends in .svg, not 'x.png'" in refusal(capsys, "check", model, "--graph", tmp_path / "x.png")
    assert "no folder you may write to" in refusal(capsys, "check", model, "--graph", tmp_path / "no" / "x.svg")
    (tmp_path / "folder.svg").mkdir()
    assert "is a folder" in refusal(capsys, "check", model, "--graph", tmp_path / "folder.svg")
    assert [file.name for file in tmp_path.iterdir()] == ["folder.svg"]


def test_a_drawing_that_fails_half_way_leaves_the_older_one(tmp_path, capsys, monkeypatch) -> None:
    file = tmp_path / "x.svg"
    file.write_text("older")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    assert "No space left on device" in refusal(capsys, "check", "cutback:lenet5", "--graph", file)
    assert file.read_text() == "older"
    assert [found.name for found in tmp_path.iterdir()] == ["x.svg"]


def test_granularity_says_how_groups_of_a_convolution_shrink(tmp_path, capsys) -> None:
    text = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 6, 3, groups=3), nn.Conv2d(6, 2, 1))
"""
    name = f"{write(tmp_path / 'net.py', text)}:make"
    alike = document(capsys, name, "--input", "3x8x8")["groups"]
    assert [(group["units"], group["balance"] != "") for group in alike] == [(12, True), (6, True)]
    whole = document(capsys, name, "--input", "3x8x8", "--granularity", "blocks")["groups"]
    assert [(group["units"], set(group["layers"])) for group in whole] == [(3, {"0", "2"})]
    assert "'channels' or 'blocks'" in refusal(capsys, "check", name, "--input", "3x8x8", "--granularity", "rows")
