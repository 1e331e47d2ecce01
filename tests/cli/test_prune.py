"""``cutback prune``: the whole job on the digits and on a user's own files."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cutback
from cutback.cli import job
from cutback.cli.main import main
from cutback.cli.models import load_model
from cutback.cli.request import Request
from cutback.models import build
from cutback.train import evaluate, load_data
from cutback.train.batches import Sample
from tests.cli.helpers import MIXED, SMALL, draw, write


@pytest.fixture(autouse=True)
def search_path(monkeypatch) -> None:
    """Restore ``sys.path``, to which folders of users' files are appended."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def saved_outputs(monkeypatch, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Note what the model computes at the moment it is saved."""
    outputs = {}

    def save(model, plan, directory):
        outputs["saved"] = model.eval()(inputs).detach()
        original(model, plan, directory)

    original = cutback.save
    monkeypatch.setattr(cutback, "save", save)
    return outputs


def outputs_in_a_fresh_process(report: dict, inputs: torch.Tensor, folder: Path) -> torch.Tensor:
    """Run the Python lines of a report in a new process and return what the model computes."""
    torch.save(inputs, folder / "inputs.pt")
    code = [
        "import torch",
        *report["reload"],
        f"inputs = torch.load({str(folder / 'inputs.pt')!r})",
        f"torch.save(model.eval()(inputs).detach(), {str(folder / 'outputs.pt')!r})",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", "\n".join(code)], check=True, cwd=folder, env=environment)
    return torch.load(folder / "outputs.pt")


def test_the_demo_in_short(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = saved_outputs(monkeypatch, inputs)
    options = ["--data", "digits", "--budget", "macs=50%", "--train", "3", "--finetune", "2", "--out", "runs/demo"]
    assert main(["prune", "cutback:resnet20", *options]) == 0
    out = capsys.readouterr().out
    assert sorted(path.name for path in Path("runs/demo").iterdir()) == [
        "checkpoints",
        "config.json",
        "log.jsonl",
        "model.safetensors",
        "networks",
        "plan.json",
        "report.json",
    ]
    report = json.loads(Path("runs/demo/report.json").read_text())
    assert report["command"] == f"cutback prune cutback:resnet20 {' '.join(options)}"
    assert report["versions"].keys() == {"cutback", "torch", "python"}
    assert report["seed"] == 0
    dense, cut, final = (report[name] for name in ("dense", "cut", "final"))
    for stage in (dense, cut, final):
        assert 0 <= stage["accuracy"] <= 1
        assert stage["latency_ms"] > 0
        assert f"{stage['accuracy']:.2%}" in out
        assert f"{stage['macs']:,}" in out
        assert f"{stage['bytes']:,}" in out
    assert 0.49 <= cut["macs"] / dense["macs"] <= 0.5
    assert final["macs"] == cut["macs"]
    assert cut["params"] == final["params"] < dense["params"]
    assert final["bytes"] == Path("runs/demo/model.safetensors").stat().st_size < dense["bytes"]
    assert report["finetune"]["epochs"] == 2
    assert report["proof"]["error"] < 1e-5
    assert report["reload"][-1] in out
    torch.testing.assert_close(outputs_in_a_fresh_process(report, inputs, tmp_path), outputs["saved"])
    reloaded = cutback.load("runs/demo", build=lambda: build("resnet20", in_channels=1))
    assert evaluate(reloaded, load_data("digits", seed=0).test).top1 == final["accuracy"]


def test_a_users_own_model_and_pictures(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = draw(tmp_path / "pictures")
    write(tmp_path / "my.py", MIXED)
    inputs = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    outputs = saved_outputs(monkeypatch, inputs)
    options = ["--input", "3x32x32", "--budget", "params=40%", "--train", "4", "--finetune", "4", "--json"]
    assert main(["prune", "my.py:make", "--data", f"imagefolder:{pictures}", *options]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert "a user's own print" in err
    assert report == json.loads(Path("runs/make/report.json").read_text())
    assert 0.39 <= report["final"]["params"] / report["dense"]["params"] <= 0.4
    assert report["data"]["classes"] == ["class0", "class1", "class2"]
    torch.testing.assert_close(outputs_in_a_fresh_process(report, inputs, tmp_path), outputs["saved"])


def test_weights_head_and_options_reach_their_steps(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.py", SMALL)
    dense = load_model("my.py:make", seed=3, input_shape=(1, 8, 8)).model
    torch.save({"state_dict": {f"module.{name}": value for name, value in dense.state_dict().items()}}, "dense.pt")
    inputs = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = saved_outputs(monkeypatch, inputs)
    options = ["--budget", "params=80%", "--budget", "macs=80%", "--ignore", "0", "--round-to", "2", "--seed", "5"]
    options += [
        "--weights",
        "dense.pt",
        "--num-classes",
        "12",
        "--finetune",
        "0",
        "--score",
        "random",
        "--out",
        "small",
    ]
    assert main(["prune", "my.py:make", *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["seed"], report["baseline"]["epochs"], report["finetune"]["epochs"]) == (5, 0, 0)
    assert report["plan"]["kept"] == {"0": [6, 6], "2": [6, 8]}
    assert report["plan"]["budgets"] == ["params=80%", "macs=80%"]
    assert report["cut"]["accuracy"] == report["final"]["accuracy"]
    assert outputs["saved"].shape == (2, 12)
    assert report["data"]["notes"][0].startswith("validation and test were cut from the training pictures by seed 5")
    assert report["data"]["augmentation"] == "shift:1"
    torch.testing.assert_close(outputs_in_a_fresh_process(report, inputs, tmp_path), outputs["saved"])


def test_memory_and_size_by_the_curves_of_a_scan(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.py", SMALL)
    scan = cutback.Sensitivity(0.9, {"0": {0.5: 0.2}, "2": {0.5: 0.85}})
    write(tmp_path / "scan.json", scan.to_json())
    options = ["--budget", "memory=70%", "--budget", "size=5kB", "--allocate", "scan.json", "--max-removed", "70%"]
    assert main(["prune", "my.py:make", *options, "--train", "0", "--finetune", "0"]) == 0
    report = json.loads(Path("runs/make/report.json").read_text())
    assert report["data"]["notes"] == []
    assert report["final"]["bytes"] == report["plan"]["costs"]["size"][1] <= 5000
    before, after = report["plan"]["costs"]["memory"]
    assert before == 4 * (6 * 36 + 8 * 16)
    assert after <= 0.7 * before
    assert f"memory: {before:,} bytes -> {after:,} bytes" in " ".join(capsys.readouterr().out.split())
    kept = report["plan"]["kept"]
    assert kept["2"] == [3, 8]  # costs little, and 70 % of it may go
    assert kept["0"][0] >= 4


def test_the_same_seed_gives_the_same_bytes(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.py", SMALL)
    options = ["--budget", "macs=60%", "--train", "2", "--finetune", "2"]
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        torch.rand(7)  # the global random state must not matter
        assert main(["prune", "my.py:make", *options, "--seed", seed, "--out", out]) == 0
    weights = {name: Path(name, "model.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"] != weights["c"]


def test_scores_that_need_data_see_the_training_split(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.py", SMALL)
    options = ["--budget", "channels=50%", "--train", "1", "--finetune", "0", "--json"]
    seen = []

    class Watched(Sample):
        def __iter__(self):
            for images, labels in super().__iter__():
                seen.append((len(images), self.split))
                yield images, labels

    monkeypatch.setattr(job, "Sample", Watched)
    monkeypatch.setattr(job, "SCORED_PICTURES", 100)
    kept = {}
    for out, score in (("a", "apoz"), ("b", "apoz"), ("c", "mean-std:leader"), ("d", "l1")):
        seen.clear()
        assert main(["prune", "my.py:make", *options, "--score", score, "--out", out]) == 0
        kept[out] = Path(out, "plan.json").read_bytes()
        train = load_data("digits", seed=0).train
        assert [count for count, _ in seen] == ([] if score == "l1" else [32, 32, 32, 32] * 2)  # tried first on a copy
        assert all(len(split) == len(train) for _, split in seen)
        capsys.readouterr()
    assert kept["a"] == kept["b"] != kept["d"]


def test_weights_have_seen_the_training_pictures_unless_told_otherwise() -> None:
    plain, weights = Request("m", "digits", ()), Path("dense.pt")
    assert (plain.seen, replace(plain, weights=weights).seen) == (False, True)
    assert not replace(plain, weights=weights, weights_seen=False).seen
    assert replace(plain, weights_seen=True).seen
